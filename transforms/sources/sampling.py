"""The images of an input in this process, without a Beam job: for a look at some of them."""

from __future__ import annotations

import heapq
import itertools
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.example import decode_example
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import KEY, RECORDS_FOLDER, Image, parse_shard_name
from beam_retrain.transforms.core.records.shards import (
  IMAGES_PER_SHARD,
  IdxRange,
  ImageFile,
  Input,
  RecordsFile,
  Shard,
  pick_inputs,
)
from beam_retrain.transforms.core.records.splits import SplitPercentages, stable_hash, with_validation
from beam_retrain.transforms.core.records.tfrecord import read_records
from beam_retrain.transforms.core.run.stats import read_stats
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.find import FolderSource, IdxSource, RecordsSource, Source, read_images
from beam_retrain.transforms.sources.folders import ClassFolder, ListedImage, assign_split, list_folder
from beam_retrain.transforms.sources.idx import cut_into_shards, find_idx_splits, image_key, read_idx_labels
from beam_retrain.transforms.sources.manifest import ManifestSource

_SALT = b"beam-retrain-sample-1:"


def read_all(
  source: Source, splits: Sequence[str], percentages: SplitPercentages | None
) -> Iterator[Image | Quarantined]:
  """Yields every image of some splits, reading one at a time (an IDX range at once); arguments as `Source.plan`."""
  for shard in _shards(source, splits, percentages):
    yield from read_images(shard, source.labels)


def read_sample(
  source: Source,
  splits: Sequence[str],
  percentages: SplitPercentages | None,
  count: int,
  most_files: int | None = None,
) -> Iterator[Image | Quarantined]:
  """Yields the `count` images with the smallest salted hashes of their keys: the same ones for the same data.

  Only keys are read of the others; memory holds `count` of them.

  Args:
    source: see `Source.plan`.
    splits: likewise.
    percentages: likewise.
    count: at least 1.
    most_files: of a folder of records, which have to be read whole for their keys, look only into this many, those with
      the smallest salted hashes of their names; None: into all.
  """
  if isinstance(source, FolderSource | ManifestSource):
    yield from _read_sample_of_files(source, splits, percentages, count)
    return
  hashed = (
    (stable_hash(key, _SALT), number, position)
    for number, shard in enumerate(_shards(source, splits, percentages, most_files))
    for position, key in enumerate(_keys(shard))
  )
  positions: dict[int, list[int]] = defaultdict(list)
  for _, number, position in heapq.nsmallest(count, hashed):
    positions[number].append(position)
  for number, shard in enumerate(_shards(source, splits, percentages, most_files)):
    if number in positions:
      picked = pick_inputs(shard.inputs, sorted(positions[number]))
      yield from read_images(shard._replace(inputs=picked), source.labels)


def typical_shard(
  source: Source, splits: Sequence[str], percentages: SplitPercentages | None, count: int
) -> tuple[Shard, int]:
  """Returns a shard such as a job works, and how many images it has, at most `IMAGES_PER_SHARD`: to measure with.

  Images of one file of the source's are much alike: then it is the first of the source's own shards. Of images in
  files of their own, it is `count` that `read_sample` would take, again and again.

  Raises:
    InputError: there is no image in those splits.
  """
  if isinstance(source, FolderSource | ManifestSource):
    picked = [image for _, image in _pick_files(source, splits, percentages, count)]
    inputs: tuple[Input, ...] = tuple(itertools.islice(itertools.cycle(picked), IMAGES_PER_SHARD))
    if inputs:
      return Shard(splits[0], 0, 1, inputs), len(inputs)
  for shard in _shards(source, splits, percentages):
    images = min(sum(1 for _ in _keys(shard)), IMAGES_PER_SHARD)
    return shard._replace(inputs=pick_inputs(shard.inputs, range(images))), images
  raise InputError(f"{source.path} holds no image of the splits {', '.join(splits)}.")


