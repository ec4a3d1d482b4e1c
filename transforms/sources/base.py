"""What every source of labelled images has in common."""

from __future__ import annotations

import abc
import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import apache_beam as beam

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import Image
from beam_retrain.transforms.core.records.shards import IMAGES_PER_SHARD, Shard, pick_inputs
from beam_retrain.transforms.core.records.splits import SplitPercentages, stable_hash

if TYPE_CHECKING:
  from beam_retrain.transforms.sources.folders import ClassFolder

_SAMPLE_SALT = b"beam-retrain-sample-1:"


class SourceOptions(NamedTuple):
  """Options of the formats; each takes what concerns it.

  Attributes:
    classes: number of classes of an IDX folder, whose labels are "0", "1", ...
    min_classes: least number of classes; 1 for images to try a model on, not to train one with.
    retrain_names: whether class folders are read as `retrain.py` did.
  """

  classes: int = 10
  min_classes: int = 2
  retrain_names: bool = False


class Source(abc.ABC):
  """Labelled images in one format.

  A source knows its labels, plans its inputs into shards in a job, moving only keys, paths and offsets, and lists them
  without a job for samples and checks.

  Attributes:
    form: the format, as an error message lists it.
    path: what the user gave.
    labels: class index -> label, as far as known without reading images.
    has_splits: whether the source itself says what is for training and what for testing.
    has_validation: whether it names validation images, too.
    class_folders: the class folders whose files are the images; empty for other formats.
  """

  form: ClassVar[str]
  path: str
  labels: list[str]
  has_splits: bool = True
  has_validation: bool = False
  class_folders: Sequence[ClassFolder] = ()

  @abc.abstractmethod
  def __init__(self, path: str, options: SourceOptions = SourceOptions()):  # noqa: B008
    """Reads what is known before any image.

    Raises:
      InputError: `path` is incomplete, damaged, or holds nothing that can be used.
    """

  @classmethod
  @abc.abstractmethod
  def recognises(cls, path: str) -> bool:
    """Returns whether `path`, which exists, has this format."""

  @abc.abstractmethod
  def plan(self, splits: Sequence[str], percentages: SplitPercentages | None) -> beam.PTransform:
    """Returns PBegin -> PCollection[Shard].

    Args:
      splits: those to plan, of `training`, `testing`, or `all`. Validation images are drawn from the training shards;
        those that the source names itself come with `training`, in shards of the split `validation`.
      percentages: how to split a source without splits; None puts all images in `all`.

    Raises:
      InputError: the source lacks one of the splits.
    """

  @abc.abstractmethod
  def list_shards(
    self, splits: Sequence[str], percentages: SplitPercentages | None, max_files: int | None = None
  ) -> Iterator[Shard]:
    """Yields small shards without a job, in the data's order; a job plans others. See `plan`.

    Args:
      splits: see `plan`.
      percentages: see `plan`.
      max_files: largest number of files to list, where files have to be read whole for their keys; None for all.
    """

  @abc.abstractmethod
  def has_at_least(self, count: int) -> bool:
    """Returns whether there are about so many images, reading only names, headers or stored counts."""

  def count_left_out(self) -> int:
    """Returns the number of files that are no images by their names, where names decide."""
    return 0

  def read_all(self, splits: Sequence[str], percentages: SplitPercentages | None) -> Iterator[Image | Quarantined]:
    """Yields every image of some splits without a job, one at a time in memory (an IDX range at once)."""
    for shard in self.list_shards(splits, percentages):
      yield from shard.read_images(self.labels)

  def read_sample(
    self, splits: Sequence[str], percentages: SplitPercentages | None, count: int, max_files: int | None = None
  ) -> Iterator[Image | Quarantined]:
    """Yields the `count` images with the smallest salted hashes of their keys.

    The same data give the same sample. Only keys are read of the other images.

    Args:
      splits: see `plan`.
      percentages: see `plan`.
      count: at least 1.
      max_files: see `list_shards`; the files with the smallest salted hashes of their names are read.
    """
    for shard in self._sample_shards(splits, percentages, count, max_files):
      yield from shard.read_images(self.labels)

  def typical_shard(self, splits: Sequence[str], percentages: SplitPercentages | None, count: int) -> tuple[Shard, int]:
    """Returns a shard like a job's and its number of images, at most `IMAGES_PER_SHARD`, for measurements.

    Images in one file are much alike: their source gives its first shard. A source of image files repeats the `count`
    images of a sample.

    Raises:
      InputError: the splits have no image.
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
    # Listed again, so that no shard is held: one of a gzip file holds pixels.
    for number, shard in enumerate(self.list_shards(splits, percentages, max_files)):
      if number in positions:
        yield shard._replace(inputs=pick_inputs(shard.inputs, sorted(positions[number])))


def sample_hash(name: str) -> int:
  """Returns the number by which images and files are drawn for samples."""
  return stable_hash(name, _SAMPLE_SALT)
