"""How sure a proportion is."""

from __future__ import annotations

import math

_Z_95 = 1.959963984540054  # the normal distribution's 97.5 % point


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
  """Returns the 95 % interval, 0..1, of a proportion of which `correct` of `total` were seen; (0, 1) where none was.

  E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American
  Statistical Association 22 (1927), 209-212. Unlike p +- 1.96 sqrt(p(1-p)/n), it stays within 0..1 and says something
  at 100 %.
  """
  if not total:
    return 0.0, 1.0
  share, z2 = correct / total, _Z_95**2
  centre = (share + z2 / (2 * total)) / (1 + z2 / total)
  reach = _Z_95 / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
  return max(0.0, centre - reach), min(1.0, centre + reach)
