"""Scores images with an exported model, or bottlenecks with heads."""

from __future__ import annotations

import abc
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from apache_beam.utils.shared import Shared

from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.exif import is_oriented
from beam_retrain.transforms.core.metrics.predictions import Scored
from beam_retrain.transforms.core.models.head import Head, decode_head
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import Bottleneck, decode_bottleneck
from beam_retrain.transforms.core.records.shards import ORIENTED, Input, Shard, ShardReport
from beam_retrain.transforms.core.records.tfrecord import read_records
from beam_retrain.transforms.core.runtimes.trunk_info import BOTTLENECKS_BATCH_SIZE
from beam_retrain.transforms.core.system.prefetch import batched
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.transfer import download
from beam_retrain.transforms.shards.work import read_report_of
from beam_retrain.transforms.sources.records import RecordsFile


class Scorer(abc.ABC):
  """Scores the images of a shard; pickled to the workers.

  `oriented` is the number of images of the last shard that have an EXIF orientation.
  """

  oriented = 0

  @abc.abstractmethod
  def setup(self) -> None:
    """Loads the model; called once per DoFn instance."""

  def kind(self) -> str:
    """Returns what decides the scores' bits here, or ""."""
    return ""

  @abc.abstractmethod
  def score(self, shard: Shard) -> Iterator[tuple[Scored, ...] | Quarantined]:
    """Yields each image's scores, one per model, in the shard's order."""


class ScoreImages(Scorer):
  """Runs an exported model over images."""

  def __init__(self, handler: ImageModelHandler, labels: Sequence[str]):
    self._handler = handler
    self._labels = list(labels)

  def setup(self) -> None:
    self._handler.load_once()

  def kind(self) -> str:
    return self._handler.kind()

  def score(self, shard: Shard) -> Iterator[tuple[Scored, ...] | Quarantined]:
    self.oriented = 0
    for item in self._handler.infer(shard.read_images(self._labels), self._handler.load_once()):
      if isinstance(item, Quarantined):
        yield item
      else:
        self.oriented += is_oriented(item.image.encoded)
        outputs = item.outputs
        yield (
          Scored(item.image.key, item.image.label, item.image.sha256, outputs["scores"], outputs.get("bottleneck")),
        )


class ScoreBottlenecks(Scorer):
  """Runs a model's head over stored bottlenecks.

  `head` is the path of its `head.npz`, which needs no TensorFlow; older models without one (None) are loaded.
  """

  def __init__(
    self, saved_model: str, labels: Sequence[str], *, head: str | None, batch_size: int = BOTTLENECKS_BATCH_SIZE
  ):
    self._saved_model = saved_model
    self._labels = frozenset(labels)
    self._head = head
    self._batch_size = batch_size
    self._shared = Shared()

  def setup(self) -> None:
    self._load_once()

  def _load_once(self) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the head: float32 [n, D] -> float32 [n, C], 0..1."""
    score: Callable[[np.ndarray], np.ndarray] = self._shared.acquire(self._load, tag=self._head or self._saved_model)
    return score

  def _load(self) -> Callable[[np.ndarray], np.ndarray]:
    if self._head:
      return decode_head(files.read_bytes(self._head), self._head).score
    from beam_retrain.transforms.core.models.saved_model import load_saved_model  # loads TensorFlow: on workers only

    exported = load_saved_model(download(self._saved_model))
    return lambda vectors: exported.score_bottlenecks(vectors)["scores"].numpy()

  def score(self, shard: Shard) -> Iterator[tuple[Scored, ...] | Quarantined]:
    head = self._load_once()
    records = itertools.chain.from_iterable(map(_read_bottlenecks, shard.inputs))
    for batch in batched(records, self._batch_size):
      scores = head(np.stack([bottleneck.vector for bottleneck in batch]))
      for bottleneck, row in zip(batch, scores, strict=True):
        yield _scored(bottleneck, [(row, self._labels)])


def _scored(
  bottleneck: Bottleneck, scores: Iterable[tuple[np.ndarray, Collection[str]]]
) -> tuple[Scored, ...] | Quarantined:
  """Checks the scores of all models, each with its labels."""
  key, label, size = bottleneck.key, bottleneck.label, bottleneck.vector.nbytes
  rows = []
  for row, labels in scores:
    if label not in labels:
      return Quarantined(key, size, Reason.BAD_LABEL, f"label {label!r} is not one of the {len(labels)} labels")
    if not np.isfinite(row).all():
      return Quarantined(key, size, Reason.MODEL_ERROR, "the model gave values that are not finite")
    rows.append(Scored(key, label, bottleneck.sha256, row, bottleneck.vector))
  return tuple(rows)


def _read_bottlenecks(records_file: Input) -> Iterator[Bottleneck]:
  assert isinstance(records_file, RecordsFile)  # planned by `RecordsSource`
  with files.open_to_read(records_file.path) as file:
    for record in read_records(file, records_file.path):
      try:
        yield decode_bottleneck(record)
      except KeyError as error:
        raise InputError(
          f"{records_file.path} holds a record without {error}: give the folder that `beam-retrain bottlenecks` wrote."
        ) from error


class HeadOf(NamedTuple):
  """A `head.npz`; `records`: index of its bottlenecks among a shard's inputs."""

  path: str
  records: int
  labels: tuple[str, ...]


class ScoreWithHeads(Scorer):
  """Runs several heads over stored bottlenecks read once, without TensorFlow.

  A shard's inputs are record files of `WorkShards` with reports, one per trunk.
  """

  def __init__(self, heads: Sequence[HeadOf]):
    self._heads = list(heads)
    self._loaded: list[Head] = []

  def setup(self) -> None:
    self._loaded = [decode_head(files.read_bytes(head.path), head.path) for head in self._heads]

  def score(self, shard: Shard) -> Iterator[tuple[Scored, ...] | Quarantined]:
    reports = [_report_of(records) for records in shard.inputs]
    self.oriented = reports[0].extra.get(ORIENTED, 0)
    bad = {entry.key: entry for report in reversed(reports) for entry in report.quarantined}
    yield from bad.values()
    tables = [
      {bottleneck.key: bottleneck for bottleneck in _read_bottlenecks(records) if bottleneck.key not in bad}
      for records in shard.inputs
    ]
    if not tables[0]:
      return
    scores = [
      loaded.score(np.stack([bottleneck.vector for bottleneck in tables[head.records].values()]))
      for head, loaded in zip(self._heads, self._loaded, strict=True)
    ]
    places = [{key: place for place, key in enumerate(table)} for table in tables]
    for key, bottleneck in tables[0].items():
      rows = (matrix[places[head.records][key]] for matrix, head in zip(scores, self._heads, strict=True))
      yield _scored(bottleneck, zip(rows, (head.labels for head in self._heads), strict=True))


def _report_of(records: Input) -> ShardReport:
  assert isinstance(records, RecordsFile)
  return read_report_of(records.path)
