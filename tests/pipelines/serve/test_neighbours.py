import numpy as np
import pytest

from beam_retrain.pipelines.serve.neighbours import Neighbours
from beam_retrain.transforms.bottlenecks.store import read_shards
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.output_folder import read_info


@pytest.fixture(scope="module")
def opened(made):
  folder = str(made.bottlenecks)
  info = read_info(folder, "bottlenecks")
  stored = [one for shard in read_shards(folder, SplitPercentages.from_settings(info.settings)) for one in shard]
  return Neighbours(folder, info), stored


def cosines(vector: np.ndarray, others: np.ndarray) -> np.ndarray:
  vector, others = vector.astype(np.float64), others.astype(np.float64)
  return others @ vector / np.linalg.norm(vector) / np.linalg.norm(others, axis=1)


def test_the_nearest_are_those_of_all_cosines_and_of_training_alone(opened):
  neighbours, stored = opened
  training = [one for split, one in stored if split != "testing"]
  vectors = np.stack([one.vector for one in training])
  for vector in (np.ones(64, np.float32), training[7].vector, 1e-8 * training[3].vector):
    found = neighbours.nearest(vector, 5)
    expected = cosines(vector, vectors)
    assert [near.cosine for near in found] == pytest.approx(np.sort(expected)[::-1][:5].tolist(), abs=1e-5)
    keys = {one.key for one, cosine in zip(training, expected, strict=True) if cosine >= np.sort(expected)[-5] - 1e-5}
    assert {near.image.key for near in found} <= keys
  assert neighbours.nearest(training[7].vector, 1)[0].image.key == training[7].key


def test_the_closest_pairs_are_a_testing_and_a_training_image(opened):
  neighbours, stored = opened
  split_of = {one.key: split for split, one in stored}
  pairs = neighbours.closest_pairs(20)
  assert len(pairs) == 20
  assert all(split_of[image.key] == "testing" and split_of[near.image.key] != "testing" for image, near in pairs)
  assert [near.cosine for _, near in pairs] == sorted((near.cosine for _, near in pairs), reverse=True)
  vectors = np.stack([one.vector for split, one in stored if split != "testing"])
  best = max(cosines(one.vector, vectors).max() for split, one in stored if split == "testing")
  assert pairs[0][1].cosine == pytest.approx(best, abs=1e-5)


def test_a_vector_of_zeros_is_near_to_nobody(opened):
  assert {near.cosine for near in opened[0].nearest(np.zeros(64, np.float32), 3)} == {0.0}
