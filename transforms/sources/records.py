"""Image or bottleneck records in TFRecord files, one shard per file."""

from __future__ import annotations

import contextlib
import heapq
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import apache_beam as beam

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.labels import normalise
from beam_retrain.transforms.core.records.example import decode_example
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import (
  ALL,
  ENCODED,
  KEY,
  LABEL,
  RECORDS_FOLDER,
  REPORTS_FOLDER,
  Image,
  decode_image,
  parse_shard_name,
)
from beam_retrain.transforms.core.records.shards import Input, Shard, ShardReport, read_picked
from beam_retrain.transforms.core.records.splits import SplitPercentages, with_validation
from beam_retrain.transforms.core.records.tfrecord import pick_records, read_records
from beam_retrain.transforms.core.run.output_folder import find_info, read_info, read_labels
from beam_retrain.transforms.core.run.stats import read_stats
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.base import Source, SourceOptions, sample_hash
from beam_retrain.transforms.sources.image_files import split_by_hash


class RecordsFile(NamedTuple):
  """A file of image or bottleneck records."""

  path: str
  size_bytes: int
  modified_secs: float

  def count_images(self) -> int | None:
    """Returns the count from a local file's report, or None."""
    folder, name = files.split(self.path)
    if files.is_local(self.path):
      with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        report = files.read_bytes(files.join(folder, REPORTS_FOLDER, f"{name}.json")).decode()
        return ShardReport.from_json(report).outputs
    return None

  def names(self, split: str) -> Iterator[tuple[str, str | None]]:
    return _read_names(self.path)

  def read(self, split: str) -> Iterator[Image]:
    return _read_images(self.path)

  def read_where(self, split: str, is_wanted: Callable[[str], bool]) -> Iterator[Image]:
    for record in _read(self.path):
      features = decode_example(record, (KEY, ENCODED))
      if ENCODED not in features:
        return  # bottlenecks
      if is_wanted(features[KEY][0].decode()):
        yield decode_image(record)

  def pick(self, numbers: Sequence[int]) -> Iterator[Input]:
    yield PickedRecords(*self, tuple(numbers))


class PickedRecords(NamedTuple):
  """Some image records of a file; `numbers` count from 0, ascending."""

  path: str
  size_bytes: int
  modified_secs: float
  numbers: tuple[int, ...]

  def count_images(self) -> int:
    return len(self.numbers)

  def names(self, split: str) -> Iterator[tuple[str, str | None]]:
    return _read_names(self.path, self.numbers)

  def read(self, split: str) -> Iterator[Image]:
    return _read_images(self.path, self.numbers)

  def read_where(self, split: str, is_wanted: Callable[[str], bool]) -> Iterator[Image | Quarantined]:
    return read_picked(self, split, is_wanted)

  def pick(self, numbers: Sequence[int]) -> Iterator[Input]:
    yield self._replace(numbers=tuple(self.numbers[number] for number in numbers))


def _read_images(path: str, numbers: Sequence[int] | None = None) -> Iterator[Image]:
  for record in _read(path, numbers):
    try:
      yield decode_image(record)
    except KeyError as error:
      raise _incomplete(path, error) from error


def _read_names(path: str, numbers: Sequence[int] | None = None) -> Iterator[tuple[str, str]]:
  for record in _read(path, numbers):
    features = decode_example(record, (KEY, LABEL))
    try:
      yield features[KEY][0].decode(), normalise(features[LABEL][0].decode())
    except KeyError as error:
      raise _incomplete(path, error) from error


def _read(path: str, numbers: Sequence[int] | None = None) -> Iterator[bytes]:
  with files.open_to_read(path) as file:
    yield from read_records(file, path) if numbers is None else pick_records(file, numbers, path)


def _incomplete(path: str, missing: KeyError) -> InputError:
  return InputError(f"{path} contains a record without {missing}: give the folder that `beam-retrain convert` wrote.")


