"""The map of the images: what is drawn, and where it lies."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from beam_retrain.transforms.core.metrics.embedding_map import (
  MAX_POINTS,
  MAX_WRONG_POINTS,
  EmbeddingMap,
  SampledVector,
  VectorSample,
  project,
)
from beam_retrain.transforms.core.metrics.label_stats import Outcome


def _sampled(vectors: np.ndarray, shards: int = 1, wrong: int = 0) -> list[SampledVector]:
  """Returns what is drawn of images in so many shards, the first `wrong` of them mistakes."""
  drawn = []
  for shard in range(shards):
    sample = VectorSample(shards)
    for number in range(shard, len(vectors), shards):
      outcome = Outcome("=a", "b" if number < wrong else "=a", 0.5 + number / 1e5)
      sample.add(f"{number}.png", hashlib.sha256(b"%d" % number).hexdigest(), outcome, vectors[number])
    drawn += [SampledVector(*one) for one in sample.to_json()]
  return drawn


def test_the_places_are_those_of_a_full_decomposition() -> None:
  rng = np.random.default_rng(1)
  vectors = (rng.normal(size=(300, 3)) * [5, 3, 0.5]) @ rng.normal(size=(3, 40)) + 2
  drawn = _sampled(vectors)
  found = project(drawn)
  order = [int(point.key.split(".")[0]) for point in found.points]
  unit = vectors[order] / np.linalg.norm(vectors[order], axis=1, keepdims=True)
  left, sizes, _ = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
  for place, axis in ((np.array([point.x for point in found.points]), 0), (np.array([p.y for p in found.points]), 1)):
    assert abs(np.corrcoef(place, left[:, axis])[0, 1]) == pytest.approx(1, abs=1e-4)
    assert (place.min(), place.max()) == (0, 1)
  assert found.share == pytest.approx((sizes[:2] ** 2).sum() / (sizes**2).sum(), abs=1e-3)
  assert {(point.actual, point.predicted) for point in found.points} == {("'=a", "'=a")}


@pytest.mark.parametrize("shards", [1, 7, 3_000])
def test_of_many_images_a_bounded_number_is_drawn_by_digest(shards: int) -> None:
  vectors = np.random.default_rng(2).normal(size=(6_000, 4))
  drawn = _sampled(vectors, shards, wrong=800)
  found = project(drawn)
  wrong = [point for point in found.points if point.actual != point.predicted]
  assert (len(found.points), len(wrong)) == (MAX_POINTS, MAX_WRONG_POINTS)
  assert found == project(reversed(drawn)), "whatever the order of the shards"
  if shards == 1:
    digests = {f"{number}.png": hashlib.sha256(b"%d" % number).hexdigest() for number in range(800, 6_000)}
    first = set(sorted(digests, key=lambda key: digests[key])[: MAX_POINTS - MAX_WRONG_POINTS])
    assert {point.key for point in found.points} - {point.key for point in wrong} == first
    assert {point.key for point in wrong} == {f"{number}.png" for number in range(300, 800)}, "the surest"


@pytest.mark.parametrize("vectors", [np.ones((2, 9)), np.ones((9, 1)), np.ones((0, 9))])
def test_too_little_for_a_map(vectors: np.ndarray) -> None:
  assert project(_sampled(vectors)) == EmbeddingMap()


@pytest.mark.parametrize("value", [0.0, 1.0, 1e9, np.inf, np.nan])
def test_vectors_without_a_direction_have_a_place(value: float) -> None:
  vectors = np.random.default_rng(3).normal(size=(9, 4))
  vectors[3] = value
  points = project(_sampled(vectors)).points
  assert len(points) == 9
  assert all(0 <= place <= 1 for point in points for place in (point.x, point.y))
