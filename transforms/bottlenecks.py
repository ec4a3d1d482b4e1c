"""Pictures through the trunk, one shard at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transforms.core.quarantine import Quarantined
from transforms.core.schema import Bottleneck, encode_bottleneck
from transforms.core.shards import Shard
from transforms.core.tfrecord import frame
from transforms.model_handler import ImageModelHandler, Inferred, LoadedModel
from transforms.shard_work import ShardTask, Written
from transforms.sources import read_images


class EmbedShard(ShardTask):
  """Writes the bottleneck records of a shard's pictures.

  Attributes:
    handler: the trunk.
    labels: class index -> label.
  """

  def __init__(self, handler: ImageModelHandler, labels: Sequence[str]):
    self._handler = handler
    self._labels = list(labels)
    self._class_indices = {label: index for index, label in enumerate(labels)}
    self._model: LoadedModel | None = None

  def setup(self) -> None:
    self._model = self._handler.load_once()

  def work(self, shard: Shard) -> Iterator[Written | Quarantined]:
    assert self._model is not None, "setup() comes first"
    for item in self._handler.infer(read_images(shard, self._labels), self._model):
      match item:
        case Quarantined():
          yield item.in_split(shard.split)
        case Inferred(image, outputs):
          record = Bottleneck(
            key=image.key,
            label=image.label,
            class_index=self._class_indices[image.label],
            vector=outputs["bottleneck"],
            format=image.format,
            height=image.height,
            width=image.width,
            sha256=image.sha256,
          )
          yield Written(image.label, frame(encode_bottleneck(record)))
