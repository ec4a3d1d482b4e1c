"""Image files, assigned to shards by a stable hash of the key."""

from __future__ import annotations

import abc
import dataclasses
import heapq
import itertools
import math
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

from beam_retrain.transforms.core.records.quarantine import MAX_FILE_BYTES, Quarantined, Reason
from beam_retrain.transforms.core.records.schema import ALL, TRAINING, VALIDATION, Image
from beam_retrain.transforms.core.records.shards import IMAGES_PER_SHARD, SAMPLED_FROM, Input, Shard, pack, unpack
from beam_retrain.transforms.core.records.splits import SplitPercentages, stable_hash, with_validation
from beam_retrain.transforms.core.system.prefetch import batched
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.base import Source, sample_hash
from beam_retrain.transforms.sources.converted import find_change

_SHARD_SALT = b"beam-retrain-shard-1:"
IMAGES_PER_BLOCK = 50_000
"""Names that a step packs into one element."""


class ImageFile(NamedTuple):
  """An image file; `path` is empty if it is not UTF-8."""

  key: str
  label: str
  path: str
  size_bytes: int
  modified_secs: float

  def count_images(self) -> int:
    return 1

  def names(self, split: str) -> Iterator[tuple[str, str | None]]:
    yield self.key, self.label

  def read(self, split: str) -> Iterator[Image | Quarantined]:
    if self.size_bytes > MAX_FILE_BYTES:
      yield Quarantined.too_large(self.key, self.size_bytes, split)
    elif not self.path:
      yield self._unreadable("its name is not UTF-8: rename it", split)
    else:
      yield self._open(split)

  def read_where(self, split: str, is_wanted: Callable[[str], bool]) -> Iterator[Image | Quarantined]:
    return self.read(split) if is_wanted(self.key) else iter(())

  def pick(self, numbers: Sequence[int]) -> Iterator[Input]:
    yield self

  def _open(self, split: str) -> Image | Quarantined:
    try:
      # Opening a pipe would block, and reading a device may never end.
      if files.is_local(self.path) and not stat.S_ISREG(os.stat(self.path).st_mode):
        return self._unreadable("is not a regular file", split)
      encoded = files.read_bytes(self.path)
      if change := find_change(self.path, self.key, encoded):
        return self._unreadable(change, split)
      return Image(self.key, self.label, encoded)
    except OSError as error:
      return self._unreadable(error.strerror or "cannot be opened", split)

  def _unreadable(self, detail: str, split: str) -> Quarantined:
    return Quarantined(self.key, self.size_bytes, Reason.UNREADABLE, detail, split)


ListedImage = ImageFile | Quarantined
"""`Quarantined` for a missing file."""


class ImageFilesSource(Source):
  """A source of image files."""

  @abc.abstractmethod
  def list_images(self) -> Iterator[tuple[str | None, ListedImage]]:
    """Yields (the source's own split or None, image) without a job."""

  @abc.abstractmethod
  def list_names(self, most: int | None) -> Iterator[tuple[str | None, str, Any]]:
    """Yields (own split or None, key, what `open_name` takes).

    They are about `most` at most, from all folders.
    """

  @abc.abstractmethod
  def open_name(self, name: Any) -> ListedImage | None:
    """Returns the image of a listed name; None if it has gone."""

  def list_shards(
    self, splits: Sequence[str], percentages: SplitPercentages | None, max_files: int | None = None
  ) -> Iterator[Shard]:
    listed = sorted(self._assigned(splits, percentages), key=_by_split_and_key)
    for block in batched(listed, IMAGES_PER_SHARD):
      for split, group in itertools.groupby(block, lambda entry: entry[0]):
        yield Shard(split, 0, 1, tuple(image for _, image in group))

  def typical_shard(self, splits: Sequence[str], percentages: SplitPercentages | None, count: int) -> tuple[Shard, int]:
    sample = [entry for shard in self._sample_shards(splits, percentages, count) for entry in shard.inputs]
    inputs = tuple(itertools.islice(itertools.cycle(sample), IMAGES_PER_SHARD))
    if not inputs:
      raise self.no_images(splits)
    return Shard(splits[0], 0, 1, inputs), len(inputs)

  def _sample_shards(
    self, splits: Sequence[str], percentages: SplitPercentages | None, count: int, max_files: int | None = None
  ) -> Iterator[Shard]:
    # Holds only the sample, and opens nothing else.
    most, wanted = None if max_files is None else SAMPLED_FROM, with_validation(splits)
    named = (
      (sample_hash(key), key, split, name)
      for own_split, key, name in self.list_names(most)
      if (split := own_split or split_by_hash(key, percentages)) in wanted
    )
    sampled = heapq.nsmallest(count, named, key=lambda entry: entry[:2])
    for _, _, split, name in sorted(sampled, key=lambda entry: (entry[2], entry[1])):
      if image := self.open_name(name):
        yield Shard(split, 0, 1, (image,))

  def _assigned(self, splits: Sequence[str], percentages: SplitPercentages | None) -> Iterator[tuple[str, ListedImage]]:
    return assign_splits(self.list_images(), with_validation(splits), percentages)


