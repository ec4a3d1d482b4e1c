"""Compares confidence with accuracy in ten bins.

Expected calibration error: the mean of |accuracy - mean confidence| over bins of equal width, weighted by their
images. M. P. Naeini, G. F. Cooper, M. Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning",
AAAI 2015.
"""

from __future__ import annotations

import math
from collections import Counter

from beam_retrain.transforms.core.metrics.figures import Calibration, CalibrationBin
from beam_retrain.transforms.core.metrics.statistics import wilson_interval

UNIT = 10**9  # sums are integers, in billionths, so that merging in any order gives the same bits
BINS = 10
_IMAGES = "pictures"  # the key in shard reports of version 0.4, which a resumed run reads


def add(bins: Counter[tuple[str, int]], confidence: int, right: bool) -> None:
  """Counts one image.

  Args:
    bins: (counter name, bin 0..9) -> count; changed in place.
    confidence: in billionths, 0..10**9.
  """
  place = min(confidence * BINS // UNIT, BINS - 1)
  bins[_IMAGES, place] += 1
  bins["correct", place] += right
  bins["confidence", place] += confidence


def extract(bins: Counter[tuple[str, int]]) -> Calibration:
  """Returns the bins and the expected calibration error (None without images)."""
  rows = tuple(_bin(bins, place) for place in range(BINS))
  gaps = [
    row.images * abs(row.accuracy - row.mean_confidence)
    for row in rows
    if row.accuracy is not None and row.mean_confidence is not None
  ]
  total = sum(row.images for row in rows)
  return Calibration(rows, math.fsum(gaps) / total if total else None)


def _bin(bins: Counter[tuple[str, int]], place: int) -> CalibrationBin:
  images, correct = bins[_IMAGES, place], bins["correct", place]
  return CalibrationBin(
    low=place / BINS,
    high=(place + 1) / BINS,
    images=images,
    correct=correct,
    mean_confidence=bins["confidence", place] / (images * UNIT) if images else None,
    accuracy=correct / images if images else None,
    interval=wilson_interval(correct, images) if images else None,
  )
