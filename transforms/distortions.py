"""Distorted variants of the training pictures through the trunk: stored beside the records, one file per shard.

The spine once more, over the training shards of the same plan: what the records hold is not touched, so that whatever
reads them, reuse, evaluation or the transform graph, never sees a distorted picture. Only `train` asks for these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics

from transforms.core.distortions import Distortions, distort, draw_variant, variant_key
from transforms.core.inference import Inferred, LoadedModel, Outputs, infer_images
from transforms.core.quarantine import Quarantined
from transforms.core.schema import TRAINING, Bottleneck, Image, encode_bottleneck
from transforms.core.shards import Shard
from transforms.core.splits import SplitPercentages
from transforms.core.tfrecord import frame
from transforms.model_handler import ImageModelHandler
from transforms.shard_work import METRICS_NAMESPACE, ShardTask, WorkShards, Written
from transforms.sources import read_images


class EmbedDistorted(beam.PTransform):
  """PCollection[Shard] -> PCollection[ShardReport]: of the training shards' pictures, but for those for validation.

  A report's inputs and outputs are pictures: each has all its variants in the file, or is quarantined.

  Attributes:
    handler: the trunk.
    labels: class index -> label.
    percentages: which pictures of the training shards are for validation.
    distortions: what to do to the others.
    output: folder of the files.
    request: digest of the settings, the distortions among them.
    checked: as of `WorkShards`.
    earlier: folders of earlier runs, whose files are taken where they are of the same shard and request.
  """

  def __init__(
    self,
    *,
    handler: ImageModelHandler,
    labels: Sequence[str],
    percentages: SplitPercentages,
    distortions: Distortions,
    output: str,
    request: str,
    checked: beam.PCollection,
    earlier: Sequence[str] = (),
  ):
    super().__init__()
    task = DistortShard(handler, labels, percentages, distortions)
    self._work = WorkShards(task, output=output, request=request, checked=checked, earlier=earlier)

  def expand(self, shards: beam.PCollection) -> beam.PCollection:
    return (
      shards
      | "TrainingShards" >> beam.Filter(lambda shard: shard.split == TRAINING)
      # Shard
      | "EmbedVariants" >> self._work
    )  # ShardReport


class DistortShard(ShardTask):
  """Writes the bottleneck records of the variants of a shard's pictures, those of a picture one after the other.

  Attributes: as of `EmbedDistorted`.
  """

  def __init__(
    self,
    handler: ImageModelHandler,
    labels: Sequence[str],
    percentages: SplitPercentages,
    distortions: Distortions,
  ):
    self._handler = handler
    self._labels = list(labels)
    self._class_indices = {label: index for index, label in enumerate(labels)}
    self._percentages = percentages
    self._distortions = distortions
    self._model: LoadedModel | None = None
    self._counter = Metrics.counter(METRICS_NAMESPACE, "variants_computed")

  def work(self, shard: Shard) -> Iterator[Written | Quarantined]:
    pictures = (
      picture
      for picture in read_images(shard, self._labels)
      if self._percentages.split_of(picture.key, shard.split) == TRAINING
    )
    # So many pictures that their variants are one batch of the trunk.
    batch_size = max(1, self._handler.batch_size // self._distortions.copies)
    for item in infer_images(pictures, self._load, batch_size=batch_size, max_pixels=self._handler.max_pixels):
      match item:
        case Quarantined():
          yield item.in_split(shard.split)
        case Inferred(image, outputs):
          self._counter.inc(self._distortions.copies)
          yield Written(image.label, b"".join(self._records(image, outputs["bottleneck"])))

  def _records(self, image: Image, vectors: np.ndarray) -> Iterator[bytes]:
    for copy, vector in enumerate(vectors, start=1):
      record = Bottleneck(
        key=variant_key(image.key, copy),
        label=image.label,
        class_index=self._class_indices[image.label],
        vector=vector,
        format=image.format,
        height=image.height,
        width=image.width,
        sha256=image.sha256,
      )
      yield frame(encode_bottleneck(record))

  def _load(self) -> LoadedModel:
    if self._model is None:
      self._model = _distorting(self._handler.load_once(), self._distortions)
    return self._model


@dataclasses.dataclass(frozen=True)
class _DistortingModel(LoadedModel):
  """A trunk that takes a picture and gives [K, D]: a picture and its variants come and go together."""

  make_variants: Callable[[Sequence[Image]], Any] = lambda images: None

  def decode(self, images: Sequence[Image]) -> Any:
    return self.make_variants(images)


def _distorting(trunk: LoadedModel, distortions: Distortions) -> LoadedModel:
  import tensorflow as tf

  copies, input_px = distortions.copies, trunk.input_px
  graph = tf.function(
    lambda encoded, placed, brightness: distort(encoded, placed, brightness, input_px),
    input_signature=[
      tf.TensorSpec([None], tf.string),
      tf.TensorSpec([None, copies, 4], tf.int32),
      tf.TensorSpec([None, copies], tf.float32),
    ],
  )

  def make_variants(images: Sequence[Image]) -> Any:
    drawn = [
      [draw_variant(image.key, copy, distortions, input_px) for copy in range(1, copies + 1)] for image in images
    ]
    placed = [[variant[:4] for variant in variants] for variants in drawn]
    brightness = [[variant.brightness for variant in variants] for variants in drawn]
    return graph(
      tf.constant([image.encoded for image in images], tf.string),
      tf.constant(np.array(placed, np.int32)),
      tf.constant(np.array(brightness, np.float32)),
    )

  def infer(variants: Any) -> Outputs:
    pictures = variants.shape[0]
    flat = trunk.infer(tf.reshape(variants, [-1, input_px, input_px, 3]))
    return {name: values.reshape(pictures, copies, *values.shape[1:]) for name, values in flat.items()}

  return _DistortingModel(trunk.preprocess, infer, input_px, make_variants)
