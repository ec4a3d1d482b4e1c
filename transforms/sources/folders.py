"""Image folders named by class."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import apache_beam as beam

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.labels import is_label, merged, normalise
from beam_retrain.transforms.core.records.schema import RECORDS_FOLDER, TESTING, TRAINING
from beam_retrain.transforms.core.records.shards import IMAGES_PER_SHARD
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.system.listing import is_named_as_image, is_tar, left_out
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.counters import LINKS_UP, count_of
from beam_retrain.transforms.sources.base import SourceOptions, check_classes, has_items
from beam_retrain.transforms.sources.image_files import AssignShards, ImageFile, ImageFilesSource

_RETRAIN_SUFFIXES = (".jpg", ".jpeg", ".png")  # compared without case, unlike in `retrain.py` on Linux
# As classes, these would train a classifier to tell training images from testing ones.
OTHER_SPLIT_NAMES = {"train", "test", "val", "valid", "validation", "eval", "dev", TRAINING, TESTING}


class ClassFolder(NamedTuple):
  """A folder of one class."""

  split: str | None  # None if the data set has no splits
  label: str
  path: str
  prefix: str  # path relative to the data set
  retrain_names: bool = False  # whether to read only files with the extensions of `retrain.py`

  @property
  def name(self) -> str:
    """Its own name, of which the label is made."""
    return self.prefix.rpartition("/")[2]


class FileCounts(NamedTuple):
  """Files of a class folder: images, and others by their names."""

  images: int
  others: int


def find_class_folders(root: str, min_classes: int = 2, retrain_names: bool = False) -> list[ClassFolder]:
  """Lists the class folders of a data set, but not their files.

  With `retrain_names`, as in `retrain.py`, labels are made of a-z and 0-9, only files named as JPEG or PNG are read,
  and folders without any are ignored. Raises InputError for too few classes, or a name that cannot be a label.
  """
  folders = list_class_folders(root)
  if retrain_names:
    folders = _as_retrain_named(folders)
    if not folders:
      raise InputError(f"{root} has no folders of .jpg, .jpeg or .png files: give one folder of images per class.")
  labels = {folder.label for folder in folders}
  if not labels:
    raise InputError(f"{root} has no class folders: give a folder with one folder of images per class.")
  if len(labels) < min_classes and (inner := find_wrapped(root)):
    raise only_a_wrapper(root, inner)
  check_classes(root, labels, min_classes)
  if labels <= OTHER_SPLIT_NAMES:
    raise InputError(
      f"{root}: the folders {', '.join(sorted(labels))} look like splits, not classes: rename them to {TRAINING} and"
      f" {TESTING}, or use one folder per class, whose images are split by a stable hash of their names."
    )
  for folder in folders:
    if not is_label(folder.label):
      raise InputError(
        f"{root}: the folder name {folder.name!r} cannot be a label: rename it to one that can be seen, without control"
        " characters."
      )
  return folders


def list_class_folders(root: str, up: list[str] | None = None) -> list[ClassFolder]:
  """Lists all folders that may be classes, labelled by their names.

  Raises InputError if there are others beside `training` and `testing`; `up` is as of `listing.walk`.
  """
  inside = files.subfolders(root, up)
  split_names = [name for name in (TRAINING, TESTING) if files.subfolders(files.join(root, name))]
  others = set(inside) - {TRAINING, TESTING, RECORDS_FOLDER}
  if split_names and others:
    raise InputError(
      f"{root} has folders beside {' and '.join(split_names)}: {', '.join(sorted(others))}: put their images into"
      f" {TRAINING}, from which validation images are drawn, or move them elsewhere."
    )
  return [
    ClassFolder(split, normalise(name), files.join(root, split, name), f"{split}/{name}")
    for split in split_names
    for name in files.subfolders(files.join(root, split), up)
  ] or [ClassFolder(None, normalise(name), files.join(root, name), name) for name in inside]


def find_wrapped(root: str) -> str | None:
  """Returns the folder of the class folders if `root` has nothing else."""
  inside = files.subfolders(root)
  while len(inside) == 1:
    root = files.join(root, *inside)
    inside = files.subfolders(root)
    if files.files_in(root):
      return None
    if len(inside) > 1:
      return root
  return None


def only_a_wrapper(root: str, inner: str) -> InputError:
  return InputError(f"{root} holds the folder of the class folders, not the class folders: give {inner}.")


def _as_retrain_named(folders: Sequence[ClassFolder]) -> list[ClassFolder]:
  """Returns the folders with images, with the labels of `retrain.py`."""
  named = [folder._replace(label=normalise(label_of_folder(folder.name)), retrain_names=True) for folder in folders]
  kept = [folder for folder in named if any(map(is_retrain_image, files.walk_images(folder.path)))]
  for folder in kept:
    if not folder.label:
      raise InputError(
        f"{folder.path}: nothing of this name is left in a label of retrain.py, which keeps a-z and 0-9 alone: rename"
        " the folder, or use `beam-retrain run`, which takes names as they are."
      )
  for split in {folder.split for folder in kept}:
    check_labels_differ(folder.name for folder in kept if folder.split == split)
  return kept


def label_of_folder(name: str) -> str:
  """Returns the label that `retrain.py` made of a folder's name.

  As `create_image_lists` of TensorFlow Hub's `examples/image_retraining/retrain.py`.
  """
  return re.sub("[^a-z0-9]+", " ", name.lower())


def check_labels_differ(names: Iterable[str]) -> None:
  """Raises InputError if two folders have the same label.

  So do two spellings of one name in Unicode, of which `retrain.py` made two labels.
  """
  seen: dict[str, str] = {}
  for name in sorted(names):
    label = normalise(label_of_folder(name))
    for text in {label, normalise(name)}:
      if (other := seen.setdefault(text, name)) != name:
        raise InputError(
          f"the folders {other!r} and {name!r} both get the label {label!r}: rename one, or put their images into one"
          " folder."
        )


class FolderSource(ImageFilesSource):
  """Folders named by class, with image files at any depth."""

  name = "a folder with one folder of images per class"

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

  def list_names(self, most: int | None) -> Iterator[tuple[str | None, str, tuple[ClassFolder, str]]]:
    of_each = most and -(-most // len(self.class_folders))
    for folder in self.class_folders:
      for inside in itertools.islice(_walk_class(folder), of_each):
        yield folder.split, _in_utf8(f"{folder.prefix}/{inside}"), (folder, inside)

  def open_name(self, name: tuple[ClassFolder, str]) -> ImageFile | None:
    folder, inside = name
    stat = files.stat_or_broken_link(files.join(folder.path, inside))
    return _image_file(folder, inside, stat) if stat else None

  def has_at_least(self, count: int) -> bool:
    return has_items((path for folder in self.class_folders for path in files.walk_images(folder.path)), count)

  def find_wrapped(self) -> InputError | None:
    inner = find_wrapped(self.path)
    return only_a_wrapper(self.path, inner) if inner else None

  def notes(self) -> Iterator[str]:
    if not self.class_folders[0].retrain_names:
      for split in {folder.split for folder in self.class_folders}:
        yield from merged(folder.name for folder in self.class_folders if folder.split == split)
    up: list[str] = []
    list_class_folders(self.path, up)
    if others := sum(count_files(folder).others for folder in self.class_folders if folder.retrain_names):
      yield f"files left out, as their names do not end in .jpg, .jpeg or .png: {others:,}"
    homes = {self.path} | {files.split(folder.path)[0] for folder in self.class_folders}
    names = [files.join(home, name) for home in homes for name in files.files_in(home)]
    beside = {
      f"{what} beside the class folders": list(filter(is_one, names))
      for what, is_one in (("images", is_named_as_image), ("tars", is_tar))
    }
    if line := left_out(beside, up):
      yield line


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
    | "AssignShards" >> AssignShards(list_folder, splits, percentages, images_per_shard)
  )


def list_folder(folder: ClassFolder) -> Iterator[tuple[str | None, ImageFile]]:
  """Yields every file of a class folder, at any depth; see `listing`.

  Extensions are ignored, except with `retrain_names`. In a job, links that lead up the tree are counted.
  """
  up: list[str] = []
  for inside, stat in files.list_images(folder.path, up):
    if not folder.retrain_names or is_retrain_image(inside):
      yield folder.split, _image_file(folder, inside, stat)
  for link in up:
    count_of(LINKS_UP, _in_utf8(link))


def count_files(folder: ClassFolder) -> FileCounts:
  images = others = 0
  for path in files.walk_images(folder.path):
    if not folder.retrain_names or is_retrain_image(path):
      images += 1
    else:
      others += 1
  return FileCounts(images, others)


def is_retrain_image(file_name: str) -> bool:
  return file_name.lower().endswith(_RETRAIN_SUFFIXES)


def _walk_class(folder: ClassFolder) -> Iterator[str]:
  """Yields the files of `list_folder`, by paths within the folder."""
  inside = files.walk_images(folder.path)
  return filter(is_retrain_image, inside) if folder.retrain_names else inside


def _image_file(folder: ClassFolder, inside: str, stat: files.FileStat) -> ImageFile:
  # Another path cannot be sent to a worker or written to a record; reading the image reports it.
  path = stat.path if _in_utf8(stat.path) == stat.path else ""
  return ImageFile(_in_utf8(f"{folder.prefix}/{inside}"), folder.label, path, stat.size_bytes, stat.modified_secs)


def _in_utf8(text: str) -> str:
  try:
    text.encode()
    return text
  except UnicodeEncodeError:
    return text.encode(errors="backslashreplace").decode()
