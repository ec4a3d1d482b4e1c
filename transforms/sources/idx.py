"""Finding IDX files and cutting them into shards.

An uncompressed file is cut into ranges that workers read by themselves, in parallel. A gzip file cannot be read from
the middle: it is read once, as a stream, and its blocks carry their bytes; on the local runner, which would keep them
all in memory, they wait in a scratch file. Nothing is worked on pixel by pixel.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import os
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, cast

import apache_beam as beam
import numpy as np

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images import idx
from beam_retrain.transforms.core.records.schema import TESTING, TRAINING
from beam_retrain.transforms.core.records.shards import IMAGES_PER_SHARD, IdxRange, SetAside, Shard
from beam_retrain.transforms.io import files

_PREFIXES = {TRAINING: "train", TESTING: "t10k"}


@dataclasses.dataclass(frozen=True, slots=True)
class IdxPair:
  """One split's images and labels file, both checked as far as that is cheap.

  Attributes:
    split: `training` or `testing`.
    images_path: plain, or gzip where it ends in `.gz`.
    labels_path: likewise.
    count: images in the file, and labels in the other.
    rows: pixels.
    columns: pixels.
    size_bytes: of both files together, as stored.
    modified_secs: of the file that changed last.
  """

  split: str
  images_path: str
  labels_path: str
  count: int
  rows: int
  columns: int
  size_bytes: int
  modified_secs: float


def image_key(split: str, label: object, index: int, extension: str) -> str:
  """For example `training/5/17.jpg`; `index` is the position in the IDX file, as the article's script counts."""
  return f"{split}/{label}/{index}.{extension}"


def looks_like_idx(folder: str) -> bool:
  """Says whether one of the IDX files of MNIST, in any spelling, lies directly in `folder`."""
  return any(
    files.stat(files.join(folder, name)) for split in _PREFIXES for kind in (3, 1) for name in _names(split, kind)
  )


def _names(split: str, dimensions: int) -> list[str]:
  """The spellings of one file, the one that wins first: MNIST's home, then the article's, then each as gzip."""
  kind = {3: "images", 1: "labels"}[dimensions]
  spellings = [f"{_PREFIXES[split]}-{kind}{mark}idx{dimensions}-ubyte" for mark in ("-", ".")]
  return spellings + [f"{name}.gz" for name in spellings]


def find_idx_splits(folder: str, splits: Sequence[str] = (TRAINING, TESTING)) -> list[IdxPair]:
  """Finds the images and labels file of each split in `folder` and checks headers, lengths and counts.

  Only headers are read: a gzip file's length shows when it is streamed, in `PlanIdxShards`.

  Raises:
    InputError: a file is missing or wrong; names it and the byte.
  """
  return [_check_pair(split, _find(folder, split, 3), _find(folder, split, 1)) for split in splits]


def _find(folder: str, split: str, dimensions: int) -> files.FileStat:
  names = _names(split, dimensions)
  for name in names:
    stat = files.stat(files.join(folder, name))
    if stat:
      return stat
  raise InputError(
    f"{folder} has no {'images' if dimensions == 3 else 'labels'} of the {split} split: looked for {', '.join(names)}."
  )


def _check_pair(split: str, images: files.FileStat, labels: files.FileStat) -> IdxPair:
  with _open_decompressed(images.path) as file:
    images_header = idx.read_images_header(file, images.path)
  with _open_decompressed(labels.path) as file:
    labels_header = idx.read_labels_header(file, labels.path)
  for stat, header in ((images, images_header), (labels, labels_header)):
    if not _is_gzip(stat.path):
      idx.check_length(header, stat.size_bytes, stat.path)
  idx.check_same_count(images_header, images.path, labels_header, labels.path)
  if not images_header.count:
    raise InputError(f"{images.path}: byte 4: 0 images: there is nothing to read.")
  count, rows, columns = images_header.dimensions
  return IdxPair(
    split=split,
    images_path=images.path,
    labels_path=labels.path,
    count=count,
    rows=rows,
    columns=columns,
    size_bytes=images.size_bytes + labels.size_bytes,
    modified_secs=max(images.modified_secs, labels.modified_secs),
  )


def _is_gzip(path: str) -> bool:
  return path.endswith(".gz")


@contextlib.contextmanager
def _open_decompressed(path: str) -> Iterator[BinaryIO]:
  with files.open_to_read(path) as stored:
    if not _is_gzip(path):
      yield stored
      return
    with _GzipReader(stored, path) as file:
      yield cast(BinaryIO, file)


class _GzipReader(gzip.GzipFile):
  """Says which file is damaged, and where."""

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
  """PBegin -> PCollection[Shard], each with one `IdxRange`; shard i of a split starts at image i * images_per_shard.

  Attributes:
    pairs: what `find_idx_splits` found.
    images_per_shard: at least 1; the number of shards is the images divided by it, rounded up.
  """

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
    """Returns a folder that is deleted with the pipeline; empty where there is no use for one, or it would not be on
    the workers' machine."""
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner  # takes its time, and its users have it

    if not isinstance(pipeline.runner, FnApiRunner) or not any(_is_gzip(pair.images_path) for pair in self._pairs):
      return ""
    folder = tempfile.mkdtemp(prefix="beam-retrain-")
    weakref.finalize(pipeline, _delete_scratch, folder, os.getpid())
    return folder


