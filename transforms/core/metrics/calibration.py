"""Whether a model is as often right as it says: images counted by the confidence of what they were taken for.

The expected calibration error is the mean of |accuracy - mean confidence| over ten bins of equal width, weighted by
their images: M. P. Naeini, G. F. Cooper, M. Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
binning", AAAI 2015.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from beam_retrain.transforms.core.metrics.intervals import wilson_interval

UNIT = 10**9  # sums of real numbers are kept in billionths: merging in any order gives the same bits
BINS = 10


def add(bins: Counter[tuple[str, int]], confidence: int, right: bool) -> None:
  """Counts one more image.

  Args:
    bins: (what is counted, bin 0..9) -> count, changed in place.
    confidence: of the predicted label, in billionths, 0..10**9.
    right: whether it is the actual one.
  """
  place = min(confidence * BINS // UNIT, BINS - 1)
  bins["pictures", place] += 1
  bins["correct", place] += right
  bins["confidence", place] += confidence


def extract(bins: Counter[tuple[str, int]]) -> dict[str, Any]:
  """Returns JSON values: `bins`, from low to high confidence, and `expected_calibration_error`; all rates are 0..1,
  None where no image is."""
  rows = [_bin(bins, place) for place in range(BINS)]
  filled = [row for row in rows if row["pictures"]]
  total = sum(row["pictures"] for row in filled)
  gaps = [row["pictures"] * abs(row["accuracy"] - row["mean_confidence"]) for row in filled]
  return {"bins": rows, "expected_calibration_error": math.fsum(gaps) / total if total else None}


def _bin(bins: Counter[tuple[str, int]], place: int) -> dict[str, Any]:
  images, correct = bins["pictures", place], bins["correct", place]
  return {
    "from": place / BINS,
    "to": (place + 1) / BINS,
    "pictures": images,
    "correct": correct,
    "mean_confidence": bins["confidence", place] / (images * UNIT) if images else None,
    "accuracy": correct / images if images else None,
    "interval_95": list(wilson_interval(correct, images)) if images else None,
  }
