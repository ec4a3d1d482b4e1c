"""How sure a proportion is, against R."""

from __future__ import annotations

import pytest

from beam_retrain.transforms.core.metrics.intervals import wilson_interval


@pytest.mark.parametrize(
  ("correct", "total", "expected"),
  # R: prop.test(correct, total, correct = FALSE)$conf.int
  [(8, 10, (0.4901625, 0.9433178)), (0, 10, (0.0, 0.2775328)), (10, 10, (0.7224672, 1.0))],
)
def test_wilson_interval(correct: int, total: int, expected: tuple[float, float]) -> None:
  assert wilson_interval(correct, total) == pytest.approx(expected, abs=1e-6)


def test_of_nothing_nothing_is_known() -> None:
  assert wilson_interval(0, 0) == (0.0, 1.0)
