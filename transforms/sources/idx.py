"""MNIST-style IDX files, cut into shards.

Workers read ranges of uncompressed files in parallel. A gzip file is streamed once, and its shards carry their bytes;
with the local runner, which would hold all of them in memory, they are spilled to a scratch file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import itertools
import os
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NamedTuple, cast

import apache_beam as beam
import numpy as np

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images import idx
from beam_retrain.transforms.core.images.encode import encode_pixels
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import TESTING, TRAINING, Image
from beam_retrain.transforms.core.records.shards import IMAGES_PER_SHARD, Input, Shard, read_picked
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.base import Source, SourceOptions, read_range

_PREFIXES = {TRAINING: "train", TESTING: "t10k"}


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

  The PNGs equal those of `convert --formats png`. `pixels` and `labels` are None if they can be read from the files.
  `modified_secs` is the later of both files, so that a change alters the digest.
  """

  images_path: str
  labels_path: str
  start: int
  count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls
  rows: int
  columns: int
  pixels: bytes | SpilledBytes | None
  labels: bytes | None
  modified_secs: float = 0.0

  def count_images(self) -> int:
    return self.count

  def names(self, split: str) -> Iterator[tuple[str, str | None]]:
    for number, byte in enumerate(self._read_labels(), self.start):
      yield image_key(split, byte, number, "png"), str(byte)

  def read(self, split: str) -> Iterator[Image]:
    images, labels = self.read_arrays()
    for number, (pixels, byte) in enumerate(zip(images, labels, strict=True), self.start):
      key = image_key(split, byte, number, "png")
      yield Image(key, str(byte), encode_pixels(pixels, "png"), "png", self.rows, self.columns)

  def read_where(self, split: str, is_wanted: Callable[[str], bool]) -> Iterator[Image | Quarantined]:
    return read_picked(self, split, is_wanted)

  def pick(self, numbers: Sequence[int]) -> Iterator[Input]:
    # In a run of consecutive numbers, number - index is constant.
    for _, run in itertools.groupby(enumerate(numbers), lambda indexed: indexed[1] - indexed[0]):
      first, *others = (number for _, number in run)
      yield self._cut(first, 1 + len(others))

  def read_arrays(self) -> tuple[np.ndarray, bytes]:
    """Returns the images, uint8 [count, rows, columns], and the label bytes."""
    pixels = self._read_pixels()
    if pixels is None:
      item_bytes = self.rows * self.columns
      pixels = _read_at(self.images_path, idx.IMAGES_OFFSET + self.start * item_bytes, self.count * item_bytes)
    return np.frombuffer(pixels, np.uint8).reshape(self.count, self.rows, self.columns), self._read_labels()

  def _read_pixels(self) -> bytes | None:
    return self.pixels.read() if isinstance(self.pixels, SpilledBytes) else self.pixels

  def _read_labels(self) -> bytes:
    if self.labels is not None:
      return self.labels
    return _read_at(self.labels_path, idx.LABELS_OFFSET + self.start, self.count)

  def _cut(self, start: int, count: int) -> IdxRange:
    pixels, size = self._read_pixels(), self.rows * self.columns
    return self._replace(
      start=self.start + start,
      count=count,
      pixels=None if pixels is None else pixels[start * size : (start + count) * size],
      labels=None if self.labels is None else self.labels[start : start + count],
    )


class IdxSource(Source):
  """A folder of MNIST-style IDX files."""

  name = "a folder of MNIST-style IDX files"

  def __init__(self, path: str, options: SourceOptions = SourceOptions()):  # noqa: B008
    self.path = path
    self.labels = [str(number) for number in range(options.classes)]

  @classmethod
  def recognises(cls, path: str) -> bool:
    """Returns whether a folder directly contains one of MNIST's IDX files."""
    return any(
      files.stat(files.join(path, name)) for split in _PREFIXES for kind in (3, 1) for name in _names(split, kind)
    )

  def plan(self, splits: Sequence[str], percentages: SplitPercentages | None) -> beam.PTransform:
    return PlanIdxShards(find_idx_splits(self.path, tuple(splits)))

  def list_shards(
    self, splits: Sequence[str], percentages: SplitPercentages | None, max_files: int | None = None
  ) -> Iterator[Shard]:
    for pair in find_idx_splits(self.path, tuple(splits)):
      yield from cut_into_shards(pair, IMAGES_PER_SHARD)

  def has_at_least(self, count: int) -> bool:
    return sum(pair.count for pair in find_idx_splits(self.path)) >= count


@dataclasses.dataclass(frozen=True, slots=True)
class IdxPair:
  """The images and labels file of one split, with checked headers."""

  split: str
  images_path: str  # gzip if it ends in `.gz`, as may the labels
  labels_path: str
  count: int
  rows: int
  columns: int
  size_bytes: int  # of both files, as stored
  modified_secs: float  # the later of both files


