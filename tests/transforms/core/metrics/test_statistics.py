"""Intervals against R, McNemar's test against scipy, cosines."""

from __future__ import annotations

import math
import random
import time

import numpy as np
import pytest
from scipy.stats import binomtest

from beam_retrain.transforms.core.metrics.statistics import cosines, mcnemar_p_value, wilson_interval


@pytest.mark.parametrize(
  ("correct", "total", "expected"),
  # R: prop.test(correct, total, correct = FALSE)$conf.int
  [(8, 10, (0.4901625, 0.9433178)), (0, 10, (0.0, 0.2775328)), (10, 10, (0.7224672, 1.0))],
)
def test_wilson_interval(correct: int, total: int, expected: tuple[float, float]) -> None:
  assert wilson_interval(correct, total) == pytest.approx(expected, abs=1e-6)


def test_of_nothing_nothing_is_known() -> None:
  assert wilson_interval(0, 0) == (0.0, 1.0)


def test_mcnemar_by_hand():
  assert mcnemar_p_value(0, 0) == mcnemar_p_value(1, 0) == mcnemar_p_value(7, 7) == mcnemar_p_value(7, 8) == 1.0
  assert mcnemar_p_value(499_999, 500_000) == 1.0
  assert mcnemar_p_value(5, 0) == pytest.approx(2 / 32, rel=1e-13)
  assert mcnemar_p_value(2, 6) == pytest.approx(2 * (1 + 8 + 28) / 256, rel=1e-13)


def test_mcnemar_is_exact_for_every_small_split():
  for changed in range(1, 61):
    for fewer in range(changed + 1):
      exact = min(1.0, 2 * sum(math.comb(changed, i) for i in range(min(fewer, changed - fewer) + 1)) / 2**changed)
      assert mcnemar_p_value(fewer, changed - fewer) == pytest.approx(exact, rel=1e-12)


def test_mcnemar_agrees_with_another_reader():
  picks = random.Random(4)
  splits = [(0, 1_000), (499_000, 501_000), (500_000, 500_000), (499_999, 500_001), (480_000, 520_000), (3, 999_997)]
  for _ in range(60):
    changed = round(10 ** picks.uniform(1, 6))
    fewer = min(changed, max(0, round(picks.gauss(changed / 2, 1.5 * math.sqrt(changed)))))
    splits.append((fewer, changed - fewer))
  for regressed, fixed in splits:
    expected = binomtest(regressed, regressed + fixed, 0.5).pvalue
    assert mcnemar_p_value(regressed, fixed) == pytest.approx(expected, rel=1e-7, abs=1e-300)
    assert mcnemar_p_value(fixed, regressed) == mcnemar_p_value(regressed, fixed)


def test_mcnemar_is_quick_for_a_million_changes():
  start = time.process_time()
  for regressed in range(499_000, 499_050):
    assert 0 < mcnemar_p_value(regressed, 1_000_000 - regressed) < 0.1
  assert mcnemar_p_value(1, 999_999) == 0.0
  assert time.process_time() - start < 0.5


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