def _delete_scratch(folder: str, owner: int) -> None:
  if os.getpid() == owner:  # and not a worker that was forked
    shutil.rmtree(folder, ignore_errors=True)


def count_shards(pair: IdxPair, images_per_shard: int = IMAGES_PER_SHARD) -> int:
  return -(-pair.count // images_per_shard)


def cut_into_shards(pair: IdxPair, images_per_shard: int, scratch_folder: str = "") -> Iterator[Shard]:
  """Yields the shards of one pair; a gzip file is streamed, one shard's bytes at a time.

  Args:
    pair: images and labels.
    images_per_shard: at least 1.
    scratch_folder: local folder for a gzip file's pixels to wait in; empty: they are in the shards.
  """
  of = count_shards(pair, images_per_shard)
  with (
    _blocks(pair.images_path, idx.read_images_header, pair.count, images_per_shard) as pixels,
    _blocks(pair.labels_path, idx.read_labels_header, pair.count, images_per_shard) as labels,
  ):
    waiting: Iterator[bytes | SetAside | None] = pixels
    if scratch_folder and _is_gzip(pair.images_path):
      waiting = _set_aside(cast(Iterator[bytes], pixels), os.path.join(scratch_folder, pair.split))
    for index in range(of):
      start = index * images_per_shard
      idx_range = IdxRange(
        images_path=pair.images_path,
        labels_path=pair.labels_path,
        start=start,
        count=min(images_per_shard, pair.count - start),
        rows=pair.rows,
        columns=pair.columns,
        pixels=next(waiting),
        labels=next(labels),
        modified_secs=pair.modified_secs,
      )
      yield Shard(pair.split, index, of, (idx_range,))
    # Only now is a gzip stream asked whether it ends where its header says.
    next(waiting, None)
    next(labels, None)


@contextlib.contextmanager
def _blocks(
  path: str, read_header: Callable[[BinaryIO, str], idx.IdxHeader], count: int, items_per_block: int
) -> Iterator[Iterator[bytes | None]]:
  """Opens an iterator over the blocks of a gzip file, or over as many None of a file that can be read in ranges."""
  number = -(-count // items_per_block)
  if not _is_gzip(path):
    yield iter([None] * number)
    return
  with _open_decompressed(path) as file:
    yield _stream(file, read_header(file, path), items_per_block, path)


def _set_aside(blocks: Iterator[bytes], path: str) -> Iterator[bytes | SetAside]:
  """Writes blocks to a scratch file, one after the other; what does not fit there any more is given as it is."""
  start = 0
  for block in blocks:
    if _append(path, block, start):
      yield SetAside(path, start, len(block), hashlib.sha256(block).hexdigest())
      start += len(block)
    else:
      yield block


def _append(path: str, block: bytes, start: int) -> bool:
  """Says whether the block is in the file now, from `start` on."""
  try:
    with open(path, "r+b" if start else "wb") as file:
      file.seek(start)
      file.write(block)
  except OSError:
    return False
  return True


def _stream(file: BinaryIO, header: idx.IdxHeader, items_per_block: int, path: str) -> Iterator[bytes]:
  for start in range(0, header.count, items_per_block):
    yield idx.read_items(file, header, start, min(items_per_block, header.count - start), path)
  idx.check_end(file, header, path)


def read_idx_range(idx_range: IdxRange) -> Iterator[tuple[int, int, np.ndarray]]:
  """Yields (index in the IDX file, label byte 0..255, uint8[rows, columns] 0..255) for each image of a range.

  Raises:
    InputError: a file has become shorter since it was checked; names it and the byte.
  """
  images, labels = read_idx_arrays(idx_range)
  for offset in range(idx_range.count):
    yield idx_range.start + offset, labels[offset], images[offset]


def read_idx_arrays(idx_range: IdxRange) -> tuple[np.ndarray, bytes]:
  """Returns a range's images, uint8[count, rows, columns] 0..255, and its label bytes, 0..255 each.

  Raises:
    InputError: as `read_idx_range`.
  """
  start, count = idx_range.start, idx_range.count
  pixels = idx_range.pixels
  if isinstance(pixels, SetAside):
    pixels = pixels.read()
  elif pixels is None:
    item_bytes = idx_range.rows * idx_range.columns
    pixels = _read_at(idx_range.images_path, idx.IMAGES_OFFSET + start * item_bytes, count * item_bytes)
  labels = read_idx_labels(idx_range)
  return np.frombuffer(pixels, np.uint8).reshape(count, idx_range.rows, idx_range.columns), labels


def read_idx_labels(idx_range: IdxRange) -> bytes:
  """Returns the label bytes, 0..255 each, of a range, without reading its pixels."""
  if idx_range.labels is not None:
    return idx_range.labels
  return _read_at(idx_range.labels_path, idx.LABELS_OFFSET + idx_range.start, idx_range.count)


def _read_at(path: str, position: int, size: int) -> bytes:
  with files.open_to_read(path) as file:
    file.seek(position)
    data = file.read(size)
  if len(data) < size:
    raise InputError(f"{path}: byte {position + len(data)}: the file ends here, it was longer when the job began.")
  return data
