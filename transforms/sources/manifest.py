"""A CSV manifest of images: read on a worker, its images looked for in parallel, and planned into shards.

The driver reads the file once, for the labels and the splits; it holds no image's name.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence

import apache_beam as beam

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.csv_table import by_key
from beam_retrain.transforms.core.records.input_manifest import ManifestRow, read_images, summarise
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import VALIDATION
from beam_retrain.transforms.core.records.shards import IMAGES_PER_SHARD, ImageFile
from beam_retrain.transforms.core.records.splits import SplitPercentages, stable_hash, with_validation
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.folders import AssignShards, ListedImage, assign_split

_BUCKET_SALT = b"beam-retrain-manifest-1:"


class ManifestSource:
  """A CSV file with the columns `file_name`, `label` and maybe `split`.

  Attributes:
    labels: sorted.
    has_splits: whether it has a column `split`.
    has_validation: whether it names validation images; then none are drawn from the training ones.
  """

  def __init__(self, path: str, min_classes: int = 2):
    if not files.is_supported(path):
      raise InputError(f"{path} cannot be read here: {_REMEDY}.")
    self.path = path
    self._summary = summarise(read_images(files.read_lines(path), path))
    self.labels = self._summary.labels
    self.has_splits = bool(self._summary.splits)
    self.has_validation = VALIDATION in self._summary.splits
    for line, image in self._summary.schemes.values():
      if not files.is_supported(image):
        raise InputError(f"{path}: line {line}: {image} cannot be read here: {_REMEDY}.")
    if len(self.labels) < min_classes:
      raise InputError(f"{path} names one class only, {self.labels[0]!r}: a classifier needs images of at least two.")

  def plan(self, splits: Sequence[str], percentages: SplitPercentages | None) -> beam.PTransform:
    """See `Source.plan`.

    Raises:
      InputError: the manifest has a column `split` in which one of `splits` never stands.
    """
    for split in splits:
      if self.has_splits and split not in self._summary.splits:
        raise InputError(f"{self.path} names no {split} images: add rows of the split {split}.")
    buckets = -(-self._summary.images // IMAGES_PER_SHARD)
    return _PlanManifest(self.path, with_validation(splits), percentages, buckets)

  def list_images(self) -> Iterator[tuple[str | None, ListedImage]]:
    """Yields every image with its split, if it has one, in the order of the file, without a job."""
    rows = iter(by_key(read_images(files.read_lines(self.path), self.path), self.path).values())
    while block := list(itertools.islice(rows, IMAGES_PER_SHARD)):
      yield from _look_for(block)


_REMEDY = "give another path, or install what Beam needs for it (`pip install 'beam-retrain[aws]'` for s3://)"


def image_stats(path: str) -> Iterator[files.FileStat | None]:
  """Yields what is known of the file of each row of a manifest, in its order, as far as that is there.

  Raises:
    InputError: the manifest cannot be read.
  """
  rows = read_images(files.read_lines(path), path)
  while block := list(itertools.islice(rows, IMAGES_PER_SHARD)):
    yield from files.stat_each([row.path for row in block])


class _PlanManifest(beam.PTransform):
  """PBegin -> PCollection[Shard].

  Rows meet in buckets by their keys, of about a shard's size: there it shows whether a key comes twice, and there their
  files are looked for.
  """

  def __init__(self, path: str, splits: Collection[str], percentages: SplitPercentages | None, buckets: int):
    super().__init__()
    self._path = path
    self._splits = splits
    self._percentages = percentages
    self._buckets = buckets

  def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
    return (
      root
      | "Manifest" >> beam.Create([self._path], reshuffle=False)
      # str
      | "ReadRows" >> beam.FlatMap(_read_rows, self._buckets)
      # (bucket, a row's fields)
      | "MeetByKey" >> beam.GroupByKey()
      | "LookForImages" >> beam.FlatMap(_look_in_bucket, self._path)
      # (split or None, ImageFile or Quarantined)
      | "AssignSplit" >> beam.FlatMap(assign_split, self._splits, self._percentages)
      # (split, ImageFile or Quarantined)
      | "AssignShards" >> AssignShards()
    )  # Shard


def _read_rows(path: str, buckets: int) -> Iterator[tuple[int, ManifestRow]]:
  for row in read_images(files.read_lines(path), path):
    yield stable_hash(row.key, _BUCKET_SALT) % buckets, row


def _look_in_bucket(bucket: tuple[int, Iterable[ManifestRow]], path: str) -> Iterator[tuple[str | None, ListedImage]]:
  yield from _look_for(list(by_key(bucket[1], path).values()))


def _look_for(rows: Sequence[ManifestRow]) -> Iterator[tuple[str | None, ListedImage]]:
  for row, found in zip(rows, files.stat_each([row.path for row in rows]), strict=True):
    if found:
      yield row.split, ImageFile(row.key, row.label, row.path, found.size_bytes, found.modified_secs)
    else:
      detail = f"the manifest lists it, but {row.path} is no file that is there"
      yield row.split, Quarantined(row.key, 0, Reason.UNREADABLE, detail, row.split or "")
