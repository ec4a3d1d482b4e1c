"""Recognises the format of an input.

To add a format, write a `Source` in its own module and list it in `FORMATS`.
"""

from __future__ import annotations

import os

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.base import Source, SourceOptions
from beam_retrain.transforms.sources.folders import FolderSource
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


def find_source(path: str, classes: int = 10, min_classes: int = 2, retrain_names: bool = False) -> Source:
  """Opens an input as the source of its format; see `SourceOptions`.

  Raises:
    InputError: `path` does not exist, is unfinished or has no usable images.
  """
  source_class = find_format(path)
  if source_class is None:
    raise InputError(f"{path} {_describe(path)}: give {list_formats()}.")
  return source_class(path, SourceOptions(classes, min_classes, retrain_names))


def find_format(path: str) -> type[Source] | None:
  """Returns the source class of an input; None if unknown.

  Raises:
    InputError: the input is unfinished.
  """
  return next((form for form in FORMATS if form.recognises(path)), None)


def list_formats() -> str:
  """Returns the formats, for messages."""
  *others, last = (form.form for form in FORMATS)
  return f"{'; '.join(others)}; or {last}"


def is_manifest(path: str) -> bool:
  """Returns whether an input is read as a manifest."""
  return find_format(path) is ManifestSource


def _describe(path: str) -> str:
  if files.is_local(path) and os.path.exists(path):
    return "holds no images in a known format" if os.path.isdir(path) else "is neither a folder nor a file"
  return "does not exist" if files.is_empty(path) else "holds no images in a known format"
