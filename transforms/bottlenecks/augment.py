"""Embeds distorted variants of the training images.

They are stored beside the records, one file per shard; only `train` reads them. Reuse, evaluation and the transform
graph never see a distorted image.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from beam_retrain.transforms.bottlenecks.embed import EmbedShard, framed_bottleneck
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.core.images.augment import DISTORTED, Distortions, count_distorted, variant_key
from beam_retrain.transforms.core.models.inference import Inferred, LoadedModel, Outputs, infer_images
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import PREPROCESSING_VERSION, REPORTS_FOLDER, TRAINING, Image
from beam_retrain.transforms.core.records.shards import Shard, ShardReport
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.run_info import request_digest
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.ledger import delete_strays
from beam_retrain.transforms.shards.progress import METRICS_NAMESPACE
from beam_retrain.transforms.shards.work import WorkShards, Written


class EmbedVariants(beam.PTransform):
  """Embeds variants of the training images and checks that none is missing.

  (planned PCollection[Shard], PCollection[ShardReport] of their records) -> PCollection of one dict, `Stats.distorted`.

  Attributes:
    percentages: selects validation images, which are not distorted.
    distortions: number and kind of the variants.
  """

  def __init__(
    self,
    handler: ImageModelHandler,
    *,
    labels: Sequence[str],
    percentages: SplitPercentages,
    distortions: Distortions,
    output: str,
    fingerprint: str,
    checked: beam.PCollection,
    earlier: Sequence[str] = (),
  ):
    super().__init__()
    settings = {
      "distortions": distortions.to_settings(),
      **percentages.to_settings(),
      "trunk_fingerprint": fingerprint,
      "preprocessing": PREPROCESSING_VERSION,
      "max_pixels": handler.max_pixels,
      "batch_size": handler.batch_size,
      "labels": list(labels),
    }
    self._distortions = distortions
    self._output = output
    task = DistortShard(handler, labels, percentages, distortions)
    request = request_digest(DISTORTED, settings)
    self._work = WorkShards(task, output=output, request=request, checked=checked, earlier=earlier)

  def expand(self, inputs: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
    shards, reports = inputs
    files.make_folder(files.join(self._output, REPORTS_FOLDER))
    return (
      shards
      | "TrainingShards" >> beam.Filter(lambda shard: shard.split == TRAINING)
      # Shard
      | "Distort" >> self._work
      # ShardReport
      | "CollectReports" >> beam.combiners.ToList()
      # list of ShardReport
      | "Close" >> beam.Map(_close, self._output, self._distortions, beam.pvalue.AsList(reports))
    )  # dict


def _close(
  variant_reports: list[ShardReport], folder: str, distortions: Distortions, reports: list[ShardReport]
) -> dict[str, int]:
  counts = count_distorted(distortions, reports, variant_reports)
  delete_strays(folder, {report.file for report in variant_reports})
  return counts


class DistortShard(EmbedShard):
  """Writes the bottleneck records of a shard's variants. Attributes: as of `EmbedVariants`."""

  def __init__(
    self,
    handler: ImageModelHandler,
    labels: Sequence[str],
    percentages: SplitPercentages,
    distortions: Distortions,
  ):
    super().__init__(handler, labels)
    self._percentages = percentages
    self._distortions = distortions
    self._counts: Counter[str] = Counter()
    self._variants = Metrics.counter(METRICS_NAMESPACE, "variants_computed")

  @property
  def counts_images(self) -> bool:
    return False  # yields variants, and skips validation images

  def work(self, shard: Shard) -> Iterator[Written | Quarantined]:
    self._counts = Counter()
    # The variants of one batch of images fill one batch of the trunk.
    batch_size = max(1, self._handler.batch_size // self._distortions.copies)
    for item in infer_images(self._read(shard), self._load, batch_size=batch_size, max_pixels=self._handler.max_pixels):
      match item:
        case Quarantined():
          yield item.in_split(shard.split)
        case Inferred(image, outputs):
          self._counts["pictures"] += 1
          self._variants.inc(self._distortions.copies)
          for copy, vector in enumerate(outputs["bottleneck"], start=1):
            variant = dataclasses.replace(image, key=variant_key(image.key, copy))
            yield Written(image.label, framed_bottleneck(variant, self._class_indices[image.label], vector))
    self._handler.count_loads()

  def extra(self) -> Mapping[str, Any]:
    return {DISTORTED: {"pictures": self._counts["pictures"], "validation": self._counts["validation"]}}

  def _read(self, shard: Shard) -> Iterator[Image | Quarantined]:
    for image in super()._read(shard):
      if isinstance(image, Quarantined) or self._percentages.split_of(image.key, shard.split) == TRAINING:
        yield image
      else:
        self._counts["validation"] += 1

  def _load(self) -> LoadedModel:
    if self._model is None:
      self._model = _distorting(self._handler.load_once(), self._distortions)
    return self._model


@dataclasses.dataclass(frozen=True)
class _DistortingModel(LoadedModel):
  """A trunk from one image to its K variants' bottlenecks, [K, D]."""

  make_variants: Callable[[Sequence[Image]], Any] = dataclasses.field(kw_only=True)

  def decode(self, images: Sequence[Image]) -> Any:
    return self.make_variants(images)


def _distorting(trunk: LoadedModel, distortions: Distortions) -> LoadedModel:
  from beam_retrain.transforms.core.images.augment_tf import make_distort_all  # loads TensorFlow

  distort_all = make_distort_all(distortions, trunk.input_px)

  def make_variants(images: Sequence[Image]) -> Any:
    return distort_all([image.encoded for image in images], [image.key for image in images])

  def infer(variants: Any) -> Outputs:
    images, copies, *shape = variants.shape
    flat = trunk.infer(variants.numpy().reshape(images * copies, *shape))
    return {name: values.reshape(images, copies, *values.shape[1:]) for name, values in flat.items()}

  return _DistortingModel(trunk.preprocess, infer, trunk.input_px, make_variants=make_variants)
