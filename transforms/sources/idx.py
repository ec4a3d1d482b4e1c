"""MNIST-style IDX files, cut into shards.

Workers read ranges of uncompressed files in parallel. A gzip file is streamed once, and its shards carry their bytes;
with the local runner, which would hold all of them in memory, they are spilled to a scratch file. So is a file whose
images are transposed, or whose labels are not one byte each or have names.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np

from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.images import idx
from beam_retrain.transforms.core.images.class_names import parse_class_names
from beam_retrain.transforms.core.images.encode import encode_pixels
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import TESTING, TRAINING, Image
from beam_retrain.transforms.core.records.shards import IMAGES_PER_SHARD, SAMPLED_FROM, Input, Shard, read_picked
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.system.listing import left_out
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.base import Source, SourceOptions, check_classes, read_range, sample_hash
from beam_retrain.transforms.sources.idx_files import IdxFile, IdxFolder, is_idx_name, read_blocks, read_classes

_IS_EMNIST = re.compile(r"(?:.*[-_.])?emnist\b.*", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class SpilledBytes:
  """Bytes in a scratch file on the machine; `sha256`: 64 hex digits."""

  path: str
  start: int
  size_bytes: int
  sha256: str

  def read(self) -> bytes:
    with open(self.path, "rb") as file:
      file.seek(self.start)
      return file.read(self.size_bytes)

  def to_json(self) -> str:
    """Returns the bytes' entry in a shard's digest, as if not spilled."""
    return self.sha256


class IdxRange(NamedTuple):
  """A range of images of an IDX file, read as PNG.

  The PNGs equal those of `convert --formats png`. `pixels` and `labels` are None if they can be read from the files;
  `labels` are the files' bytes, one each, or texts. `modified_secs` is the later of both files, so that a change alters
  the digest.
  """

  images_path: str
  labels_path: str
  start: int
  count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls
  rows: int
  columns: int
  pixels: bytes | SpilledBytes | None
  labels: bytes | tuple[str, ...] | None
  modified_secs: float = 0.0

  def count_images(self) -> int:
    return self.count

  def names(self, split: str) -> Iterator[tuple[str, str | None]]:
    for number, label in enumerate(self._read_labels(), self.start):
      yield image_key(split, label, number, "png"), label

  def read(self, split: str) -> Iterator[Image]:
    images, labels = self.read_arrays()
    for number, (pixels, label) in enumerate(zip(images, labels, strict=True), self.start):
      yield Image(
        image_key(split, label, number, "png"), label, encode_pixels(pixels, "png"), "png", self.rows, self.columns
      )

  def read_where(self, split: str, is_wanted: Callable[[str], bool]) -> Iterator[Image | Quarantined]:
    return read_picked(self, split, is_wanted)

  def pick(self, numbers: Sequence[int]) -> Iterator[Input]:
    # In a run of consecutive numbers, number - index is constant.
    for _, run in itertools.groupby(enumerate(numbers), lambda indexed: indexed[1] - indexed[0]):
      first, *others = (number for _, number in run)
      yield self._cut(first, 1 + len(others))

  def read_arrays(self) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the images, uint8 [count, rows, columns], and their labels."""
    pixels = self._read_pixels()
    if pixels is None:
      item_bytes = self.rows * self.columns
      pixels = _read_at(self.images_path, idx.IMAGES_OFFSET + self.start * item_bytes, self.count * item_bytes)
    return np.frombuffer(pixels, np.uint8).reshape(self.count, self.rows, self.columns), self._read_labels()

  def _read_pixels(self) -> bytes | None:
    return self.pixels.read() if isinstance(self.pixels, SpilledBytes) else self.pixels

  def _read_labels(self) -> tuple[str, ...]:
    labels = self.labels
    if labels is None:
      labels = _read_at(self.labels_path, idx.LABELS_OFFSET + self.start, self.count)
    return labels if isinstance(labels, tuple) else tuple(map(str, labels))

  def _cut(self, start: int, count: int) -> IdxRange:
    pixels, size = self._read_pixels(), self.rows * self.columns
    return self._replace(
      start=self.start + start,
      count=count,
      pixels=None if pixels is None else pixels[start * size : (start + count) * size],
      labels=None if self.labels is None else self.labels[start : start + count],
    )


