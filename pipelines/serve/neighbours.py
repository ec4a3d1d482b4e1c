"""The training images whose bottlenecks are nearest to one's own."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from beam_retrain.transforms.bottlenecks.store import read_shards
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import TESTING
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.run_info import RunInfo
from beam_retrain.transforms.core.run.stats import read_stats
from beam_retrain.transforms.io import files

MAX_PAIRED = 2_000  # testing images that are compared with all training images
_ROWS = 256


class Stored(NamedTuple):
  key: str
  label: str
  sha256: str


class Near(NamedTuple):
  """A training image, and the cosine of its bottleneck to another, -1..1."""

  image: Stored
  cosine: float


class Neighbours:
  """Bottlenecks of a folder's training images, of length 1.

  Attributes:
    images: N training images, validation images among them.
    testing: at most `MAX_PAIRED` testing images, with their bottlenecks.

  Raises:
    InputError: the folder has no training images.
  """

  def __init__(self, folder: str, info: RunInfo):
    counts = read_stats(folder, files).splits
    dimensions = info.trunk.dimensions
    self._vectors = np.empty((sum(each.outputs for each in counts.values()), dimensions), np.float32)
    self.images: list[Stored] = []
    self.testing: list[tuple[Stored, np.ndarray]] = []
    for shard in read_shards(folder, SplitPercentages.from_settings(info.settings)):
      for split, one in shard:
        image = Stored(one.key, one.label, one.sha256)
        if split != TESTING:
          self._vectors[len(self.images)] = one.vector
          self.images.append(image)
        elif len(self.testing) < MAX_PAIRED:
          self.testing.append((image, one.vector))
    if not self.images:
      raise InputError(f"{folder} has no training images: give bottlenecks that a model can be trained on.")
    self._vectors = self._vectors[: len(self.images)]
    self._vectors /= _lengths(self._vectors)

  def nearest(self, vector: np.ndarray, count: int) -> list[Near]:
    """Returns up to `count` training images, the nearest first.

    `vector` is float32 [D].
    """
    cosines = self._vectors @ (vector / _lengths(vector[None])[0])
    count = min(count, len(cosines))
    best = np.argpartition(-cosines, count - 1)[:count]
    best = best[np.argsort(-cosines[best], kind="stable")]
    return [Near(self.images[at], float(cosines[at])) for at in best.tolist()]

  def closest_pairs(self, count: int) -> list[tuple[Stored, Near]]:
    """Returns the testing images that are most like a training image."""
    pairs: list[tuple[Stored, Near]] = []
    for start in range(0, len(self.testing), _ROWS):
      rows = self.testing[start : start + _ROWS]
      vectors = np.stack([vector for _, vector in rows])
      cosines = (vectors / _lengths(vectors)) @ self._vectors.T
      nearest = cosines.argmax(axis=1)
      pairs += [
        (image, Near(self.images[at], float(cosines[row, at])))
        for row, ((image, _), at) in enumerate(zip(rows, nearest.tolist(), strict=True))
      ]
    return sorted(pairs, key=lambda pair: -pair[1].cosine)[:count]


def _lengths(vectors: np.ndarray) -> np.ndarray:
  """Returns float32 [N, 1], above 0."""
  squares = np.einsum("nd,nd->n", vectors, vectors)
  return np.maximum(np.sqrt(squares), np.finfo(np.float32).tiny)[:, None]
