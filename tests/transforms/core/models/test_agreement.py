"""What counts as the same model: bounds, ties, values that are not finite."""

from __future__ import annotations

import numpy as np
import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.agreement import BOUNDS, Agreement, Sampled, generated_images, measure
from beam_retrain.transforms.core.models.head import Head
from beam_retrain.transforms.core.models.inference import LoadedModel

_HEAD = Head(np.ones(2, np.float32), np.zeros(2, np.float32), np.eye(2, dtype=np.float32), np.zeros(2, np.float32))


@pytest.mark.parametrize(
  ("agreement", "precision", "is_within"),
  [
    (Agreement(64, 1.0, 64), "float32", True),
    (Agreement(64, 1.0, 63), "float32", False),
    (Agreement(64, 0.9998), "float32", False),
    (Agreement(64, 0.981, 60), "bfloat16", True),
    (Agreement(64, 0.981, 59), "bfloat16", False),
    (Agreement(64, 0.979, 64), "bfloat16", False),
    (Agreement(5, 0.981, 4), "bfloat16", True),  # one of few images
    (Agreement(5, 0.981, 3), "bfloat16", False),
    (Agreement(64, 0.27, 39), "int8", False),
  ],
)
def test_an_agreement_is_within_its_bound_or_says_what_is_beyond(agreement, precision, is_within):
  fault = agreement.fault(precision)
  assert (fault == "") == is_within
  if fault:
    assert f"smallest cosine with float32 is {agreement.least_cosine:.6f}" in fault
    assert f"{precision} needs a cosine of {BOUNDS[precision].least_cosine:g}" in fault


def test_predictions_are_compared_with_the_answers_of_the_exported_model():
  sampled = Sampled(Agreement(3, 1.0, 3), {"a": [0], "b": [0, 1], "c": []})
  labels = ["ant", "bee"]
  assert sampled.compare(labels, [("a", "ant"), ("b", "bee"), ("x", "bee")]) == Agreement(2, 1.0, 2)  # c is gone
  assert sampled.compare(labels, [("x", "bee")]) == sampled.agreement
  assert sampled.compare(labels, [("a", "bee"), ("b", "bee"), ("c", "ant")]).same_answers == 1


def model(vector: list[float], *, with_scores: bool = True) -> LoadedModel:
  """A model that gives every image the same."""

  def infer(pixels):
    vectors = np.tile(np.float32(vector), (len(pixels), 1))
    return {"bottleneck": vectors, **({"scores": _HEAD.score(vectors)} if with_scores else {})}

  return LoadedModel(lambda encoded: np.zeros((len(encoded), 1, 1, 3), np.float32), infer)


def test_a_model_without_finite_values_agrees_with_nothing():
  images = generated_images(3)
  assert measure(lambda: model([3, 4]), lambda: model([3, 4]), images, _HEAD).agreement == Agreement(3, 1.0, 3)
  broken = model([1, float("nan")])
  for ours, exact in ((model([1, 2]), broken), (broken, model([1, 2]))):
    measured = measure(lambda ours=ours: ours, lambda exact=exact: exact, images, _HEAD)
    assert measured.agreement == Agreement(3, -1.0, 0)
  assert measure(lambda: model([1, 2]), lambda: model([1, 2]), [], _HEAD) is None


def test_a_tie_is_no_other_answer():
  images = generated_images(3)
  assert measure(lambda: model([1, 1.001]), lambda: model([1.001, 1]), images, _HEAD).agreement.same_answers == 3
  assert measure(lambda: model([1, 2]), lambda: model([2, 1]), images, _HEAD).agreement.same_answers == 0


def test_a_graph_that_fails_when_it_runs_is_a_sentence():
  def infer(pixels):
    raise RuntimeError("no such operation\nat length")

  broken = LoadedModel(lambda encoded: np.zeros((len(encoded), 1, 1, 3), np.float32), infer)
  with pytest.raises(InputError, match=r"cannot be run \(no such operation\): run `beam-retrain"):
    measure(lambda: broken, lambda: broken, generated_images(3), None)
