"""A folder of images without class folders, as `convert` takes it."""

from __future__ import annotations

from collections.abc import Iterator

from beam_retrain.transforms.core.labels import normalise
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.base import SourceOptions
from beam_retrain.transforms.sources.folders import ClassFolder, FolderSource


class OneFolderSource(FolderSource):
  """Images of one class, which has the name of their folder."""

  name = "a folder of images"

  def __init__(self, path: str, options: SourceOptions = SourceOptions()):  # noqa: B008
    label = files.split(path)[1]
    self.path = path
    self.class_folders = [ClassFolder(None, normalise(label), path, label)]
    self.labels = [normalise(label)]
    self.has_splits = False

  @classmethod
  def recognises(cls, path: str) -> bool:
    return not files.subfolders(path) and next(iter(files.walk_images(path)), None) is not None

  def notes(self) -> Iterator[str]:
    return iter(())  # what is beside the folder is no part of it
