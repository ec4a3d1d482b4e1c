"""A CSV manifest of images.

The driver reads it once for labels and splits; workers plan the shards.
"""

from __future__ import annotations

import functools
import itertools
import os
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

import apache_beam as beam

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.labels import merged
from beam_retrain.transforms.core.records.csv_format import by_key
from beam_retrain.transforms.core.records.input_manifest import ManifestRow, read_images, summarise
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import ALL, VALIDATION, Image
from beam_retrain.transforms.core.records.shards import IMAGES_PER_SHARD, pack, unpack
from beam_retrain.transforms.core.records.splits import SplitPercentages, stable_hash, with_validation
from beam_retrain.transforms.core.system.listing import is_archive
from beam_retrain.transforms.core.system.prefetch import batched
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.base import SourceOptions, check_classes, has_items
from beam_retrain.transforms.sources.image_files import (
  IMAGES_PER_BLOCK,
  AssignShards,
  ImageFile,
  ImageFilesSource,
  ListedImage,
)

_BUCKET_SALT = b"beam-retrain-manifest-1:"
_MOST_BUCKETS = 1024  # so that a block's rows for one of them are worth an element


class ManifestSource(ImageFilesSource):
  """A CSV file with columns `file_name`, `label` and optionally `split`."""

  name = "a CSV manifest"

  def __init__(self, path: str, options: SourceOptions = SourceOptions()):  # noqa: B008
    files.check_supported(path)
    self.path = path
    self._summary = summarise(read_images(files.read_lines(path), path))
    self.labels = self._summary.labels
    self.has_splits = bool(self._summary.splits)
    self.has_validation = VALIDATION in self._summary.splits
    for line, image in self._summary.schemes.values():
      files.check_supported(image, f"{path}: line {line}: ")
    check_classes(path, self.labels, options.min_classes)

  @classmethod
  def recognises(cls, path: str) -> bool:
    """Accepts local files except archives, and remote ones ending in `.csv`."""
    if files.is_local(path):
      return os.path.isfile(path) and not is_archive(path)
    return path.lower().endswith(".csv")

  def plan(self, splits: Sequence[str], percentages: SplitPercentages | None) -> beam.PTransform:
    for split in splits:
      if self.has_splits and split not in self._summary.splits:
        raise InputError(f"{self.path} has no {split} images: add rows with the split {split}.")
    buckets = min(_MOST_BUCKETS, -(-self._summary.images // IMAGES_PER_SHARD))
    # Rows are grouped by key into buckets of at least a shard's size, to find repeated keys and check the files.
    return (
      "Manifest" >> beam.Create([self.path], reshuffle=False)
      # str
      | "ReadRows" >> beam.FlatMap(_read_rows, buckets)
      # (bucket, packed rows)
      | "GroupByKey" >> beam.GroupByKey()
      | "AssignShards" >> AssignShards(functools.partial(_stat_bucket, self.path), with_validation(splits), percentages)
    )

  def list_images(self) -> Iterator[tuple[str | None, ListedImage]]:
    rows = by_key(read_images(files.read_lines(self.path), self.path), self.path).values()
    for block in batched(rows, IMAGES_PER_SHARD):
      yield from _stat_rows(block)

  def list_names(self, most: int | None) -> Iterator[tuple[str | None, str, ManifestRow]]:
    # Every so many of all rows: a manifest may be sorted by label.
    step = -(-self._summary.images // most) if most else 1
    rows = itertools.islice(read_images(files.read_lines(self.path), self.path), 0, None, step)
    for key, row in by_key(rows, self.path).items():
      yield row.split, key, row

  def open_name(self, name: ManifestRow) -> ListedImage:
    ((_, image),) = _stat_rows([name])
    return image

  def read_keys(self, keys: Collection[str]) -> Iterator[Image | Quarantined]:
    for row in read_images(files.read_lines(self.path), self.path):
      if row.key in keys:
        for split, image in _stat_rows([row]):
          yield from image.read_where(split or ALL, keys.__contains__)

  def has_at_least(self, count: int) -> bool:
    return has_items(files.read_lines(self.path), count)

  def notes(self) -> Iterator[str]:
    yield from merged(self._summary.cells)


def image_stats(path: str) -> Iterator[files.FileStat | None]:
  """Yields the status of each row's file, in order; None if missing."""
  for block in batched(read_images(files.read_lines(path), path), IMAGES_PER_SHARD):
    yield from _stat_each([row.path for row in block])


def _stat_each(paths: Sequence[str]) -> Iterator[files.FileStat | None]:
  """Yields each status of a file, whose name may be spelled otherwise.

  A copy from macOS may have decomposed letters, where an editor writes composed ones.
  """
  for path, status in zip(paths, files.stat_each(paths), strict=True):
    spellings = [] if status or path.isascii() else [unicodedata.normalize(form, path) for form in ("NFC", "NFD")]
    yield status or next(filter(None, map(files.stat, spellings)), None)


def _read_rows(path: str, buckets: int) -> Iterator[tuple[int, bytes]]:
  for block in batched(read_images(files.read_lines(path), path), IMAGES_PER_BLOCK):
    of_bucket: dict[int, list[ManifestRow]] = defaultdict(list)
    for row in block:
      of_bucket[stable_hash(row.key, _BUCKET_SALT) % buckets].append(row)
    for bucket, rows in of_bucket.items():
      yield bucket, pack(rows)


def _stat_bucket(path: str, bucket: tuple[int, Iterable[bytes]]) -> Iterator[tuple[str | None, ListedImage]]:
  rows: Iterator[ManifestRow] = itertools.chain.from_iterable(map(unpack, bucket[1]))
  return _stat_rows(list(by_key(rows, path).values()))


def _stat_rows(rows: Sequence[ManifestRow]) -> Iterator[tuple[str | None, ListedImage]]:
  for row, status in zip(rows, _stat_each([row.path for row in rows]), strict=True):
    if status:
      yield row.split, ImageFile(row.key, row.label, *status)
    else:
      detail = f"the manifest lists it, but {row.path} is no file that is there"
      yield row.split, Quarantined(row.key, 0, Reason.UNREADABLE, detail, row.split or "")