class RecordsSource(Source):
  """The output folder of `beam-retrain convert`, with records."""

  name = "the output folder of `beam-retrain convert`"
  has_validation = False  # validation images are in their own files and not drawn again

  def __init__(self, path: str, options: SourceOptions = SourceOptions()):  # noqa: B008
    self.path = path
    self.labels = read_labels(path, files)
    self._folder = files.join(path, RECORDS_FOLDER)
    self.has_splits = not any(shard.split == ALL for shard in self._shards())

  @classmethod
  def recognises(cls, path: str) -> bool:
    if not find_info(path, files):
      return False
    read_info(path, "convert", files)
    return bool(files.match_in(files.join(path, RECORDS_FOLDER), "*.tfrecord"))

  def plan(self, splits: Sequence[str], percentages: SplitPercentages | None) -> beam.PTransform:
    shards = [shard for shard in self._shards() if shard.split in (ALL, *with_validation(splits))]
    for split in sorted({ALL, *with_validation(splits)}):
      of = [shard.of for shard in shards if shard.split == split]
      if of and len(of) != max(of):
        raise InputError(f"{self._folder} has {len(of)} of {max(of)} {split} files: write them again.")
    if not shards:
      raise InputError(f"{self._folder} has no records of the splits {', '.join(splits)}: convert them first.")
    # There is only one short name per file.
    create = "CreateShards" >> beam.Create(shards)
    if self.has_splits:
      return create
    return create | "SpreadFiles" >> beam.Reshuffle() | "SplitByHash" >> beam.FlatMap(_split_shard, splits, percentages)

  def list_shards(
    self, splits: Sequence[str], percentages: SplitPercentages | None, max_files: int | None = None
  ) -> Iterator[Shard]:
    shards = [shard for shard in self._shards() if shard.split in (ALL, *with_validation(splits))]
    if max_files is not None:
      shards = heapq.nsmallest(max_files, shards, key=lambda shard: sample_hash(shard.name()))
    for shard in shards:
      if shard.split == ALL:
        parts = _split_shard(shard, splits, percentages)
        yield from (part for part in parts if part.inputs[0].count_images() != 0)
      else:
        yield shard

  def notes(self) -> Iterator[str]:
    if self._has_other_files():
      yield (
        f"{files.shown(self._folder)} is read as it was written, but images were moved, added or deleted in the class"
        f" folders beside it: delete records, COMPLETED and info.json in {files.shown(self.path)} to have them read"
      )

  def _has_other_files(self) -> bool:
    """Whether class folders have other numbers of images than written."""
    info = find_info(self.path, files)
    formats = [each for each in info.settings.get("formats", ()) if each != "tfrecord"] if info else []
    if not formats or not files.is_local(self.path):
      return False
    written, found = 0, []
    for split, counts in read_stats(self.path, files).splits.items():
      top = self.path if split == ALL else os.path.join(self.path, split)
      for label, count in counts.labels.items():
        names = [name for *_, names in os.walk(os.path.join(top, label)) for name in names]
        found.append(sum(name.endswith((".jpg", ".png")) for name in names))
        written += abs(found[-1] - count * len(formats))
    return bool(written and any(found))  # someone may have deleted them all, to have space

  def _shards(self) -> Iterator[Shard]:
    for stat in files.match_in(self._folder, "*.tfrecord"):
      if parsed := parse_shard_name(os.path.basename(stat.path)):
        yield Shard(*parsed, inputs=(RecordsFile(*stat),))

  def has_at_least(self, count: int) -> bool:
    return read_stats(self.path, files).outputs >= count


def _split_shard(shard: Shard, splits: Sequence[str], percentages: SplitPercentages | None) -> Iterator[Shard]:
  """Yields the parts of a shard that are in `splits`."""
  (file,) = shard.inputs
  if percentages is None:
    if ALL in splits:
      yield shard
    return
  drawn = [split_by_hash(key, percentages) for key, _ in file.names(ALL)]
  for split in splits:
    numbers = [number for number, one in enumerate(drawn) if one == split]
    yield shard._replace(split=split, inputs=tuple(file.pick(numbers)))