def _read_sample_of_files(
  source: FolderSource | ManifestSource, splits: Sequence[str], percentages: SplitPercentages | None, count: int
) -> Iterator[Image | Quarantined]:
  for split, image in _pick_files(source, splits, percentages, count):
    yield from read_images(Shard(split, 0, 1, (image,)), source.labels)


def _pick_files(
  source: FolderSource | ManifestSource, splits: Sequence[str], percentages: SplitPercentages | None, count: int
) -> list[tuple[str, ListedImage]]:
  picked = heapq.nsmallest(
    count, _files(source, splits, percentages), key=lambda entry: (stable_hash(entry[1].key, _SALT), entry[1].key)
  )
  return sorted(picked, key=lambda entry: (entry[0], entry[1].key))


def has_at_least(source: Source, count: int) -> bool:
  """Says whether an input has so many images, about; few names are read, or a header, or what a stage counted."""
  names: Iterator[object]
  match source:
    case IdxSource():
      return sum(pair.count for pair in find_idx_splits(source.path)) >= count
    case RecordsSource():
      return read_stats(source.path, files).outputs >= count
    case FolderSource():
      names = itertools.chain.from_iterable(map(_names_in, source.folders))
    case _:
      names = files.read_lines(source.path)
  return sum(1 for _ in itertools.islice(names, count)) == count


def _names_in(folder: ClassFolder) -> Iterator[object]:
  return files.walk(folder.path) if files.is_local(folder.path) else iter(files.list_tree(folder.path))


def _shards(
  source: Source, splits: Sequence[str], percentages: SplitPercentages | None, most_files: int | None = None
) -> Iterator[Shard]:
  """Yields small shards, in an order of the data's; they are not those that a job would plan."""
  match source:
    case IdxSource():
      for pair in find_idx_splits(source.path, tuple(splits)):
        yield from cut_into_shards(pair, IMAGES_PER_SHARD)
    case FolderSource() | ManifestSource():
      listed = sorted(_files(source, splits, percentages), key=lambda entry: (entry[0], entry[1].key))
      for start in range(0, len(listed), IMAGES_PER_SHARD):
        for split, group in itertools.groupby(listed[start : start + IMAGES_PER_SHARD], lambda entry: entry[0]):
          yield Shard(split, 0, 1, tuple(image for _, image in group))
    case RecordsSource():
      shards = []
      for stat in files.match_in(files.join(source.path, RECORDS_FOLDER), "*.tfrecord"):
        parsed = parse_shard_name(os.path.basename(stat.path))
        if parsed and parsed[0] in with_validation(splits):
          shards.append(Shard(*parsed, inputs=(RecordsFile(*stat),)))
      if most_files is not None:
        shards = heapq.nsmallest(most_files, shards, key=lambda shard: stable_hash(shard.name(), _SALT))
      yield from shards
    case _:
      raise InputError(f"{source.path} cannot be looked at without a job: give a folder of images or records.")


def _files(
  source: FolderSource | ManifestSource, splits: Sequence[str], percentages: SplitPercentages | None
) -> Iterator[tuple[str, ListedImage]]:
  if isinstance(source, ManifestSource):
    listed = source.list_images()
  else:
    listed = itertools.chain.from_iterable(map(list_folder, source.folders))
  for image in listed:
    yield from assign_split(image, with_validation(splits), percentages)


def _keys(shard: Shard) -> Iterator[str]:
  """Yields the keys of a shard's images, in its order, reading as little as can be."""
  for entry in shard.inputs:
    match entry:
      case ImageFile() | Quarantined():
        yield entry.key
      case IdxRange():
        for offset, label in enumerate(read_idx_labels(entry)):
          yield image_key(shard.split, str(label), entry.start + offset, "png")
      case RecordsFile():
        with files.open_to_read(entry.path) as file:
          for record in read_records(file, entry.path):
            yield decode_example(record, (KEY,)).get(KEY, [b""])[0].decode()
