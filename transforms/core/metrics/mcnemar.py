"""Whether chance explains that one of two answers to the same images was right more often. No Beam."""

from __future__ import annotations

import math


def mcnemar_p_value(regressed: int, fixed: int) -> float:
  """Returns the exact two-sided p-value of McNemar's test, 0..1: the probability, were a change of either kind equally
  likely, of a split of all changes at least as uneven as this one. 1 where nothing changed.

  Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
  Psychometrika 12 (1947), 153-157, with the binomial distribution itself rather than its normal approximation:
  min(1, 2 P(X <= min(regressed, fixed))) for X ~ Binomial(regressed + fixed, 1/2). Summed from the largest term down,
  relative to it, so that it takes a few sqrt(n) steps; the largest term in logarithms. Relative error below 1e-8 for a
  million changes.
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
