"""What is counted of two paths' scores, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.verify.agreement import Answer, Tally

LABELS = ["ant", "bee"]
EXPECTED = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]], np.float32)


def add(bound: float | None, found: list[list[float]]) -> Tally:
  tally = Tally("other", bound)
  tally.add(["a", "b", "c"], EXPECTED, np.array(found, np.float32), LABELS)
  return tally


def test_what_is_within_the_bound_agrees():
  tally = add(0.01, [[0.9, 0.1], [0.595, 0.405], [0.2, 0.8]])
  assert (tally.images, tally.beyond, tally.other_labels, tally.first) == (3, 0, 0, None)
  assert tally.largest == pytest.approx(0.005, abs=1e-6)


def test_the_first_beyond_the_bound_is_kept():
  tally = add(0.01, [[0.9, 0.1], [0.45, 0.55], [0.1, 0.9]])
  assert (tally.images, tally.beyond, tally.other_labels) == (3, 2, 1)
  found = tally.first
  assert found is not None
  assert (found.key, found.expected.label, found.found.label) == ("b", "ant", "bee")
  assert (found.expected.score, found.found.score, found.difference) == pytest.approx((0.6, 0.55, 0.15))
  tally.add(["d"], EXPECTED[:1], np.array([[0.0, 1.0]], np.float32), LABELS)
  assert (tally.images, tally.beyond, tally.first) == (4, 3, found)
  assert tally.largest == pytest.approx(0.9)


def test_the_label_that_differs_most_is_named():
  tally = Tally("other", 0.01)
  tally.add(["a"], np.array([[0.5, 0.3, 0.2]]), np.array([[0.52, 0.0, 0.48]]), ["ant", "bee", "cow"])
  assert tally.first.label == "bee"


def test_scores_that_are_not_finite_disagree():
  tally = add(0.5, [[0.9, 0.1], [np.nan, 0.4], [0.2, 0.8]])
  assert (tally.beyond, tally.largest, tally.first.key) == (1, np.inf, "b")


def test_without_a_bound_labels_count():
  tally = add(None, [[0.51, 0.49], [0.6, 0.4], [0.7, 0.3]])
  assert (tally.beyond, tally.other_labels, tally.first.key) == (0, 1, "c")


def test_scores_of_another_model():
  with pytest.raises(
    InputError, match="other belongs to another model: it gives 3 scores per image, but there are 2 labels"
  ):
    add(0.1, [[0.1, 0.2, 0.7]] * 3)


def test_an_answer_in_words():
  assert str(Answer("bee", 0.123456)) == "'bee' 12.3456%"
