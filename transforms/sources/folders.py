"""Image folders named by class."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import apache_beam as beam

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import RECORDS_FOLDER, TESTING, TRAINING
from beam_retrain.transforms.core.records.shards import IMAGES_PER_SHARD
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.base import SourceOptions, check_classes, has_items
from beam_retrain.transforms.sources.image_files import AssignShards, ImageFile, ImageFilesSource, assign_split

_RETRAIN_SUFFIXES = (".jpg", ".jpeg", ".png")  # compared without case, unlike in `retrain.py` on Linux
_NOT_IMAGES = {"thumbs.db", "desktop.ini"}  # of file managers; dot files are hidden, too
# As classes, these would train a classifier to tell training images from testing ones.
_OTHER_SPLIT_NAMES = {"train", "test", "val", "valid", "validation", "eval", "dev", TRAINING, TESTING}


class ClassFolder(NamedTuple):
  """A folder of one class."""

  split: str | None  # None if the data set has no splits
  label: str
  path: str
  prefix: str  # path relative to the data set
  retrain_names: bool = False  # whether to read only files with the extensions of `retrain.py`


class FileCounts(NamedTuple):
  """Files of a class folder: images, and others by their names."""

  images: int
  others: int


def find_class_folders(root: str, min_classes: int = 2, retrain_names: bool = False) -> list[ClassFolder]:
  """Lists the class folders of a data set, but not their files.

  With `retrain_names`, as in `retrain.py`, labels are normalised folder names, only files named as JPEG or PNG are
  read, and folders without any are ignored. Raises InputError for too few classes, or a name that cannot be a label.
  """
  folders = list_class_folders(root)
  if retrain_names:
    folders = _as_retrain_named(folders)
    if not folders:
      raise InputError(f"{root} has no folders of .jpg, .jpeg or .png files: give one folder of images per class.")
  labels = {folder.label for folder in folders}
  if not labels:
    raise InputError(f"{root} has no class folders: give a folder with one folder of images per class.")
  check_classes(root, labels, min_classes)
  if labels <= _OTHER_SPLIT_NAMES:
    raise InputError(
      f"{root}: the folders {', '.join(sorted(labels))} look like splits, not classes: rename them to {TRAINING} and"
      f" {TESTING}, or use one folder per class, whose images are split by a stable hash of their names."
    )
  for label in sorted(labels):
    if not label.isprintable():
      raise InputError(f"{root}: the folder name {label!r} cannot be a label: rename it without control characters.")
  return folders


def list_class_folders(root: str) -> list[ClassFolder]:
  """Lists all folders that may be classes, labelled by their names.

  Raises InputError if there are others beside `training` and `testing`.
  """
  split_names = [name for name in (TRAINING, TESTING) if files.subfolders(files.join(root, name))]
  others = set(files.subfolders(root)) - set(split_names) - {TRAINING, TESTING, RECORDS_FOLDER}
  if split_names and others:
    raise InputError(
      f"{root} has folders beside {' and '.join(split_names)}: {', '.join(sorted(others))}: put their images into"
      f" {TRAINING}, from which validation images are drawn, or move them elsewhere."
    )
  return [
    ClassFolder(split, label, files.join(root, split, label), f"{split}/{label}")
    for split in split_names
    for label in files.subfolders(files.join(root, split))
  ] or [ClassFolder(None, label, files.join(root, label), label) for label in files.subfolders(root)]


def _as_retrain_named(folders: Sequence[ClassFolder]) -> list[ClassFolder]:
  """Returns the folders with images, with normalised labels."""
  named = [folder._replace(label=label_of_folder(folder.label), retrain_names=True) for folder in folders]
  kept = [folder for folder in named if any(_takes(folder, path) for path in files.walk(folder.path))]
  for split in {folder.split for folder in kept}:
    check_labels_differ(os.path.basename(folder.path) for folder in kept if folder.split == split)
  return kept


def label_of_folder(name: str) -> str:
  """Returns the label that `retrain.py` made of a folder's name.

  As `create_image_lists` of TensorFlow Hub's `examples/image_retraining/retrain.py`.
  """
  return re.sub("[^a-z0-9]+", " ", name.lower())


def check_labels_differ(names: Iterable[str]) -> None:
  """Raises InputError if two folders have the same label."""
  seen: dict[str, str] = {}
  for name in sorted(names):
    label = label_of_folder(name)
    if label in seen:
      raise InputError(
        f"the folders {seen[label]!r} and {name!r} both get the label {label!r}: rename one, or put their images into"
        " one folder."
      )
    seen[label] = name


class FolderSource(ImageFilesSource):
  """Folders named by class, with image files at any depth."""

  name = "a folder with one folder of images per class"
  details = ", maybe in training/ and testing/ (JPEG, PNG, BMP, GIF, WebP; any size)"

  def __init__(self, path: str, options: SourceOptions = SourceOptions()):  # noqa: B008
    self.path = path
    self.class_folders = find_class_folders(path, options.min_classes, options.retrain_names)
    self.labels = sorted({folder.label for folder in self.class_folders})
    self.has_splits = self.class_folders[0].split is not None

  @classmethod
  def recognises(cls, path: str) -> bool:
    return bool(files.subfolders(path))

  def plan(self, splits: Sequence[str], percentages: SplitPercentages | None) -> beam.PTransform:
    for split in splits:
      if self.has_splits and not any(folder.split == split for folder in self.class_folders):
        raise InputError(f"{self.path} has no folder {split} with class folders: put the {split} images there.")
    return plan_folders(self.class_folders, splits, percentages)

  def list_images(self) -> Iterator[tuple[str | None, ImageFile]]:
    return itertools.chain.from_iterable(map(list_folder, self.class_folders))

  def has_at_least(self, count: int) -> bool:
    return has_items((path for folder in self.class_folders for path in files.walk(folder.path)), count)

  def count_left_out(self) -> int:
    return sum(count_files(folder).others for folder in self.class_folders if folder.retrain_names)


def plan_folders(
  folders: Sequence[ClassFolder],
  splits: Sequence[str],
  percentages: SplitPercentages | None,
  images_per_shard: int = IMAGES_PER_SHARD,
) -> beam.PTransform:
  """Returns PBegin -> PCollection[Shard], of `images_per_shard` on average."""
  return (
    "CreateFolders" >> beam.Create(folders)
    | "SpreadFolders" >> beam.Reshuffle()
    # ClassFolder
    | "ListFolder" >> beam.FlatMap(list_folder)
    # (split or None, ImageFile)
    | "AssignSplit" >> beam.FlatMap(assign_split, frozenset(splits), percentages)
    # (split, ImageFile)
    | "AssignShards" >> AssignShards(images_per_shard)
  )


def list_folder(folder: ClassFolder) -> Iterator[tuple[str | None, ImageFile]]:
  """Yields every file of a class folder, at any depth.

  Extensions are ignored, except with `retrain_names`.
  """
  for stat in files.list_tree(folder.path):
    if _takes(folder, stat.path):
      inside = os.path.relpath(stat.path, folder.path).replace(os.sep, "/")
      yield folder.split, _in_utf8(ImageFile(f"{folder.prefix}/{inside}", folder.label, *stat))


def count_files(folder: ClassFolder) -> FileCounts:
  """Counts a class folder's visible files."""
  images = others = 0
  for path in files.walk(folder.path):
    if _takes(folder, path):
      images += 1
    elif _may_be_image(folder, path):
      others += 1
  return FileCounts(images, others)


def _takes(folder: ClassFolder, path: str) -> bool:
  return _may_be_image(folder, path) and (not folder.retrain_names or is_retrain_image(path))


def is_retrain_image(file_name: str) -> bool:
  return file_name.lower().endswith(_RETRAIN_SUFFIXES)


def _may_be_image(folder: ClassFolder, path: str) -> bool:
  parts = os.path.relpath(path, folder.path).split(os.sep)
  return parts[-1].lower() not in _NOT_IMAGES and not any(part.startswith(".") for part in parts)


def _in_utf8(image: ImageFile) -> ImageFile:
  try:
    image.path.encode()
    return image
  except UnicodeEncodeError:  # it cannot be sent to a worker or written to a record; reading the image reports it
    return image._replace(key=image.key.encode(errors="backslashreplace").decode(), path="")
