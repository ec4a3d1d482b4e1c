"""Converts images of any source to image files, image records, or both."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from beam_retrain.transforms.core.corrections import Correcting, no_class
from beam_retrain.transforms.core.images.encode import DEFAULT_QUALITY, ImageFormat, encode_each, encode_pixels
from beam_retrain.transforms.core.images.formats.info import ALPHAS
from beam_retrain.transforms.core.images.headers import Fault, probe_plain
from beam_retrain.transforms.core.images.idx import MAX_SIDE_PX
from beam_retrain.transforms.core.images.upright import read_upright
from beam_retrain.transforms.core.records.output_names import JPG, PNG, TFRECORD, OutputName, find_clashing, name_output
from beam_retrain.transforms.core.records.quarantine import MAX_PIXELS, Quarantined, Reason
from beam_retrain.transforms.core.records.schema import Image, encode_image
from beam_retrain.transforms.core.records.shards import WRITTEN, Shard
from beam_retrain.transforms.core.records.tfrecord import frame
from beam_retrain.transforms.core.run.stats import Stats
from beam_retrain.transforms.core.system.prefetch import map_ahead
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.work import ShardTask, Written
from beam_retrain.transforms.sources.base import Source
from beam_retrain.transforms.sources.idx import IdxRange, image_key
from beam_retrain.transforms.sources.records import RecordsSource

_WRITTEN_TOGETHER, _BYTES_TOGETHER = 128, 1 << 24  # images held in memory, and their bytes
IMAGE_FORMATS: dict[str, ImageFormat] = {JPG: "jpeg", PNG: "png"}  # file name extension -> `image/format`


class _Encoded(NamedTuple):
  """An image in each of the formats, in their order."""

  name: OutputName
  label: str
  size: tuple[int, int]  # height, width
  encoded: tuple[bytes, ...]


@dataclasses.dataclass(frozen=True)
class ConvertShard(ShardTask):
  """Writes a shard's images as files and yields their records."""

  output: str  # image files go to `output/{path}.{extension}`, see `OutputName`
  formats: tuple[str, ...]  # of `FORMATS`; records hold PNG if PNG is given without JPG, else JPEG
  labels: tuple[str, ...]  # class index -> label
  quality: int = DEFAULT_QUALITY  # of JPEGs, 1 to 100
  alpha: str = ALPHAS[0]  # what may be seen through transparent pixels, one of `ALPHAS`
  max_pixels: int = MAX_PIXELS  # largest height x width that is decoded
  clashing: frozenset[str] = frozenset()  # keys whose images would have one name
  threads: int = 1  # that decode and encode images, except those of IDX files
  _written: list[tuple[str, int, str]] = dataclasses.field(default_factory=list, init=False, compare=False)

  @property
  def writes_file(self) -> bool:
    return TFRECORD in self.formats

  @property
  def in_tree(self) -> list[str]:
    """Extensions of the image files."""
    return [extension for extension in IMAGE_FORMATS if extension in self.formats]

  @property
  def _extensions(self) -> list[str]:
    return self.in_tree or [JPG]  # the first is that of the records

  def work(self, shard: Shard) -> Iterator[Written | Quarantined]:
    self._written.clear()
    class_indices = {label: index for index, label in enumerate(self.labels)}
    for block in _blocks(self._encode(shard, class_indices)):
      self._write_tree([item for item in block if isinstance(item, _Encoded)])
      for item in block:
        yield item if isinstance(item, Quarantined) else self._record(item, class_indices[item.label])

  def extra(self) -> Mapping[str, list[tuple[str, int, str]]]:
    return {WRITTEN: list(self._written)} if self._written else {}

  def _encode(self, shard: Shard, labels: Collection[str]) -> Iterator[_Encoded | Quarantined]:
    for entry in shard.inputs:
      if isinstance(entry, IdxRange):
        yield from self._encode_range(shard.split, entry, shard.corrections)
    images = shard._replace(inputs=tuple(entry for entry in shard.inputs if not isinstance(entry, IdxRange)))
    encode = functools.partial(self._encode_image, shard.split, shard.corrections)
    yield from map_ahead(encode, images.read_images(labels), self.threads)

  def _encode_range(
    self, split: str, idx_range: IdxRange, corrections: Correcting | None
  ) -> Iterator[_Encoded | Quarantined]:
    images, labels = idx_range.read_arrays()
    known = set(self.labels)
    encoded = (encode_each(images, IMAGE_FORMATS[extension], self.quality) for extension in self._extensions)
    for number, (label, *in_formats) in enumerate(zip(labels, *encoded, strict=True)):
      index = idx_range.start + number
      now = self._corrected(corrections, image_key(split, label, index, self._extensions[0]), label, images[number])
      if now is None:
        yield no_class(f"{split}/{label}/{index}", images[number].size).in_split(split)
      elif now not in known:
        yield self._bad_label(split, index, now, images[number].size)
      else:
        name = image_key(split, now, index, JPG).removesuffix(f".{JPG}")
        yield _Encoded(OutputName(name, name), now, images[number].shape, tuple(in_formats))

  def _corrected(self, corrections: Correcting | None, key: str, label: str, pixels: np.ndarray) -> str | None:
    """Returns a label now, corrected by any encoding of the pixels."""
    if corrections is None:
      return label
    forms = (encode_pixels(pixels, format, self.quality) for format in IMAGE_FORMATS.values())
    return corrections.label_of(key, label, *(hashlib.sha256(encoded).hexdigest() for encoded in forms))

  def _encode_image(
    self, split: str, corrections: Correcting | None, image: Image | Quarantined
  ) -> _Encoded | Quarantined:
    if isinstance(image, Quarantined):
      return image.in_split(split)
    pixels = self._read(image.encoded)
    if isinstance(pixels, Fault):
      return Quarantined(image.key, len(image.encoded), pixels.reason, pixels.detail, split)
    plain = probe_plain(image.encoded)
    encoded = tuple(
      # What needs no change is not encoded again, which would lose some of a JPEG.
      image.encoded if plain and plain.format == format else encode_pixels(pixels, format, self.quality)
      for format in map(IMAGE_FORMATS.__getitem__, self._extensions)
    )
    is_clashing = image.key in self.clashing or (corrections is not None and corrections.is_copy(image))
    name = name_output(image.key, image.label, split, is_clashing=is_clashing)
    return _Encoded(name, image.label, pixels.shape[:2], encoded)

  def _read(self, encoded: bytes) -> np.ndarray | Fault:
    pixels = read_upright(encoded, self.alpha, self.max_pixels)
    if not isinstance(pixels, Fault) and JPG in self._extensions and max(pixels.shape) > MAX_SIDE_PX:
      return Fault(Reason.TOO_LARGE, f"a JPEG has sides of at most {MAX_SIDE_PX} pixels: convert it with --formats png")
    return pixels

  def _write_tree(self, images: list[_Encoded]) -> None:
    tree = [
      (f"{image.name.path}.{extension}", data)
      for image in images
      for extension, data in zip(self.in_tree, image.encoded, strict=False)
    ]
    for folder in {path.rpartition("/")[0] for path, _ in tree}:
      files.make_folder(files.join(self.output, folder))
    files.write_each([(f"{self.output}/{path}", data) for path, data in tree])
    above = "../" if self.writes_file else ""  # the reports are in `records/`
    self._written.extend((above + path, len(data), hashlib.sha256(data).hexdigest()) for path, data in tree)

  def _record(self, image: _Encoded, class_index: int) -> Written:
    payload = b""
    if self.writes_file:
      extension = self._extensions[0]
      key = f"{image.name.key}.{extension}"
      record = Image(key, image.label, image.encoded[0], IMAGE_FORMATS[extension], *image.size)
      payload = frame(encode_image(record, class_index))
    return Written(image.label, payload)

  def _bad_label(self, split: str, index: int, label: str, size_bytes: int) -> Quarantined:
    return Quarantined(
      key=f"{split}/{label}/{index}",
      size_bytes=size_bytes,
      reason=Reason.BAD_LABEL,
      detail=f"label byte {label}, expected 0 to {len(self.labels) - 1}",
      split=split,
    )


