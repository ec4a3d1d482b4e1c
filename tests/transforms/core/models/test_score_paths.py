"""What is counted of two paths' scores, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.score_paths import ScoringPath

LABELS = ["ant", "bee"]
EXPECTED = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]], np.float32)


def path_of(bound: float | None, *batches: list[list[float]]) -> ScoringPath:
  """A path that gives these scores, one batch after the other."""
  scores = iter(batches)
  return ScoringPath("other", lambda encoded: np.array(next(scores), np.float32), bound=bound)


def add(bound: float | None, *batches: list[list[float]]) -> ScoringPath:
  path = path_of(bound, *batches)
  path.add(["a", "b", "c"], [b""] * 3, EXPECTED, LABELS)
  return path


def test_what_is_within_the_bound_agrees():
  path = add(0.01, [[0.9, 0.1], [0.595, 0.405], [0.2, 0.8]])
  assert (path.images, path.beyond, path.other_labels, path.first) == (3, 0, 0, "")
  assert path.largest == pytest.approx(0.005, abs=1e-6)


def test_the_first_beyond_the_bound_is_kept():
  path = add(0.01, [[0.9, 0.1], [0.45, 0.55], [0.1, 0.9]], [[0.0, 1.0]])
  assert (path.images, path.beyond, path.other_labels) == (3, 2, 1)
  first = "b: exported model 'ant' 60.0000%, other 'bee' 55.0000%; their scores of 'ant' differ by 0.150000"
  assert path.first == first
  path.add(["d"], [b""], EXPECTED[:1], LABELS)
  assert (path.images, path.beyond, path.first) == (4, 3, first)
  assert path.largest == pytest.approx(0.9)


def test_the_label_that_differs_most_is_named():
  path = path_of(0.01, [[0.52, 0.0, 0.48]])
  path.add(["a"], [b""], np.array([[0.5, 0.3, 0.2]]), ["ant", "bee", "cow"])
  assert "their scores of 'bee' differ by 0.300000" in path.first


def test_scores_that_are_not_finite_disagree():
  path = add(0.5, [[0.9, 0.1], [np.nan, 0.4], [0.2, 0.8]])
  assert (path.beyond, path.largest, path.first[:3]) == (1, np.inf, "b: ")


def test_without_a_bound_labels_count():
  path = add(None, [[0.51, 0.49], [0.6, 0.4], [0.7, 0.3]])
  assert (path.beyond, path.other_labels, path.first[:3]) == (0, 1, "c: ")


def test_scores_of_another_model():
  with pytest.raises(
    InputError, match="other belongs to another model: it gives 3 scores per image, but there are 2 labels"
  ):
    add(0.1, [[0.1, 0.2, 0.7]] * 3)
