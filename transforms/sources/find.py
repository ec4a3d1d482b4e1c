"""Recognises the format of an input.

To add a format, write a `Source` in its own module and list it in `FORMATS`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

from beam_retrain.transforms.core.arguments import AnyPath, as_path
from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.run.output_folder import find_info, stages_in
from beam_retrain.transforms.core.system.listing import is_archive, is_named_as_image
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.base import Source, SourceOptions
from beam_retrain.transforms.sources.folders import OTHER_SPLIT_NAMES, FolderSource
from beam_retrain.transforms.sources.idx import IdxSource
from beam_retrain.transforms.sources.manifest import ManifestSource
from beam_retrain.transforms.sources.records import RecordsSource
from beam_retrain.transforms.sources.webdataset import WebDatasetSource

FORMATS: tuple[type[Source], ...] = (
  ManifestSource,
  RecordsSource,
  IdxSource,
  WebDatasetSource,
  FolderSource,
)
"""The first that recognises a path reads it."""
_MOST_FOLDERS = 3


def find_source(
  path: AnyPath,
  classes: int | None = None,
  min_classes: int = 2,
  retrain_names: bool = False,
  class_names: str | None = None,
  transpose: bool = False,
) -> Source:
  """Opens an input as the source of its format.

  Its `labels` are class index -> label; `plan(splits, percentages)` is a PTransform, PBegin -> PCollection[Shard], and
  `read_all(splits, percentages)` yields images without a job. Of an input with splits, as `has_splits` says, these are
  `(("training", "testing"), None)`, or one of them; of another, `(("all",), None)`.

  Args:
    path: class folders, a CSV manifest, IDX files, WebDataset shards, or what `convert` wrote.
    classes: of IDX files, whose labels are then `0`, `1`, ...
    min_classes: 2 to train on, 1 to evaluate.
    retrain_names: whether class folders are read as by `retrain.py`.
    class_names: path of a file that names the classes of IDX files.
    transpose: whether IDX images are transposed, as EMNIST's.

  Raises:
    InputError: it does not exist, is unfinished or has no usable images.
  """
  path = as_path(path)
  if source_class := find_format(path):
    for name, is_given in (("class_names", class_names), ("transpose", transpose)):
      if is_given and source_class is not IdxSource:
        raise InputError(f"{flag(name)} is for IDX files, but {path} is {source_class.name}: leave it out.")
    if source_class is ManifestSource and is_named_as_image(path):
      raise InputError(f"{path} is one image: give the folder that holds its class's folder, or a CSV manifest.")
    if source_class is FolderSource:
      _check_not_of_run(path)
      _check_not_wrapped(path)
    return source_class(path, SourceOptions(classes, min_classes, retrain_names, class_names, transpose))
  is_local = files.is_local(path)
  if not (os.path.exists(path) if is_local else next(files.list_tree(path), None)):
    problem = "does not exist"
  elif is_archive(path):
    raise InputError(f"{path} is an archive: unpack it, and give the folder.")
  elif is_local and not os.path.isdir(path):
    problem = "is neither a folder nor a file"
  elif files.is_empty(path):
    raise InputError(f"{path} is empty: give a folder with one folder of images per class.")
  else:
    raise InputError(
      f"{path} holds files, but no class folders: if it is one class, give the folder above it; or move the images of"
      " each class into a folder named like the class, or list them in a CSV manifest."
    )
  raise InputError(f"{path} {problem}: give {_either([form.name for form in FORMATS])}.")


def find_format(path: str) -> type[Source] | None:
  """Returns the source class of an input; InputError if unfinished."""
  files.check_supported(path)
  return next((form for form in FORMATS if form.recognises(path)), None)


def _check_not_of_run(path: str) -> None:
  """Raises InputError if the folders in it are those of `run`."""
  stages = stages_in(path, files)
  if "convert" in stages:
    images = files.join(path, "convert")
  else:
    info = find_info(files.join(path, "bottlenecks"), files) if "bottlenecks" in stages else None
    images = str(info.settings.get("input", "")) if info else ""
  if images:
    raise InputError(f"{files.shown(path)} was written by `beam-retrain run`: give its images, {files.shown(images)}.")


def _check_not_wrapped(path: str) -> None:
  """Raises InputError if IDX files or tars lie further below.

  As in torchvision's `root/MNIST/raw`. Looks into few folders: listing those of many classes would take long.
  """
  names = files.subfolders(path)
  if not 0 < len(names) <= (_MOST_FOLDERS if files.is_local(path) else 1) or not OTHER_SPLIT_NAMES.isdisjoint(names):
    return
  inner = [_find_inner(files.join(path, name)) for name in names]
  found = list(itertools.chain.from_iterable(inner))
  # A class folder may hold a tar besides its images, but no IDX files.
  if all(inner) or any(form is IdxSource for _, form in found):
    paths = [inside for inside, _ in found]
    raise InputError(f"{path} holds {found[0][1].name} further below: give {_either(paths)}.")


def _find_inner(path: str, depth: int = 1) -> list[tuple[str, type[Source]]]:
  for form in (IdxSource, WebDatasetSource):
    if form.recognises(path):
      return [(path, form)]
  names = files.subfolders(path) if depth else []
  below = (_find_inner(files.join(path, name), depth - 1) for name in names[:_MOST_FOLDERS])
  return list(itertools.chain.from_iterable(below))


def is_manifest(path: str) -> bool:
  """Returns whether an input is read as a manifest."""
  return find_format(path) is ManifestSource


def _either(names: Sequence[str]) -> str:
  return f"{', '.join(names[:-1])}{' or ' if names[1:] else ''}{names[-1]}"
