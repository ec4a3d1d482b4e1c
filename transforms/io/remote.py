"""Object stores, `s3://`, `gs://` and others: the remote half of `files`.

An object appears whole or not at all. There are no folders, only names with slashes.
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
  """Returns an object's status; None if it is missing or not visible."""
  return _store(path).stat(path)


def open_to_read(path: str) -> BinaryIO:
  return _store(path).open_to_read(path)


def list_prefix(prefix: str) -> Iterator[FileStat]:
  """Yields all objects with a prefix, sorted by name, without folder markers."""
  return (found for found in _store(prefix).list_prefix(prefix) if not found.path.endswith("/"))


def subfolders(folder: str) -> set[str]:
  """Returns the names of the subfolders."""
  return _store(folder).subfolders(folder)


def upload(path: str, file: BinaryIO) -> None:
  """Uploads an open local file from its current position.

  Raises:
    InputError: the credentials do not allow it.
  """
  _store(path).upload(path, file)


def delete(path: str) -> None:
  """Deletes an object and everything below it, if it exists.

  Raises:
    ValueError: `path` is a whole bucket, or has an empty step, `.` or `..`.
  """
  path = path.rstrip("/")
  bucket, _, key = path.partition("://")[2].partition("/")
  if not bucket or not key or any(step in ("", ".", "..") for step in key.split("/")):
    raise ValueError(f"refusing to delete {path}")
  delete_objects([*(found.path for found in list_prefix(f"{path}/")), path])


def delete_objects(paths: list[str]) -> None:
  """Deletes objects of one bucket, if they exist, and nothing below them."""
  if paths:
    _store(paths[0]).delete(paths)