def _by_split_and_key(assigned: tuple[str, ListedImage]) -> tuple[str, str]:
  split, image = assigned
  return split, image.key


def assign_splits(
  listed: Iterable[tuple[str | None, ListedImage]], splits: Collection[str], percentages: SplitPercentages | None
) -> Iterator[tuple[str, ListedImage]]:
  """Yields (split of the shard, image) of those to plan."""
  for own_split, image in listed:
    split = own_split or split_by_hash(image.key, percentages)
    if split in splits:
      yield split, image


def split_by_hash(key: str, percentages: SplitPercentages | None) -> str:
  """Returns the split of an image's shard in a source without splits."""
  split = percentages.split_of(key) if percentages else ALL
  # Training later draws the validation images from the training records by the same hash.
  return TRAINING if split == VALIDATION else split


@dataclasses.dataclass(eq=False, repr=False)
class AssignShards(beam.PTransform):
  """Lists images and assigns them to shards by key.

  PCollection[what `list_images` takes] -> PCollection[Shard]. Only names are shuffled, and in blocks: an image is no
  element of its own, which would cost more than to list it.
  """

  # From an element to (the source's own split or None, image) of each image in it
  list_images: Callable[[Any], Iterable[tuple[str | None, ListedImage]]]
  splits: Collection[str]  # see `assign_splits`
  percentages: SplitPercentages | None
  images_per_shard: int = IMAGES_PER_SHARD  # an average

  def __post_init__(self) -> None:
    super().__init__()

  def expand(self, places: beam.PCollection) -> beam.PCollection:
    pack_images = _PackImages(self.list_images, frozenset(self.splits), self.percentages)
    blocks = places | "PackImages" >> beam.ParDo(pack_images)  # (split, count, packed images)
    totals = (
      blocks
      | "CountImages" >> beam.MapTuple(lambda split, count, _: (split, count))
      # (split, int)
      | "SumImages" >> beam.CombinePerKey(sum)
    )
    return (
      blocks
      | "AssignShard" >> beam.FlatMap(_assign_shards, totals=beam.pvalue.AsDict(totals), size=self.images_per_shard)
      # ((split, index, of), packed images)
      | "GroupShards" >> beam.GroupByKey()
      | "MakeShard" >> beam.MapTuple(_make_shard)
    )  # Shard


@dataclasses.dataclass(eq=False)
class _PackImages(beam.DoFn):
  """What `list_images` takes -> (split, count, packed images)."""

  list_images: Callable[[Any], Iterable[tuple[str | None, ListedImage]]]
  splits: frozenset[str]
  percentages: SplitPercentages | None

  def start_bundle(self) -> None:
    self._waiting: dict[str, list[ListedImage]] = defaultdict(list)

  def process(self, place: Any) -> Iterator[tuple[str, int, bytes]]:
    for split, image in assign_splits(self.list_images(place), self.splits, self.percentages):
      waiting = self._waiting[split]
      waiting.append(image)
      if len(waiting) >= IMAGES_PER_BLOCK:
        del self._waiting[split]
        yield split, len(waiting), pack(waiting)

  def finish_bundle(self) -> Iterator[WindowedValue]:
    for split, waiting in self._waiting.items():
      yield GlobalWindows.windowed_value((split, len(waiting), pack(waiting)))
    self._waiting = {}


def _assign_shards(
  block: tuple[str, int, bytes], totals: Mapping[str, int], size: int
) -> Iterator[tuple[tuple[str, int, int], bytes]]:
  split, _, packed = block
  of = math.ceil(totals[split] / size)
  shards: dict[int, list[ListedImage]] = defaultdict(list)
  for image in unpack(packed):
    shards[stable_hash(image.key, _SHARD_SALT) % of].append(image)
  for index, images in shards.items():
    yield (split, index, of), pack(images)


def _make_shard(name: tuple[str, int, int], packed: Iterable[bytes]) -> Shard:
  images: Iterator[ListedImage] = itertools.chain.from_iterable(map(unpack, packed))
  ordered = sorted(images, key=lambda image: image.key)
  return Shard(*name, inputs=tuple(ordered))
