"""How near two kinds of one trunk are."""

from __future__ import annotations

import numpy as np
import pytest

from beam_retrain.transforms.core.metrics.cosine import cosines


def test_each_row_has_its_own():
  ours = np.array([[1, 0], [1, 1], [2, 0], [1, 0]], np.float32)
  theirs = np.array([[3, 0], [1, 0], [-1, 0], [0, 5]], np.float32)
  assert cosines(ours, theirs) == pytest.approx([1, np.sqrt(0.5), -1, 0])


def test_zeros_are_like_zeros_and_like_nothing_else():
  zero, one = np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32)
  assert cosines(zero, zero) == [1]
  assert cosines(zero, one) == [0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_like_nothing(bad):
  assert cosines(np.array([[bad, 1]]), np.array([[bad, 1]])) == [-1]
  assert cosines(np.array([[1, 1]]), np.array([[bad, 1]])) == [-1]


def test_large_and_small_numbers_are_no_hindrance():
  rows = np.array([[3e38, 1e38], [1e-38, 2e-38]], np.float32)
  assert cosines(rows, rows / 7) == pytest.approx([1, 1])
