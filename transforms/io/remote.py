"""Object stores: what `files` does with `s3://`, `gs://` and whatever else Beam has a file system for.

An object is there whole or not at all, and there are no folders, only names with slashes in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from apache_beam.io.filesystems import FileSystems

from beam_retrain.transforms.io.object_stores import beam, gs, s3
from beam_retrain.transforms.io.object_stores.base import FileStat, ObjectStore

_STORES: dict[str, ObjectStore] = {"s3": s3, "gs": gs}
_OTHERS: ObjectStore = beam


def _store(path: str) -> ObjectStore:
  return _STORES.get(FileSystems.get_scheme(path), _OTHERS)


def stat(path: str) -> FileStat | None:
  """Returns what is known of one object, or None where it is not there, or these credentials may not see it."""
  return _store(path).stat(path)


def open_to_read(path: str) -> BinaryIO:
  return _store(path).open_to_read(path)


def list_prefix(prefix: str) -> Iterator[FileStat]:
  """Yields all objects whose path begins so, in the order of their names. What stands for an empty folder is none."""
  return (found for found in _store(prefix).list_prefix(prefix) if not found.path.endswith("/"))


def subfolders(folder: str) -> set[str]:
  """Returns the names that objects below a folder have in common up to the next slash."""
  return _store(folder).subfolders(folder)


def upload(path: str, file: BinaryIO) -> None:
  """Writes what is in a local file that is open, from where it stands, to `path`.

  Raises:
    InputError: these credentials may not.
  """
  _store(path).upload(path, file)


def delete(path: str) -> None:
  """Deletes an object and all that lies below it as a folder. What is not there is no error.

  Never more: a name that begins alike is another one, and a whole bucket is nobody's output.

  Raises:
    ValueError: `path` names no object, or has a step up in it.
  """
  path = path.rstrip("/")
  bucket, _, key = path.partition("://")[2].partition("/")
  if not bucket or not key or any(step in ("", ".", "..") for step in key.split("/")):
    raise ValueError(f"{path} is not for deleting")
  delete_objects([*(found.path for found in list_prefix(f"{path}/")), path])


def delete_objects(paths: list[str]) -> None:
  """Deletes objects of one bucket, and nothing that lies below them. What is not there is no error."""
  if paths:
    _store(paths[0]).delete(paths)
