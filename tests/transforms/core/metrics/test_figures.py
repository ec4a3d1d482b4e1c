"""Which figures come first, and nights that are shown side by side."""

from __future__ import annotations

from beam_retrain.transforms.core.metrics.figures import LabelRow, Metrics, ModelMetrics, alike
from beam_retrain.transforms.core.metrics.label_stats import LabelCounts, Outcome, add, extract, merge


def _night(*trained_on: bool | None, old: int = 0) -> Metrics:
  """Of `a` the model is right on what it was trained on alone; `old`: images counted by an earlier version."""
  parts = []
  for trained in (*trained_on, *[None] * old):
    parts.append(LabelCounts())
    add(
      parts[-1], Outcome("a", "a" if trained or trained is None else "b"), *([trained] if trained is not None else [])
    )
  return Metrics(extract(LabelCounts.from_json(merge(parts).to_json()), ["a", "b"]), night="2026-03-01")


def test_the_main_figures_are_those_on_images_not_trained_on():
  model = _night(True, True, False).model
  assert (model.total, model.correct, model.trained_on) == (3, 2, 2)
  assert (model.main.total, model.main.correct, model.main.accuracy, model.is_mixed) == (1, 0, 0.0, True)
  assert model.recalls() == {"a": 0.0}


def test_where_there_are_none_they_are_those_on_all():
  for model, trained_on in ((_night(True, True).model, 2), (_night(old=2).model, None)):
    assert (model.main.total, model.main.correct, model.trained_on, model.is_mixed) == (2, 2, trained_on, False)
    assert model.recalls() == {"a": 1.0}


def test_one_image_that_is_unknown_makes_all_unknown():
  model = _night(True, False, old=1).model
  assert (model.trained_on, model.unseen, model.main.total) == (None, None, 3)


def test_no_image_is_none():
  model = ModelMetrics(rows=(LabelRow("a"),))
  assert (model.main.accuracy, model.recalls(), model.is_mixed) == (None, {}, False)


def test_nights_are_shown_with_figures_of_one_kind():
  new, none_left, old = (night.trend_point() for night in (_night(True, False), _night(True, True), _night(old=4)))
  points, on_unseen = alike([new, new])
  assert ([(point.accuracy, point.total, point.recalls["a"]) for point in points], on_unseen) == ([(0, 1, 0)] * 2, True)
  for other in (none_left, old):
    points, on_unseen = alike([other, new])
    assert ([point.accuracy for point in points], on_unseen) == ([1, 0.5], False)