class IdxSource(Source):
  """A folder of MNIST-style IDX files.

  Its labels are the numbers that are there, or those below `classes`, or the names of either.
  """

  name = "a folder of MNIST-style IDX files"

  def __init__(self, path: str, options: SourceOptions = SourceOptions()):  # noqa: B008
    self.path = path
    self._transpose = options.transpose
    numbers = range(options.classes) if options.classes else read_classes(path)
    self._names: dict[int, str] | None = None
    if options.class_names:
      self._names = parse_class_names(_read_names(options.class_names), options.class_names, numbers)
    self.labels = list(self._names.values()) if self._names else [str(number) for number in numbers]
    if self.labels:  # else a file is missing or empty, which `plan` says
      check_classes(path, self.labels, options.min_classes)

  @classmethod
  def recognises(cls, path: str) -> bool:
    """Returns whether a folder contains files with names such as MNIST's."""
    return IdxFolder(path).holds_any

  def notes(self) -> Iterator[str]:
    folder = IdxFolder(self.path)
    beside = [name for name in files.subfolders(self.path) if not is_idx_name(name)]
    if line := left_out(
      {"IDX files of other splits or data sets": folder.left_out(), "folders beside the IDX files": beside}, ()
    ):
      yield line
    if not self._transpose and _IS_EMNIST.fullmatch(folder.name):
      yield f"{self.path}: by their names these are files of EMNIST, which stores images transposed: add --transpose."

  def pairs(self, splits: Sequence[str] = (TRAINING, TESTING)) -> list[IdxPair]:
    """Finds the files of each split; may raise InputError."""
    return find_idx_splits(self.path, tuple(splits), self._names, self._transpose)

  def plan(self, splits: Sequence[str], percentages: SplitPercentages | None) -> beam.PTransform:
    return PlanIdxShards(self.pairs(splits))

  def list_shards(
    self, splits: Sequence[str], percentages: SplitPercentages | None, max_files: int | None = None
  ) -> Iterator[Shard]:
    pairs = self.pairs(splits)
    count = sum(pair.count for pair in pairs)
    for shard in itertools.chain.from_iterable(cut_into_shards(pair, IMAGES_PER_SHARD) for pair in pairs):
      if max_files is None or sample_hash(shard.name()) % count < SAMPLED_FROM:
        yield shard

  def has_at_least(self, count: int) -> bool:
    return sum(pair.count for pair in self.pairs()) >= count


def count_classes(labels: Sequence[str]) -> int | None:
  """Returns the number of labels "0", "1", ...; None for others."""
  return len(labels) if list(labels) == [str(number) for number in range(len(labels))] else None


def _read_names(path: str) -> bytes:
  try:
    return files.read_bytes(path)
  except OSError as error:
    raise InputError(f"{flag('class_names')} {path} cannot be read ({error.strerror}): give a text file.") from error


@dataclasses.dataclass(frozen=True, slots=True)
class IdxPair:
  """The images and labels file of one split, with checked headers."""

  split: str
  images: IdxFile
  labels: IdxFile
  class_names: Mapping[int, str] | None = None  # number -> label; None: each number is its own
  is_transposed: bool = False  # whether the stored rows are the images' columns, as in EMNIST

  @property
  def count(self) -> int:
    return self.images.header.count

  @property
  def rows(self) -> int:
    return self.images.header.dimensions[2 if self.is_transposed else 1]

  @property
  def columns(self) -> int:
    return self.images.header.dimensions[1 if self.is_transposed else 2]

  @property
  def carries_pixels(self) -> bool:
    """Whether workers cannot read the pixels from the file."""
    return self.images.is_gzip or self.is_transposed

  @property
  def modified_secs(self) -> float:
    """The later of both files."""
    return max(self.images.stat.modified_secs, self.labels.stat.modified_secs)

  def to_settings(self) -> dict[str, object]:
    """Returns what decides the images; for files of 0.4 as there."""
    return {
      "split": self.split,
      "images_path": self.images.path,
      "labels_path": self.labels.path,
      "count": self.count,
      "rows": self.rows,
      "columns": self.columns,
      "size_bytes": self.images.stat.size_bytes + self.labels.stat.size_bytes,
      "modified_secs": self.modified_secs,
      **({"class_names": sorted(self.class_names.items())} if self.class_names else {}),
      **({"transpose": True} if self.is_transposed else {}),
    }

  def read_pixels(self, images_per_block: int) -> Iterator[bytes | None]:
    """Yields blocks of pixels, or None for each that workers can read."""
    if not self.carries_pixels:
      yield from itertools.repeat(None, count_shards(self, images_per_block))
    for block in read_blocks(self.images, images_per_block) if self.carries_pixels else ():
      yield idx.transpose(block, self.images.header) if self.is_transposed else block

  def read_labels(self, labels_per_block: int) -> Iterator[bytes | tuple[str, ...] | None]:
    """Yields blocks of labels, or None for each that workers can read."""
    file, names = self.labels, self.class_names or {}
    if file.header.has_byte_labels and not names:
      if file.is_gzip:
        yield from read_blocks(file, labels_per_block)
      else:
        yield from itertools.repeat(None, count_shards(self, labels_per_block))
      return
    for block in read_blocks(file, labels_per_block):
      yield tuple(names.get(number, str(number)) for number in idx.decode_labels(block, file.header))


