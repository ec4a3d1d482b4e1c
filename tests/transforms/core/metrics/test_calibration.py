"""Counting by confidence, against a plain loop."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from beam_retrain.transforms.core.metrics import calibration


def test_a_model_that_is_too_sure_of_itself() -> None:
  bins: Counter = Counter()
  for right in (True, False, False, False):
    calibration.add(bins, round(0.95 * calibration.UNIT), right)
  found = calibration.extract(bins)
  (filled,) = [row for row in found.bins if row.images]
  assert (filled.low, filled.high, filled.images, filled.correct) == (0.9, 1.0, 4, 1)
  assert filled.mean_confidence == pytest.approx(0.95)
  assert found.expected_error == pytest.approx(0.7)


def test_the_error_is_the_weighted_mean_of_the_gaps() -> None:
  rng = np.random.default_rng(3)
  confidence, right = rng.random(1000), rng.random(1000) < 0.6
  bins: Counter = Counter()
  for one, is_right in zip(confidence, right, strict=True):
    calibration.add(bins, round(one * calibration.UNIT), bool(is_right))
  place = np.minimum((confidence * 10).astype(int), 9)
  gaps = [
    abs(confidence[place == number].mean() - right[place == number].mean()) * (place == number).sum()
    for number in range(10)
  ]
  found = calibration.extract(bins)
  assert found.expected_error == pytest.approx(sum(gaps) / 1000, abs=1e-9)
  assert [row.images for row in found.bins] == [(place == number).sum() for number in range(10)]


def test_confidence_of_one_is_in_the_last_bin_and_nothing_is_nothing() -> None:
  bins: Counter = Counter()
  calibration.add(bins, calibration.UNIT, True)
  assert calibration.extract(bins).bins[9].correct == 1
  empty = calibration.extract(Counter())
  assert empty.expected_error is None
  assert {row.accuracy for row in empty.bins} == {None}
