"""The base class of sources of labelled images."""

from __future__ import annotations

import abc
import heapq
import itertools
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, ClassVar, NamedTuple

import apache_beam as beam

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import ALL, TESTING, TRAINING, Image
from beam_retrain.transforms.core.records.shards import IMAGES_PER_SHARD, Shard, pick_inputs
from beam_retrain.transforms.core.records.splits import SplitPercentages, stable_hash

if TYPE_CHECKING:
  from beam_retrain.transforms.sources.folders import ClassFolder

_SAMPLE_SALT = b"beam-retrain-sample-1:"


class SourceOptions(NamedTuple):
  """Options of all formats; each uses some."""

  classes: int | None = None  # of IDX files, whose labels are then "0", "1", ...; None: those that are there
  min_classes: int = 2  # 2 for training, 1 for evaluation
  retrain_names: bool = False  # whether class folders are read as by `retrain.py`
  class_names: str | None = None  # path of a file that names the classes of IDX files
  transpose: bool = False  # whether IDX images are transposed, as EMNIST's


class Source(abc.ABC):
  """Labelled images in one format.

  A source plans shards in a job, which moves only keys, paths and offsets, or lists them without a job, for samples and
  checks. In all methods, `percentages` split a source without splits; None puts all its images in `all`.
  """

  name: ClassVar[str]
  path: str
  labels: list[str]  # class index -> label, as far as known without reading images
  has_splits: bool = True
  has_validation: bool = False  # whether it has a validation split of its own, too
  class_folders: Sequence[ClassFolder] = ()  # empty for other formats

  @abc.abstractmethod
  def __init__(self, path: str, options: SourceOptions = SourceOptions()):  # noqa: B008
    """Reads labels and splits, but no images; may raise InputError."""

  @classmethod
  @abc.abstractmethod
  def recognises(cls, path: str) -> bool:
    """Returns whether an existing path has this format."""

  @abc.abstractmethod
  def plan(self, splits: Sequence[str], percentages: SplitPercentages | None) -> beam.PTransform:
    """Returns PBegin -> PCollection[Shard]; raises InputError if a split is missing.

    `splits` are `training`, `testing` or `all`. Validation images are drawn from the training shards later; a source's
    own ones come with `training`, in shards of the split `validation`.
    """

  @abc.abstractmethod
  def list_shards(
    self, splits: Sequence[str], percentages: SplitPercentages | None, max_files: int | None = None
  ) -> Iterator[Shard]:
    """Yields small shards without a job, unlike those of `plan`, in order.

    `max_files` limits the files that are listed, if keys are inside the files; of others, about `SAMPLED_FROM` keys.
    """

  @abc.abstractmethod
  def has_at_least(self, count: int) -> bool:
    """Estimates from names, headers or counts whether there are `count` images."""

  def notes(self) -> Iterator[str]:
    """Yields sentences on what is left out, or taken for one label."""
    return iter(())

  def find_wrapped(self) -> InputError | None:
    """Returns the error if the path only holds the folder to give."""
    return None

  def read_all(self, splits: Sequence[str], percentages: SplitPercentages | None) -> Iterator[Image | Quarantined]:
    """Yields every image of some splits, without a job."""
    for shard in self.list_shards(splits, percentages):
      yield from shard.read_images(self.labels)

  def read_sample(
    self, splits: Sequence[str], percentages: SplitPercentages | None, count: int, max_files: int | None = None
  ) -> Iterator[Image | Quarantined]:
    """Yields the `count` images with the smallest salted hashes of their keys.

    Reads only the keys of the others. With `max_files` (see `list_shards`) there are fewer others: of record files
    some, of IDX files some parts, of class folders and manifests the first that are listed.
    """
    for shard in self._sample_shards(splits, percentages, count, max_files):
      yield from shard.read_images(self.labels)

  def read_keys(self, keys: Collection[str]) -> Iterator[Image | Quarantined]:
    """Yields the images with some keys; reads nothing else of others."""
    for shard in self.list_shards((TRAINING, TESTING) if self.has_splits else (ALL,), None):
      for entry in shard.inputs:
        yield from entry.read_where(shard.split, keys.__contains__)

  def typical_shard(self, splits: Sequence[str], percentages: SplitPercentages | None, count: int) -> tuple[Shard, int]:
    """Returns a shard for measurements and its image count, at most `IMAGES_PER_SHARD`.

    This is the first shard, as images in one file are much alike. Sources of image files repeat a sample of `count`.
    Raises InputError if there is no image.
    """
    for shard in self.list_shards(splits, percentages):
      images = min(sum(1 for _ in shard.names()), IMAGES_PER_SHARD)
      return shard._replace(inputs=pick_inputs(shard.inputs, range(images))), images
    raise self.no_images(splits)

  def no_images(self, splits: Sequence[str]) -> InputError:
    return InputError(f"{self.path} has no images in the splits {', '.join(splits)}.")

  def _sample_shards(
    self, splits: Sequence[str], percentages: SplitPercentages | None, count: int, max_files: int | None
  ) -> Iterator[Shard]:
    hashed = (
      (sample_hash(key), number, position)
      for number, shard in enumerate(self.list_shards(splits, percentages, max_files))
      for position, (key, _) in enumerate(shard.names())
    )
    positions: dict[int, list[int]] = defaultdict(list)
    for _, number, position in heapq.nsmallest(count, hashed):
      positions[number].append(position)
    # Lists again instead of holding shards, which contain pixels if from a gzip file.
    for number, shard in enumerate(self.list_shards(splits, percentages, max_files)):
      if number in positions:
        yield shard._replace(inputs=pick_inputs(shard.inputs, sorted(positions[number])))


def sample_hash(name: str) -> int:
  """Returns the hash by which images and files are sampled."""
  return stable_hash(name, _SAMPLE_SALT)


def check_classes(path: str, labels: Collection[str], min_classes: int) -> None:
  """Raises InputError if there are too few classes."""
  if len(labels) < min_classes:
    if not labels:
      raise InputError(f"{path} has no images with a label: give some of each class.")
    raise InputError(f"{path} has only one class, {next(iter(labels))!r}: a classifier needs at least two.")


def has_items(items: Iterable[object], count: int) -> bool:
  """Returns whether there are at least `count` items."""
  return sum(1 for _ in itertools.islice(items, count)) == count


def read_range(file: BinaryIO, path: str, start: int, size: int) -> bytes:
  """Reads bytes of a planned file; InputError if it ends earlier."""
  file.seek(start)
  data = file.read(size)
  if len(data) < size:
    end = file.seek(0, os.SEEK_END)
    raise InputError(f"{path}: byte {end}: the file ends here: it was truncated while the job ran.")
  return data
