"""An accuracy in words, as commands print it first."""

from __future__ import annotations

from beam_retrain.transforms.core.metrics.statistics import wilson_interval

ENOUGH = 100
"""Fewer testing images are called too few: the interval spans up to 20 points."""
_LARGEST_PERCENTAGE = 30.0


def accuracy_line(correct: int, total: int, where: str = "") -> str:
  """Returns an accuracy in words; `where` follows the rate.

  For example `Accuracy 84.6 % (22 of 26; 95 % interval 66 to 94)`, with as many decimals as the interval is worth, and
  100 % only where all are right.
  """
  if not total:
    return "Accuracy unknown: no image could be evaluated"
  low, high = wilson_interval(correct, total)
  places = places_of_interval(low, high)
  rate = f"{100 * correct / total:.{places}f}"
  while correct < total and float(rate) == 100 and places < 6:
    places += 1
    rate = f"{100 * correct / total:.{places}f}"
  bounds = " to ".join(f"{100 * bound:.{0 if high - low > 0.05 else 1}f}" for bound in (low, high))
  return f"Accuracy {rate} %{where} ({correct:,} of {total:,}; 95 % interval {bounds})"


def places_of_interval(low: float, high: float) -> int:
  """Returns how many decimals of a percentage an interval, 0..1, is worth."""
  return 2 if high - low < 0.01 else 1


def too_few(total: int, percentage: float | None) -> str:
  """Returns advice for too few testing images; else "".

  `percentage` of the images are for testing; None: the input has splits of its own.
  """
  if not 0 < total < ENOUGH:
    return ""
  few = f"{total} testing images are too few for a narrower interval"
  if percentage is None or percentage >= _LARGEST_PERCENTAGE:
    return f"{few}: add images, of which more are then for testing"
  wanted = min(_LARGEST_PERCENTAGE, 5 * -(-percentage * ENOUGH / total // 5))
  return f"{few}: set more aside with --testing_percentage {wanted:g} of `beam-retrain run` or `bottlenecks`"
