"""Embeds distorted variants of the training images.

They are stored beside the records, one file per shard; only `train` reads them. Reuse, evaluation and the transform
graph never see a distorted image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from apache_beam.metrics import Metrics

from beam_retrain.transforms.bottlenecks.embed import EmbedShard
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.core.images.augment import DISTORTED, Distortions, variant_key
from beam_retrain.transforms.core.models.inference import Inferred, LoadedModel, Outputs, infer_images
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import TRAINING, Image
from beam_retrain.transforms.core.records.shards import Shard
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.shards.progress import METRICS_NAMESPACE
from beam_retrain.transforms.shards.work import Written


class DistortShard(EmbedShard):
  """Writes the bottleneck records of a shard's variants.

  `percentages` select validation images, which are not distorted.
  """

  counts_images = False  # yields variants, and skips validation images

  def __init__(
    self, handler: ImageModelHandler, labels: Sequence[str], percentages: SplitPercentages, distortions: Distortions
  ):
    super().__init__(handler, labels)
    self._percentages = percentages
    self.distortions = distortions
    self._counts = {"pictures": 0, "validation": 0}
    self._variants = Metrics.counter(METRICS_NAMESPACE, "variants_computed")

  def work(self, shard: Shard) -> Iterator[Written | Quarantined]:
    self._counts = {"pictures": 0, "validation": 0}
    # The variants of one batch of images fill one batch of the trunk.
    batch_size = max(1, self._handler.batch_size // self.distortions.copies)
    for item in infer_images(self._read(shard), self._load, batch_size=batch_size, max_pixels=self._handler.max_pixels):
      match item:
        case Quarantined():
          yield item.in_split(shard.split)
        case Inferred(image, outputs):
          self._counts["pictures"] += 1
          self._variants.inc(self.distortions.copies)
          for copy, vector in enumerate(outputs["bottleneck"], start=1):
            yield self._record(dataclasses.replace(image, key=variant_key(image.key, copy)), vector)
    self._handler.count_loads()

  def extra(self) -> Mapping[str, Mapping[str, int | str]]:
    return {DISTORTED: self._counts}

  def _read(self, shard: Shard) -> Iterator[Image | Quarantined]:
    for image in super()._read(shard):
      if isinstance(image, Quarantined) or self._percentages.split_of(image.key, shard.split) == TRAINING:
        yield image
      else:
        self._counts["validation"] += 1

  def _load(self) -> LoadedModel:
    if self._model is None:
      self._model = _distorting(self._handler.load_once(), self.distortions)
    return self._model


@dataclasses.dataclass(frozen=True)
class _DistortingModel(LoadedModel):
  """A trunk from one image to its K variants' bottlenecks, [K, D]."""

  make_variants: Callable[[Sequence[bytes], Sequence[str]], Any] = dataclasses.field(kw_only=True)

  def decode(self, images: Sequence[Image]) -> Any:
    return self.make_variants([image.decodable for image in images], [image.key for image in images])


def _distorting(trunk: LoadedModel, distortions: Distortions) -> LoadedModel:
  from beam_retrain.transforms.core.images.augment_tf import make_distort_all  # loads TensorFlow

  def infer(variants: Any) -> Outputs:
    images, copies, *shape = variants.shape
    flat = trunk.infer(variants.numpy().reshape(images * copies, *shape))
    return {name: values.reshape(images, copies, *values.shape[1:]) for name, values in flat.items()}

  make_variants = make_distort_all(distortions, trunk.input_px)
  return _DistortingModel(trunk.preprocess, infer, trunk.input_px, make_variants=make_variants)
