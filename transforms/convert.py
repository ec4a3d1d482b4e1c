"""IDX images to a tree of picture files, to image records, or to both in one pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from transforms import files
from transforms.core.encode import DEFAULT_QUALITY, encode_pixels
from transforms.core.quarantine import Quarantined, Reason
from transforms.core.schema import Image, encode_image
from transforms.core.shards import Shard
from transforms.core.tfrecord import frame
from transforms.idx_source import image_key, read_idx_range
from transforms.shard_work import ShardTask, Written

JPG, PNG, TFRECORD = "jpg", "png", "tfrecord"
FORMATS = (JPG, PNG, TFRECORD)
PICTURE_FORMATS = {JPG: "jpeg", PNG: "png"}  # file name extension -> `image/format`


@dataclasses.dataclass(frozen=True)
class ConvertShard(ShardTask):
  """Writes the pictures of a shard into the tree and yields their records.

  Attributes:
    output: the tree's root: pictures go to `output/{split}/{label}/{index}.{extension}`.
    formats: at least one of `FORMATS`. Records hold JPEG, unless PNG is asked for without JPG.
    labels: class index -> label; a label byte is a class index.
    quality: of JPEGs, 1 to 100.
  """

  output: str
  formats: tuple[str, ...]
  labels: tuple[str, ...]
  quality: int = DEFAULT_QUALITY

  @property
  def writes_file(self) -> bool:
    return TFRECORD in self.formats

  @property
  def record_extension(self) -> str:
    return PNG if PNG in self.formats and JPG not in self.formats else JPG

  def work(self, shard: Shard) -> Iterator[Written | Quarantined]:
    tree_extensions = [extension for extension in PICTURE_FORMATS if extension in self.formats]
    extensions = tree_extensions or [self.record_extension]
    folders: dict[str, str] = {}  # label -> its folder, made
    for idx_range in shard.inputs:
      for index, label_byte, pixels in read_idx_range(idx_range):
        if label_byte >= len(self.labels):
          yield self._bad_label(shard.split, index, label_byte, pixels.size)
          continue
        label = self.labels[label_byte]
        encoded = {
          extension: encode_pixels(pixels, PICTURE_FORMATS[extension], self.quality) for extension in extensions
        }
        if tree_extensions and label not in folders:
          folders[label] = files.join(self.output, shard.split, label)
          files.make_folder(folders[label])
        for extension in tree_extensions:
          files.write_bytes(f"{folders[label]}/{index}.{extension}", encoded[extension])
        if not self.writes_file:
          yield Written(label, b"")
          continue
        extension = self.record_extension
        image = Image(
          key=image_key(shard.split, label, index, extension),
          label=label,
          encoded=encoded[extension],
          format=PICTURE_FORMATS[extension],
          height=pixels.shape[0],
          width=pixels.shape[1],
        )
        yield Written(label, frame(encode_image(image, label_byte)))

  def _bad_label(self, split: str, index: int, label_byte: int, size_bytes: int) -> Quarantined:
    return Quarantined(
      key=f"{split}/{label_byte}/{index}",
      size_bytes=size_bytes,
      reason=Reason.BAD_LABEL,
      detail=f"label byte {label_byte}, expected 0 to {len(self.labels) - 1}",
      split=split,
    )


def sweep_tree(stats: dict, output: str, *, splits: tuple[str, ...], labels: tuple[str, ...]) -> dict:
  """Removes what killed workers left in the tree, and hands `stats` on."""
  for split in splits:
    for label in labels:
      files.sweep(files.join(output, split, label))
  return stats