def image_key(split: str, label: object, index: int, extension: str) -> str:
  """Returns a key such as `training/5/17.jpg`; `index`: position in the file."""
  return f"{split}/{label}/{index}.{extension}"


def find_idx_splits(
  path: str,
  splits: Sequence[str] = (TRAINING, TESTING),
  class_names: Mapping[int, str] | None = None,
  is_transposed: bool = False,
) -> list[IdxPair]:
  """Finds the files of each split.

  Raises InputError if one is missing or wrong. Lengths of gzip files are checked later, when they are streamed.
  """
  folder = IdxFolder(path)
  pairs = []
  for split in splits:
    images, labels = folder.get(split, "images"), folder.get(split, "labels")
    idx.check_same_count(images.header, images.path, labels.header, labels.path)
    if not images.header.count:
      raise InputError(f"{images.path}: byte 4: 0 images: there is nothing to read.")
    pairs.append(IdxPair(split, images, labels, class_names, is_transposed))
  return pairs


class PlanIdxShards(beam.PTransform):
  """Plans shards of one `IdxRange` each: PBegin -> PCollection[Shard]."""

  def __init__(self, pairs: Sequence[IdxPair], *, images_per_shard: int = IMAGES_PER_SHARD):
    super().__init__()
    if not pairs or images_per_shard < 1:
      raise ValueError(f"{len(pairs)} pairs, {images_per_shard} images per shard: both must be at least 1")
    self._pairs = list(pairs)
    self._images_per_shard = images_per_shard

  def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
    return (
      root
      | "IdxPairs" >> beam.Create(self._pairs, reshuffle=False)
      # IdxPair
      | "CutIntoShards" >> beam.FlatMap(cut_into_shards, self._images_per_shard, self._scratch_folder(root.pipeline))
    )  # Shard

  def _scratch_folder(self, pipeline: beam.Pipeline) -> str:
    """Returns a folder deleted with the pipeline; empty if not needed."""
    # Another runner may work on after the pipeline is gone, or elsewhere.
    is_here = type(pipeline.runner).__name__ in ("ThreadRunner", "FnApiRunner")
    if not is_here or not any(pair.carries_pixels for pair in self._pairs):
      return ""
    folder = tempfile.mkdtemp(prefix="beam-retrain-")
    weakref.finalize(pipeline, _delete_scratch, folder, os.getpid())
    return folder


def _delete_scratch(folder: str, owner: int) -> None:
  if os.getpid() == owner:  # not in a forked worker
    shutil.rmtree(folder, ignore_errors=True)


def count_shards(pair: IdxPair, images_per_shard: int = IMAGES_PER_SHARD) -> int:
  return -(-pair.count // images_per_shard)


def cut_into_shards(pair: IdxPair, images_per_shard: int, scratch_folder: str = "") -> Iterator[Shard]:
  """Yields the shards of one pair; streams what workers cannot read.

  Pixels then go to the local `scratch_folder`; if empty, the shards carry them.
  """
  of = count_shards(pair, images_per_shard)
  pixels: Iterator[Any] = pair.read_pixels(images_per_shard)
  if scratch_folder and pair.carries_pixels:
    pixels = _spill(pixels, os.path.join(scratch_folder, pair.split))
  labels = pair.read_labels(images_per_shard)
  # Reads both to their ends, which checks that a gzip stream ends where its header says.
  for index, blocks in enumerate(zip(pixels, labels, strict=True)):
    start = index * images_per_shard
    count = min(images_per_shard, pair.count - start)
    where = (pair.images.path, pair.labels.path, start, count, pair.rows, pair.columns)
    yield Shard(pair.split, index, of, (IdxRange(*where, *blocks, pair.modified_secs),))


def _spill(blocks: Iterator[bytes], path: str) -> Iterator[bytes | SpilledBytes]:
  """Writes blocks to a scratch file; yields them if that fails."""
  start = 0
  for block in blocks:
    try:
      with open(path, "r+b" if start else "wb") as file:
        file.seek(start)
        file.write(block)
    except OSError:
      yield block
    else:
      yield SpilledBytes(path, start, len(block), hashlib.sha256(block).hexdigest())
      start += len(block)


def _read_at(path: str, position: int, size: int) -> bytes:
  with files.open_to_read(path) as file:
    return read_range(file, path, position, size)
