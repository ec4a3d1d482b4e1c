"""WebDataset: tar files of images and labels, as img2dataset writes them.

What a sample is, `io/tars.py` says. Class indices come first in the label list, sorted as numbers, so that label i is
class i if all of 0..N-1 occur; names follow, sorted. The driver reads all headers once for the labels; workers read
them again, and images by offset.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import apache_beam as beam

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.labels import merged
from beam_retrain.transforms.core.records.quarantine import MAX_FILE_BYTES, Quarantined
from beam_retrain.transforms.core.records.schema import Image
from beam_retrain.transforms.core.records.shards import (
  IMAGES_PER_SHARD,
  Input,
  Shard,
  pack,
  read_picked,
  reduce_packed,
  unpack,
)
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.system.listing import is_named_as_image, is_tar, left_out
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.tars import Entry, LabelTexts, Tar, TarMember, find_tars, index_tar
from beam_retrain.transforms.sources.base import (
  Source,
  SourceOptions,
  check_classes,
  has_items,
  read_range,
  sample_hash,
)
from beam_retrain.transforms.sources.image_files import split_by_hash


class TarImages(NamedTuple):
  """Some images of a tar file, in its order."""

  key: str
  path: str
  size_bytes: int
  modified_secs: float
  members: tuple[TarMember, ...]

  def __reduce__(self) -> Any:
    return reduce_packed(self)

  def count_images(self) -> int:
    return len(self.members)

  def names(self, split: str) -> Iterator[tuple[str, str | None]]:
    for member in self.members:
      yield f"{self.key}/{member.name}", member.label

  def read(self, split: str) -> Iterator[Image | Quarantined]:
    with files.open_to_read(self.path) as file:
      for member in self.members:
        key = f"{self.key}/{member.name}"
        if member.size_bytes > MAX_FILE_BYTES:
          yield Quarantined.too_large(key, member.size_bytes, split)
        else:
          yield Image(key, member.label, read_range(file, self.path, member.start, member.size_bytes))

  def read_where(self, split: str, is_wanted: Callable[[str], bool]) -> Iterator[Image | Quarantined]:
    return read_picked(self, split, is_wanted)

  def pick(self, numbers: Sequence[int]) -> Iterator[Input]:
    yield self._replace(members=tuple(self.members[number] for number in numbers))


class WebDatasetSource(Source):
  """A WebDataset tar, or a folder of them."""

  name = "WebDataset tars"

  def __init__(self, path: str, options: SourceOptions = SourceOptions()):  # noqa: B008
    self.path = path
    self._tars = find_tars(path)
    self.has_splits = self._tars[0].split is not None
    self._texts = LabelTexts(set(), set())
    entries = itertools.chain.from_iterable(index_tar(tar, self._texts) for tar in self._tars)
    keys, labels, faults = {tar.key for tar in self._tars}, set(), []
    for entry in entries:
      if isinstance(entry, TarMember):
        labels.add(entry.label)
      elif entry.key in keys:
        faults.append(entry)
    self.labels = sorted(labels, key=_label_order)
    if faults and len(labels) < options.min_classes:
      raise InputError(f"{path}: {faults[0].key}: {faults[0].detail}, and too few labels are left: get the tar again.")
    check_classes(path, self.labels, options.min_classes)

  @classmethod
  def recognises(cls, path: str) -> bool:
    return bool(find_tars(path))

  def plan(self, splits: Sequence[str], percentages: SplitPercentages | None) -> beam.PTransform:
    for split in splits:
      if self.has_splits and not any(tar.split == split for tar in self._tars):
        raise InputError(f"{self.path} has no folder {split} with tars: put the tars of {split} images there.")
    return PlanTars(self._tars, splits, percentages)

  def list_shards(
    self, splits: Sequence[str], percentages: SplitPercentages | None, max_files: int | None = None
  ) -> Iterator[Shard]:
    tars = self._tars
    if max_files is not None:
      wanted = [tar for tar in tars if tar.split is None or tar.split in splits]
      tars = sorted(heapq.nsmallest(max_files, wanted, key=lambda tar: sample_hash(tar.key)))
    for tar in tars:
      for split, entries in index_by_split(tar, splits, percentages):
        for _, inputs in cut_into_inputs(tar, entries):
          yield Shard(split, 0, 1, inputs)

  def has_at_least(self, count: int) -> bool:
    return has_items(itertools.chain.from_iterable(map(index_tar, self._tars)), count)

  def notes(self) -> Iterator[str]:
    yield from merged(self._texts.names)
    padded = sorted(text for text in self._texts.numbers if text != str(int(text)))
    if padded:
      yield (
        f"numbers in .cls files are class indices: of {padded[0]!r} the label is {str(int(padded[0]))!r}"
        f" ({len(padded):,} such)"
      )
    beside = [] if is_tar(self.path) else [name for name in files.files_in(self.path) if is_named_as_image(name)]
    if line := left_out({"images beside the tars": beside}, ()):
      yield line


def _label_order(label: str) -> tuple[bool, int, str]:
  return (False, int(label), label) if label.isdecimal() else (True, 0, label)


@dataclasses.dataclass(eq=False, repr=False)
class PlanTars(beam.PTransform):
  """PBegin -> PCollection[Shard], full ones of neighbours in the sorted tars."""

  tars: Sequence[Tar]
  splits: Sequence[str]
  percentages: SplitPercentages | None
  images_per_shard: int = IMAGES_PER_SHARD

  def __post_init__(self) -> None:
    super().__init__()

  def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
    indexed = (
      root
      | "CreateTars" >> beam.Create(self.tars)
      | "SpreadTars" >> beam.Reshuffle()
      # Tar
      | "IndexTar" >> beam.FlatMap(_pack_index, tuple(self.splits), self.percentages)
    )  # (split, Tar, count, packed entries)
    starts = (
      indexed
      | "CountEntries" >> beam.MapTuple(lambda split, tar, count, _: (split, (tar.key, count)))
      | "GroupCounts" >> beam.GroupByKey()
      | "PlaceTars" >> beam.MapTuple(_place_tars)
    )  # (split, tar's key -> number of its first image)
    return (
      indexed
      | "CutTar" >> beam.FlatMap(_cut_tar, starts=beam.pvalue.AsDict(starts), size=self.images_per_shard)
      # ((split, index, of), (number of the first image, inputs))
      | "GroupShards" >> beam.GroupByKey()
      | "MakeShard" >> beam.MapTuple(_make_shard)
    )  # Shard


_END = ""  # the key of a split's total; no tar has it


def _place_tars(split: str, counts: Iterable[tuple[str, int]]) -> tuple[str, dict[str, int]]:
  starts, total = {}, 0
  for key, count in sorted(counts):
    starts[key] = total
    total += count
  return split, {**starts, _END: total}


def _pack_index(
  tar: Tar, splits: Sequence[str], percentages: SplitPercentages | None
) -> Iterator[tuple[str, Tar, int, bytes]]:
  for split, entries in index_by_split(tar, splits, percentages):
    yield split, tar, len(entries), pack(entries)


def _cut_tar(
  indexed: tuple[str, Tar, int, bytes], starts: Mapping[str, Mapping[str, int]], size: int
) -> Iterator[tuple[tuple[str, int, int], tuple[int, tuple[Input, ...]]]]:
  split, tar, _, packed = indexed
  of = -(-starts[split][_END] // size)
  for first, inputs in cut_into_inputs(tar, unpack(packed), starts[split][tar.key], size):
    yield (split, first // size, of), (first, inputs)


def _make_shard(name: tuple[str, int, int], parts: Iterable[tuple[int, tuple[Input, ...]]]) -> Shard:
  ordered = sorted(parts, key=lambda part: part[0])
  return Shard(*name, inputs=tuple(itertools.chain.from_iterable(inputs for _, inputs in ordered)))


def cut_into_inputs(
  tar: Tar, entries: Sequence[Entry], start: int = 0, size: int = IMAGES_PER_SHARD
) -> Iterator[tuple[int, tuple[Input, ...]]]:
  """Yields (number of the first image, inputs), cut at multiples of `size`.

  `entries` are of one split, in which the first one has the number `start`.
  """
  first = start
  while first < start + len(entries):
    end = (first // size + 1) * size
    yield first, tuple(_to_inputs(tar, entries[first - start : end - start]))
    first = end


def _to_inputs(tar: Tar, entries: Iterable[Entry]) -> Iterator[Input]:
  for are_images, run in itertools.groupby(entries, lambda entry: isinstance(entry, TarMember)):
    if are_images:
      yield TarImages(*tar[1:], cast(tuple[TarMember, ...], tuple(run)))
    else:
      yield from cast(Iterator[Quarantined], run)


def index_by_split(
  tar: Tar, splits: Sequence[str], percentages: SplitPercentages | None
) -> Iterator[tuple[str, list[Entry]]]:
  """Yields (split, its images in a tar) for splits with images."""
  by_split: dict[str, list[Entry]] = {}
  for entry in index_tar(tar) if tar.split is None or tar.split in splits else ():
    key = entry.key if isinstance(entry, Quarantined) else f"{tar.key}/{entry.name}"
    by_split.setdefault(tar.split or split_by_hash(key, percentages), []).append(entry)
  yield from ((split, by_split[split]) for split in splits if split in by_split)
