"""Converts IDX images to image files, image records, or both."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from typing import cast

from beam_retrain.transforms.core.images.encode import DEFAULT_QUALITY, ImageFormat, encode_each
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import Image, encode_image
from beam_retrain.transforms.core.records.shards import WRITTEN, Shard
from beam_retrain.transforms.core.records.tfrecord import frame
from beam_retrain.transforms.core.run.stats import Stats
from beam_retrain.transforms.core.system.prefetch import batched
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.work import ShardTask, Written
from beam_retrain.transforms.sources.idx import IdxRange, image_key

JPG, PNG, TFRECORD = "jpg", "png", "tfrecord"
FORMATS = (JPG, PNG, TFRECORD)
_WRITTEN_TOGETHER = 128  # images held in memory
IMAGE_FORMATS: dict[str, ImageFormat] = {JPG: "jpeg", PNG: "png"}  # file name extension -> `image/format`


@dataclasses.dataclass(frozen=True)
class ConvertShard(ShardTask):
  """Writes a shard's images as files and yields their records.

  Attributes:
    output: image files go to `output/{split}/{label}/{index}.{extension}`.
    formats: at least one of `FORMATS`. Records hold PNG if PNG is given without JPG, else JPEG.
    labels: class index -> label; a label byte is a class index.
    quality: of JPEGs, 1 to 100.
  """

  output: str
  formats: tuple[str, ...]
  labels: tuple[str, ...]
  quality: int = DEFAULT_QUALITY
  _written: list[tuple[str, int, str]] = dataclasses.field(default_factory=list, init=False, compare=False)

  @property
  def writes_file(self) -> bool:
    return TFRECORD in self.formats

  def work(self, shard: Shard) -> Iterator[Written | Quarantined]:
    self._written.clear()
    in_tree = [extension for extension in IMAGE_FORMATS if extension in self.formats]
    extensions = in_tree or [JPG]  # the first is that of the records
    for idx_range in cast(tuple[IdxRange, ...], shard.inputs):
      images, label_bytes = idx_range.read_arrays()
      if in_tree:
        for byte in set(label_bytes):
          if byte < len(self.labels):
            files.make_folder(files.join(self.output, shard.split, self.labels[byte]))
      encoded = (encode_each(images, IMAGE_FORMATS[extension], self.quality) for extension in extensions)
      numbered = enumerate(zip(label_bytes, *encoded, strict=True))
      for block in batched(numbered, _WRITTEN_TOGETHER):
        tree: list[tuple[str, bytes]] = []
        items: list[Written | Quarantined] = []
        for number, (byte, *in_formats) in block:
          index = idx_range.start + number
          if byte >= len(self.labels):
            items.append(self._bad_label(shard.split, index, byte, images[number].size))
            continue
          label = self.labels[byte]
          keys = [image_key(shard.split, label, index, extension) for extension in extensions]
          if in_tree:  # a key is also a path
            tree += zip(keys, in_formats, strict=True)
          payload = b""
          if self.writes_file:
            image = Image(keys[0], label, in_formats[0], IMAGE_FORMATS[extensions[0]], *images.shape[1:])
            payload = frame(encode_image(image, byte))
          items.append(Written(label, payload))
        files.write_each([(f"{self.output}/{key}", data) for key, data in tree])
        above = "../" if self.writes_file else ""  # the reports are in `records/`
        self._written.extend((above + key, len(data), hashlib.sha256(data).hexdigest()) for key, data in tree)
        yield from items

  def extra(self) -> Mapping[str, list[tuple[str, int, str]]]:
    return {WRITTEN: list(self._written)} if self._written else {}

  def _bad_label(self, split: str, index: int, label_byte: int, size_bytes: int) -> Quarantined:
    return Quarantined(
      key=f"{split}/{label_byte}/{index}",
      size_bytes=size_bytes,
      reason=Reason.BAD_LABEL,
      detail=f"label byte {label_byte}, expected 0 to {len(self.labels) - 1}",
      split=split,
    )


def sweep_tree(stats: Stats, output: str, *, splits: tuple[str, ...], labels: tuple[str, ...]) -> Stats:
  """Deletes temporary files of killed workers; returns `stats`."""
  for split in splits:
    for label in labels:
      files.sweep(files.join(output, split, label))
  return stats