def image_key(split: str, label: object, index: int, extension: str) -> str:
  """Returns a key such as `training/5/17.jpg`; `index`: position in the file."""
  return f"{split}/{label}/{index}.{extension}"


def _names(split: str, dimensions: int) -> list[str]:
  """Returns a file's possible names, preferred first: MNIST's, the article's, gzipped."""
  spellings = [f"{_PREFIXES[split]}-{idx.KINDS[dimensions]}{mark}idx{dimensions}-ubyte" for mark in ("-", ".")]
  return spellings + [f"{name}.gz" for name in spellings]


def find_idx_splits(folder: str, splits: Sequence[str] = (TRAINING, TESTING)) -> list[IdxPair]:
  """Finds the files of each split.

  Raises InputError if one is missing or wrong. Lengths of gzip files are checked later, when they are streamed.
  """
  return [_check_pair(split, _find(folder, split, 3), _find(folder, split, 1)) for split in splits]


def _find(folder: str, split: str, dimensions: int) -> files.FileStat:
  names = _names(split, dimensions)
  for name in names:
    if stat := files.stat(files.join(folder, name)):
      return stat
  raise InputError(f"{folder} has no file of {split} {idx.KINDS[dimensions]}: add one of {', '.join(names)}.")


def _check_pair(split: str, images: files.FileStat, labels: files.FileStat) -> IdxPair:
  headers = []
  for stat, dimensions in ((images, 3), (labels, 1)):
    with _open_decompressed(stat.path) as file:
      headers.append(idx.read_header(file, stat.path, dimensions))
    if not _is_gzip(stat.path):
      idx.check_length(headers[-1], stat.size_bytes, stat.path)
  images_header, labels_header = headers
  idx.check_same_count(images_header, images.path, labels_header, labels.path)
  if not images_header.count:
    raise InputError(f"{images.path}: byte 4: 0 images: there is nothing to read.")
  size_bytes, modified_secs = images.size_bytes + labels.size_bytes, max(images.modified_secs, labels.modified_secs)
  count, rows, columns = images_header.dimensions
  return IdxPair(split, images.path, labels.path, count, rows, columns, size_bytes, modified_secs)


def _is_gzip(path: str) -> bool:
  return path.endswith(".gz")


@contextlib.contextmanager
def _open_decompressed(path: str) -> Iterator[BinaryIO]:
  with files.open_to_read(path) as stored:
    if _is_gzip(path):
      with _GzipReader(stored, path) as file:
        yield cast(BinaryIO, file)
    else:
      yield stored


class _GzipReader(gzip.GzipFile):
  """Reports the file and the byte of damaged data."""

  def __init__(self, stored: BinaryIO, path: str):
    super().__init__(fileobj=stored, mode="rb")
    self._path = path

  def read(self, size: int | None = -1) -> bytes:
    try:
      return super().read(size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
      raise InputError(
        f"{self._path}: byte {self.tell()} after decompression: the gzip data is damaged ({error}): get the file again."
      ) from error


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
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner  # slow to import

    # Another runner may work on after the pipeline is gone, or elsewhere.
    if not isinstance(pipeline.runner, FnApiRunner) or not any(_is_gzip(pair.images_path) for pair in self._pairs):
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
  """Yields the shards of one pair; streams gzip files shard by shard.

  A gzip file's pixels go to the local `scratch_folder`; if empty, the shards carry them.
  """
  of = count_shards(pair, images_per_shard)
  pixels: Iterator[bytes | SpilledBytes | None] = _blocks(pair.images_path, of, images_per_shard)
  if scratch_folder and _is_gzip(pair.images_path):
    pixels = _spill(cast(Iterator[bytes], pixels), os.path.join(scratch_folder, pair.split))
  labels = _blocks(pair.labels_path, of, images_per_shard)
  # Reads both to their ends, which checks that a gzip stream ends where its header says.
  for index, blocks in enumerate(zip(pixels, labels, strict=True)):
    start = index * images_per_shard
    count = min(images_per_shard, pair.count - start)
    where = (pair.images_path, pair.labels_path, start, count, pair.rows, pair.columns)
    yield Shard(pair.split, index, of, (IdxRange(*where, *blocks, pair.modified_secs),))


def _blocks(path: str, number: int, items_per_block: int) -> Iterator[bytes | None]:
  """Yields a gzip file's blocks, or as many None for another file."""
  if not _is_gzip(path):
    yield from itertools.repeat(None, number)
    return
  with _open_decompressed(path) as file:
    header = idx.read_header(file, path)
    for start in range(0, header.count, items_per_block):
      yield idx.read_items(file, header, start, min(items_per_block, header.count - start), path)
    idx.check_end(file, header, path)


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
