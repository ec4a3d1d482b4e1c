"""Distorted variants of the training images through the trunk: stored beside the records, one file per shard.

The spine once more, over the training shards of the same plan: what the records hold is not touched, so that whatever
reads them, reuse, evaluation or the transform graph, never sees a distorted image. Only `train` asks for these.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics

from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.core.images.augment import DISTORTED, Distortions, count_distorted, variant_key
from beam_retrain.transforms.core.models.inference import Inferred, LoadedModel, Outputs, infer_images
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import TRAINING, Bottleneck, Image, encode_bottleneck
from beam_retrain.transforms.core.records.shards import Shard, ShardReport
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.records.tfrecord import frame
from beam_retrain.transforms.shards.ledger import delete_strays
from beam_retrain.transforms.shards.work import METRICS_NAMESPACE, ShardTask, WorkShards, Written


class EmbedDistorted(beam.PTransform):
  """PCollection[Shard] -> PCollection[ShardReport]: of the training shards' images, but for those for validation.

  A report's inputs and outputs are images: each has all its variants in the file, or is quarantined.

  Attributes:
    handler: the trunk.
    labels: class index -> label.
    percentages: which images of the training shards are for validation.
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


class CloseDistorted(beam.PTransform):
  """(PCollection[ShardReport] of the images, PCollection[ShardReport] of their variants) -> PCollection of one dict.

  The dict is `Stats.distorted`. Checks the ledger of the variants, and removes files of earlier runs.

  Attributes:
    folder: of the variants' files.
    distortions: what was done.
  """

  def __init__(self, *, folder: str, distortions: Distortions):
    super().__init__()
    self._folder = folder
    self._distortions = distortions

  def expand(self, inputs: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
    reports, of_variants = inputs
    return (
      of_variants
      | "CollectReports" >> beam.combiners.ToList()
      # list of ShardReport
      | "Close" >> beam.Map(_close, self._folder, self._distortions, beam.pvalue.AsList(reports))
    )  # dict


def _close(
  of_variants: list[ShardReport], folder: str, distortions: Distortions, reports: list[ShardReport]
) -> dict[str, int]:
  counts = count_distorted(distortions, reports, of_variants)
  delete_strays(folder, {report.file for report in of_variants})
  return counts


class DistortShard(ShardTask):
  """Writes the bottleneck records of the variants of a shard's images, those of a image one after the other.

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
    self._counts: Counter[str] = Counter()
    self._counter = Metrics.counter(METRICS_NAMESPACE, "variants_computed")

  @property
  def counts_images(self) -> bool:
    return False  # but variants, and of some images none

  def work(self, shard: Shard) -> Iterator[Written | Quarantined]:
    self._counts = Counter()
    # So many images that their variants are one batch of the trunk.
    batch_size = max(1, self._handler.batch_size // self._distortions.copies)
    pictures = self._training_images(shard)
    for item in infer_images(pictures, self._load, batch_size=batch_size, max_pixels=self._handler.max_pixels):
      match item:
        case Quarantined():
          yield item.in_split(shard.split)
        case Inferred(image, outputs):
          self._counts["pictures"] += 1
          self._counter.inc(self._distortions.copies)
          for record in self._records(image, outputs["bottleneck"]):
            yield Written(image.label, record)
    self._handler.count_loads()

  def extra(self) -> Mapping[str, Any]:
    return {DISTORTED: {"pictures": self._counts["pictures"], "validation": self._counts["validation"]}}

  def _training_images(self, shard: Shard) -> Iterator[Image | Quarantined]:
    for picture in shard.read_images(self._labels):
      if isinstance(picture, Quarantined) or self._percentages.split_of(picture.key, shard.split) == TRAINING:
        yield picture
      else:
        self._counts["validation"] += 1

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
  """A trunk that takes a image and gives [K, D]: a image and its variants come and go together."""

  make_variants: Callable[[Sequence[Image]], Any] = dataclasses.field(kw_only=True)

  def decode(self, images: Sequence[Image]) -> Any:
    return self.make_variants(images)


def _distorting(trunk: LoadedModel, distortions: Distortions) -> LoadedModel:
  from beam_retrain.transforms.core.images.augment_tf import make_distort_all  # loads TensorFlow

  distort_all = make_distort_all(distortions, trunk.input_px)

  def make_variants(images: Sequence[Image]) -> Any:
    return distort_all([image.encoded for image in images], [image.key for image in images])

  def infer(variants: Any) -> Outputs:
    pictures, copies, *shape = variants.shape
    flat = trunk.infer(variants.numpy().reshape(pictures * copies, *shape))
    return {name: values.reshape(pictures, copies, *values.shape[1:]) for name, values in flat.items()}

  return _DistortingModel(trunk.preprocess, infer, trunk.input_px, make_variants=make_variants)
