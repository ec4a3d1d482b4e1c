"""Where labelled images come from: the one place that knows every input format.

A source says which labels it has, plans its inputs into shards (a PTransform that moves keys, paths and offsets only),
and its images are read by `read_images` on a worker. To add a format: a class with the methods of `Source`, a line in
`find_source`, and a case in `read_images`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import apache_beam as beam

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.encode import encode_pixels
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import Image, decode_image, parse_shard_name
from beam_retrain.transforms.core.records.shards import IdxRange, ImageFile, Input, PickedRecords, RecordsFile, Shard
from beam_retrain.transforms.core.records.splits import SplitPercentages, with_validation
from beam_retrain.transforms.core.records.tfrecord import pick_records, read_records
from beam_retrain.transforms.core.run.run_info import find_info, read_info, read_labels
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.folders import PlanImageFolders, find_class_folders
from beam_retrain.transforms.sources.idx import (
  PlanIdxShards,
  find_idx_splits,
  image_key,
  looks_like_idx,
  read_idx_range,
)
from beam_retrain.transforms.sources.manifest import ManifestSource

MAX_FILE_BYTES = 1 << 28
"""A image file above 256 MB is not even read."""


class Source(Protocol):
  """Labelled images of one kind.

  Attributes:
    path: what the user gave.
    labels: class index -> label, sorted, as far as the source knows without reading the images.
    has_splits: whether the source itself says what is for training and what for testing.
    has_validation: whether it names validation images, too.
  """

  path: str
  labels: list[str]
  has_splits: bool
  has_validation: bool

  def plan(self, splits: Sequence[str], percentages: SplitPercentages | None) -> beam.PTransform:
    """Returns PBegin -> PCollection[Shard].

    Args:
      splits: the splits to plan: of `training`, `testing`, or `all`. Validation images are drawn from the training
        shards; those that the source names itself come with `training`, in shards of the split `validation`.
      percentages: how to split a source without splits of its own; None puts every image of it in `all`.
    """
    ...


class IdxSource:
  """A folder of MNIST-style IDX files; its images are read as PNG, as `convert --formats png` writes them."""

  has_splits = True
  has_validation = False

  def __init__(self, path: str, classes: int = 10):
    self.path = path
    self.labels = [str(number) for number in range(classes)]

  def plan(self, splits: Sequence[str], percentages: SplitPercentages | None) -> beam.PTransform:
    return PlanIdxShards(find_idx_splits(self.path, tuple(splits)))


class FolderSource:
  """Folders named by class, maybe in folders `training` and `testing`; any image in any depth of them.

  Attributes:
    folders: what `find_class_folders` found.
  """

  has_validation = False

  def __init__(self, path: str, min_classes: int = 2, retrain_names: bool = False):
    self.path = path
    self.folders = find_class_folders(path, min_classes, retrain_names)
    self.labels = sorted({folder.label for folder in self.folders})
    self.has_splits = self.folders[0].split is not None

  def plan(self, splits: Sequence[str], percentages: SplitPercentages | None) -> beam.PTransform:
    for split in splits:
      if self.has_splits and not any(folder.split == split for folder in self.folders):
        raise InputError(f"{self.path} has no folder {split} with class folders in it: put the {split} images there.")
    return PlanImageFolders(self.folders, tuple(splits), percentages)


class RecordsSource:
  """Image records, or bottleneck records, in files of ours: one shard here for one file there."""

  has_splits = True
  has_validation = False  # what there is comes in files of its own, and is not drawn again

  def __init__(self, path: str, records_folder: str):
    self.path = path
    self.labels = read_labels(path, files)
    self._records_folder = records_folder

  def plan(self, splits: Sequence[str], percentages: SplitPercentages | None) -> beam.PTransform:
    found = files.match_in(self._records_folder, "*.tfrecord")
    wanted = with_validation(splits)
    shards = []
    for entry in found:
      parsed = parse_shard_name(os.path.basename(entry.path))
      if parsed and parsed[0] in wanted:
        shards.append(Shard(*parsed, inputs=(RecordsFile(*entry),)))
    for split in sorted(wanted):
      of = [shard.of for shard in shards if shard.split == split]
      if of and len(of) != max(of):
        raise InputError(f"{self._records_folder} has {len(of)} of {max(of)} {split} files: write them again.")
    if not shards:
      raise InputError(f"{self._records_folder} has no records of the splits {', '.join(splits)}: convert them first.")
    # One short name per file: the same order of size as the files themselves being listed, not as their records.
    return "CreateShards" >> beam.Create(shards)


def find_source(
  path: str, classes: int = 10, min_classes: int = 2, retrain_names: bool = False
) -> IdxSource | FolderSource | RecordsSource | ManifestSource:
  """Recognises what an input of images is: a folder, or a file, which has to be a manifest.

  Args:
    path: what the user gave.
    classes: number of classes of an IDX folder, whose labels are "0", "1", ...
    min_classes: as of `find_class_folders`.
    retrain_names: likewise; sources that say their labels themselves are read as always.

  Raises:
    InputError: there is no such thing, it is not finished, or holds nothing that can be used.
  """
  if is_manifest(path):
    return ManifestSource(path, min_classes)
  if not (os.path.isdir(path) if files.is_local(path) else not files.is_empty(path)):
    kind = "is neither a folder nor a file" if os.path.exists(path) else "does not exist"
    raise InputError(
      f"{path} {kind}: give a folder of IDX files, of class folders, or of `beam-retrain convert`; or a CSV manifest."
    )
  if find_info(path, files):
    read_info(path, "convert", files)
    records_folder = files.join(path, "records")
    if files.match_in(records_folder, "*.tfrecord"):
      return RecordsSource(path, records_folder)
  if looks_like_idx(path):
    return IdxSource(path, classes)
  return FolderSource(path, min_classes, retrain_names)


def is_manifest(path: str) -> bool:
  """Says whether an input is taken for a manifest: any local file, and what is remote and ends in `.csv`."""
  return os.path.isfile(path) if files.is_local(path) else path.lower().endswith(".csv")


def read_images(shard: Shard, labels: Sequence[str]) -> Iterator[Image | Quarantined]:
  """Yields one item per image of a shard, in its order, reading one at a time (an IDX range at once).

  Args:
    shard: as a source planned it.
    labels: the label list; a image with another label is quarantined.
  """
  for entry in shard.inputs:
    for image in _read_input(entry, shard.split):
      if isinstance(image, Image) and image.label not in labels:
        yield Quarantined(
          image.key,
          len(image.encoded),
          Reason.BAD_LABEL,
          f"label {image.label!r} is not one of the {len(labels)} labels",
          shard.split,
        )
      else:
        yield image


def _read_input(entry: Input, split: str) -> Iterator[Image | Quarantined]:
  match entry:
    case ImageFile():
      yield _read_file(entry, split)
    case IdxRange():
      for index, byte, pixels in read_idx_range(entry):
        height, width = pixels.shape
        key = image_key(split, str(byte), index, "png")
        yield Image(key, str(byte), encode_pixels(pixels, "png"), "png", height, width)
    case RecordsFile():
      with files.open_to_read(entry.path) as file:
        yield from _decode_images(read_records(file, entry.path), entry.path)
    case PickedRecords():
      with files.open_to_read(entry.path) as file:
        yield from _decode_images(pick_records(file, entry.numbers, entry.path), entry.path)
    case Quarantined():
      yield entry.in_split(split)
    case _:
      raise TypeError(f"a {type(entry).__name__} is no input to read images from")


def _decode_images(records: Iterable[bytes], path: str) -> Iterator[Image]:
  for record in records:
    try:
      yield decode_image(record)
    except KeyError as error:
      raise InputError(
        f"{path} holds a record without {error}: give the folder that `beam-retrain convert` wrote."
      ) from error


def _read_file(entry: ImageFile, split: str) -> Image | Quarantined:
  if entry.size_bytes > MAX_FILE_BYTES:
    detail = f"more than the {MAX_FILE_BYTES} bytes allowed of a file"
    return Quarantined(entry.key, entry.size_bytes, Reason.TOO_LARGE, detail, split)
  if not entry.path:
    return Quarantined(entry.key, entry.size_bytes, Reason.UNREADABLE, "its name is not UTF-8: rename it", split)
  try:
    # A pipe would be waited for, and a device may never end: what is no file is not opened.
    if files.is_local(entry.path) and not stat.S_ISREG(os.stat(entry.path).st_mode):
      return Quarantined(entry.key, entry.size_bytes, Reason.UNREADABLE, "is not a regular file", split)
    return Image(entry.key, entry.label, files.read_bytes(entry.path))
  except OSError as error:
    return Quarantined(entry.key, entry.size_bytes, Reason.UNREADABLE, error.strerror or "cannot be opened", split)
