"""Which mistakes people are shown: the same ones in whatever order they come."""

from __future__ import annotations

import random

import pytest

from beam_retrain.transforms.core.metrics import mistakes
from beam_retrain.transforms.core.metrics.mistakes import Mistakes
from beam_retrain.transforms.core.metrics.predictions import Row


def _row(key: str, actual: str, predicted: str, confidence: float) -> Row:
  return Row(key, actual, predicted, f"{confidence:.4f}", "ab" * 32)


def _seen(rows: list[Row]) -> Mistakes:
  found = Mistakes()
  for row in rows:
    found.add(row)
  return found


def _draw(count: int) -> list[Row]:
  rng = random.Random(5)
  labels = "abcd"
  return [_row(f"{n:05d}.jpg", rng.choice(labels), rng.choice(labels), rng.randint(30, 100)) for n in range(count)]


def test_every_kind_of_mistake_comes_before_the_second_of_any() -> None:
  rows = [_row("1", "a", "b", 99), _row("2", "a", "b", 98), _row("3", "c", "a", 40), _row("4", "a", "a", 100)]
  assert [row.key for row in _seen(rows).shown()] == ["1", "3", "2"]


def test_what_is_shown_does_not_depend_on_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(mistakes, "MAX_SUSPICIOUS", 20)
  rows = _draw(3000)
  first = _seen(rows)
  random.Random(1).shuffle(rows)
  second = _seen(rows)
  assert first.shown() == second.shown()
  assert first.shown(100) == first.shown()[:100]
  assert first.suspicious() == second.suspicious()
  wrong = [row for row in rows if not row.right]
  best = sorted(wrong, key=lambda row: (-float(row.confidence), row.key))
  assert first.suspicious() == best[:20]
  assert first.suspicious_count == sum(float(row.confidence) >= 95 for row in wrong) > 20
  assert len(first.shown(100)) == 100
  assert first.shown()[0] == best[0]
  of_cell = [row for row in best if (row.actual, row.predicted) == ("a", "b")]
  assert [row for row in first.shown(100) if (row.actual, row.predicted) == ("a", "b")] == of_cell[: 100 // 12]


def test_a_cell_is_bounded() -> None:
  assert len(_seen([_row(str(n), "a", "b", 50) for n in range(100)]).shown()) == mistakes.MAX_PER_CELL


def test_below_the_threshold_nothing_is_suspicious() -> None:
  found = _seen([_row("1", "a", "b", 94.9999), _row("2", "a", "b", 95), _row("3", "a", "a", 100)])
  assert [row.key for row in found.suspicious()] == ["2"]
