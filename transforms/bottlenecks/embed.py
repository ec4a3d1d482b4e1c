"""Runs images through the trunk, one shard at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from apache_beam.metrics import Metrics

from beam_retrain.transforms.bottlenecks.model_handler import BATCH_METRIC, ImageModelHandler, Inferred, LoadedModel
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import Bottleneck, Image, encode_bottleneck
from beam_retrain.transforms.core.records.shards import BOTTLENECKS, Shard
from beam_retrain.transforms.core.records.tfrecord import frame
from beam_retrain.transforms.shards.progress import METRICS_NAMESPACE, TRUNK_IMAGES, count_here
from beam_retrain.transforms.shards.work import ShardTask, Written


class EmbedShard(ShardTask):
  """Writes the bottleneck records of a shard's images.

  Loads the trunk at the first image that can be decoded.
  """

  def __init__(self, handler: ImageModelHandler, labels: Sequence[str]):
    self._handler = handler
    self._labels = list(labels)
    self._class_indices = {label: index for index, label in enumerate(labels)}
    self._model: LoadedModel | None = None
    self._computed = 0
    self._counter = Metrics.counter(METRICS_NAMESPACE, "bottlenecks_computed")
    self._batch = Metrics.distribution(METRICS_NAMESPACE, BATCH_METRIC)

  def work(self, shard: Shard) -> Iterator[Written | Quarantined]:
    self._computed = 0
    for item in self._handler.infer(self._read(shard), self._load):
      match item:
        case Quarantined():
          yield item.in_split(shard.split)
        case Inferred(image, outputs):
          self._computed += 1
          record = framed_bottleneck(image, self._class_indices[image.label], outputs["bottleneck"])
          yield Written(image.label, record)
    self._handler.count_loads()
    if self._computed:
      self._counter.inc(self._computed)
      count_here(TRUNK_IMAGES, self._computed)
    if self._model is not None and self._model.largest_batch is not None:
      self._batch.update(self._model.largest_batch())

  def extra(self) -> Mapping[str, Any]:
    return {BOTTLENECKS: {"computed": self._computed, "reused": 0}}

  def _read(self, shard: Shard) -> Iterator[Image | Quarantined]:
    return shard.read_images(self._labels)

  def _load(self) -> LoadedModel:
    if self._model is None:
      # The shared copy is dropped when another model is loaded.
      self._model = self._handler.load_once()
    return self._model


def framed_bottleneck(image: Image, class_index: int, vector: np.ndarray) -> bytes:
  """Returns a bottleneck record, framed for TFRecord; `vector`: float32[D]."""
  record = Bottleneck(
    key=image.key,
    label=image.label,
    class_index=class_index,
    vector=vector,
    format=image.format,
    height=image.height,
    width=image.width,
    sha256=image.sha256,
  )
  return frame(encode_bottleneck(record))
