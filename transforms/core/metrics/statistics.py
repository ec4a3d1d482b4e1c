"""Wilson intervals, McNemar's test and cosine similarity."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  import numpy as np

_Z_95 = 1.959963984540054  # the normal distribution's 97.5 % point


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
  """Returns the 95 % interval of `correct / total`, 0..1.

  (0, 1) if `total` is 0. E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal
  of the American Statistical Association 22 (1927), 209-212. Unlike p +- 1.96 sqrt(p(1-p)/n), it stays within 0..1 and
  is not empty at 100 %.
  """
  if not total:
    return 0.0, 1.0
  share, z2 = correct / total, _Z_95**2
  centre = (share + z2 / (2 * total)) / (1 + z2 / total)
  reach = _Z_95 / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
  return max(0.0, centre - reach), min(1.0, centre + reach)


def mcnemar_p_value(regressed: int, fixed: int) -> float:
  """Returns the exact two-sided p-value of McNemar's test, 0..1.

  It is min(1, 2 P(X <= min(regressed, fixed))) for X ~ Binomial(regressed + fixed, 1/2); 1 if nothing changed.
  Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
  Psychometrika 12 (1947), 153-157, with the binomial distribution instead of its normal approximation.

  The terms are summed from the largest down, relative to it, which takes a few sqrt(n) steps. Relative error below 1e-8
  for a million changes.
  """
  changed, fewer = regressed + fixed, min(regressed, fixed)
  if 2 * fewer + 1 >= changed:
    return 1.0  # as even as it can be
  log_largest = math.lgamma(changed + 1) - math.lgamma(fewer + 1) - math.lgamma(changed - fewer + 1)
  total = term = 1.0
  for count in range(fewer, 0, -1):
    term *= count / (changed - count + 1)
    total += term
    if term < total * 1e-17:
      break
  return math.exp(log_largest + math.log(total) - (changed - 1) * math.log(2))


def cosines(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
  """Returns the cosine of each pair of vectors [N, D]: float64 [N].

  1 for two zero vectors, 0 for one; -1 if a vector has values that are not finite.
  """
  import numpy as np  # the report does without it

  ours, theirs = vectors.astype(np.float64), others.astype(np.float64)
  with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    ratios = np.einsum("nd,nd->n", ours, theirs) / lengths
  both_zero = ~ours.any(axis=1) & ~theirs.any(axis=1)
  ratios = np.where(lengths == 0, np.where(both_zero, 1.0, 0.0), ratios)
  return np.where(np.isfinite(ratios), np.clip(ratios, -1, 1), -1.0)
