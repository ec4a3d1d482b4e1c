"""McNemar's test: by hand, exact for small counts, and against scipy."""

from __future__ import annotations

import math
import random
import time

import pytest
from scipy.stats import binomtest

from beam_retrain.transforms.core.metrics.mcnemar import mcnemar_p_value


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
