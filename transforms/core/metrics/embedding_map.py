"""A map of the images: sampled bottlenecks, projected on a plane."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import heapq
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from beam_retrain.transforms.core.metrics.label_stats import Outcome
from beam_retrain.transforms.core.records.csv_format import escape_cell

MAX_POINTS = 2_000
MAX_WRONG_POINTS = 500
_FLOAT16 = (-65_504, 65_504)
_ITERATIONS = 12
_COMPONENTS = 8


@dataclasses.dataclass(frozen=True)
class MapPoint:
  """An image on the map.

  `x` and `y` are 0..1, the names spelled as in the CSV files.
  """

  x: float
  y: float
  key: str
  actual: str
  predicted: str


@dataclasses.dataclass(frozen=True)
class EmbeddingMap:
  """Points; `share` of the variance that their plane holds, 0..1."""

  points: Sequence[MapPoint] = ()
  share: float = 0.0


class SampledVector(NamedTuple):
  """A sampled image.

  Those of the highest `priority` are kept; `vector` is float16 [D] in base64.
  """

  priority: float
  key: str
  actual: str
  predicted: str
  vector: str

  @property
  def right(self) -> bool:
    return self.actual == self.predicted


class VectorSample:
  """Draws some of a shard's images.

  Right ones are drawn by digest, wrong ones by confidence. What is drawn of a data set depends on its shards alone.

  Args:
    shards: number of shards, which share `MAX_POINTS`.
  """

  def __init__(self, shards: int):
    self._room = {True: -(-(MAX_POINTS - MAX_WRONG_POINTS) // shards), False: -(-MAX_WRONG_POINTS // shards)}
    self._kept: dict[bool, list[tuple[float, str, Outcome, np.ndarray]]] = {True: [], False: []}

  def add(self, key: str, sha256: str, outcome: Outcome, vector: np.ndarray) -> None:
    is_right = outcome.actual == outcome.predicted
    digest = sha256 or hashlib.sha256(key.encode()).hexdigest()
    priority = -int(digest[:12], 16) if is_right else outcome.confidence or 0.0
    kept = self._kept[is_right]
    if len(kept) < self._room[is_right]:
      heapq.heappush(kept, (priority, key, outcome, _small(vector)))
    elif (priority, key) > kept[0][:2]:
      heapq.heapreplace(kept, (priority, key, outcome, _small(vector)))

  def to_json(self) -> list[SampledVector]:
    drawn = []
    for kept in self._kept.values():
      for priority, key, outcome, vector in sorted(kept, key=lambda entry: entry[:2]):
        actual, predicted = escape_cell(outcome.actual), escape_cell(outcome.predicted)
        encoded = base64.b64encode(vector.tobytes()).decode()
        drawn.append(SampledVector(priority, escape_cell(key), actual, predicted, encoded))
    return drawn


def _small(vector: np.ndarray) -> np.ndarray:
  return np.clip(vector, *_FLOAT16).astype(np.float16)


def project(sampled: Iterable[SampledVector]) -> EmbeddingMap:
  """Projects vectors of length one on their first two principal components.

  By subspace iteration: N. Halko, P. G. Martinsson, J. A. Tropp, "Finding structure with randomness", SIAM Review 53
  (2011). Returns no points for fewer than three images, or vectors of one number.
  """
  ordered = sorted(sampled, key=lambda one: (one.right, -one.priority, one.key))
  wrong = [one for one in ordered if not one.right][:MAX_WRONG_POINTS]
  chosen = [*wrong, *(one for one in ordered if one.right)][:MAX_POINTS]
  raw = [np.frombuffer(base64.b64decode(one.vector), np.float16) for one in chosen]
  if len(raw) < 3 or len(raw[0]) < 2:
    return EmbeddingMap()
  vectors = np.nan_to_num(np.stack(raw).astype(np.float64))
  vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
  vectors -= vectors.mean(axis=0)
  basis = np.random.default_rng(0).standard_normal((vectors.shape[1], min(_COMPONENTS, *vectors.shape)))
  for _ in range(_ITERATIONS):
    basis, _ = np.linalg.qr(vectors.T @ (vectors @ basis))
  rotation = np.linalg.svd(vectors @ basis, full_matrices=False)[2][:2].T
  places = vectors @ basis @ rotation
  share = float(np.square(places).sum() / max(np.square(vectors).sum(), 1e-12))
  places *= np.sign(places[np.abs(places).argmax(axis=0), range(2)])  # whichever way the iteration turned
  low, high = places.min(axis=0), places.max(axis=0)
  scaled = (places - low) / np.maximum(high - low, 1e-12)
  points = zip(scaled.round(4).tolist(), chosen, strict=True)
  return EmbeddingMap([MapPoint(x, y, one.key, one.actual, one.predicted) for (x, y), one in points], round(share, 4))