def _blocks(items: Iterator[_Encoded | Quarantined]) -> Iterator[list[_Encoded | Quarantined]]:
  block: list[_Encoded | Quarantined] = []
  size_bytes = 0
  for item in items:
    block.append(item)
    size_bytes += sum(map(len, item.encoded)) if isinstance(item, _Encoded) else 0
    if len(block) == _WRITTEN_TOGETHER or size_bytes >= _BYTES_TOGETHER:
      yield block
      block, size_bytes = [], 0
  if block:
    yield block


class Listed(NamedTuple):
  """What is in an input; `digest` changes with any of its files."""

  shards: int
  digest: str
  clashing: frozenset[str]


def list_input(source: Source, splits: Sequence[str], corrections: Correcting | None = None) -> Listed:
  """Lists the images of some splits; raises InputError if there are none."""
  shards, digest, names = 0, hashlib.sha256(), []
  for shard in source.list_shards(splits, None):
    shards += 1
    digest.update(shard.digest("").encode())
    if not isinstance(source, RecordsSource):  # whose names differ, and take long to read
      names += [(key, label, shard.split) for key, label in shard._replace(corrections=corrections).names() if label]
  if not shards:
    raise source.no_images(splits)
  return Listed(shards, digest.hexdigest(), find_clashing(names))


def sweep_tree(stats: Stats, output: str, folders: tuple[str, ...]) -> Stats:
  """Deletes temporary files of killed workers; returns `stats`."""
  for folder in folders:
    files.sweep(files.join(output, folder), below=True)
  return stats
