"""The protocol of object stores, their errors, reading in ranges, threads."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, NamedTuple, Protocol, cast

from apache_beam.io.filesystemio import Downloader, DownloaderStream

from beam_retrain.transforms.core.errors import InputError

REFUSED = (401, 403)
"""HTTP statuses of unknown or insufficient credentials."""
RANGE_BYTES = 1 << 24
"""An image takes one request; a large file takes no more memory than this."""
_THREADS = 10  # boto3's number of connections


class FileStat(NamedTuple):
  path: str
  size_bytes: int
  modified_secs: float


class ObjectStore(Protocol):
  """Access to one object store. Called by several threads at once.

  Paths include the scheme. A name that ends in a slash, an empty folder, is an ordinary object here.
  """

  def stat(self, path: str) -> FileStat | None:
    """Returns an object's status; None if it is missing or not visible."""

  def open_to_read(self, path: str) -> BinaryIO:
    """Opens an object without decompressing it.

    Raises:
      FileNotFoundError: it does not exist.
      InputError: the credentials do not allow reading.
    """

  def list_prefix(self, prefix: str) -> Iterator[FileStat]:
    """Yields all objects with a literal prefix, sorted by name."""

  def subfolders(self, folder: str) -> set[str]:
    """Returns the names of the subfolders."""

  def upload(self, path: str, file: BinaryIO) -> None:
    """Uploads an open local file from its current position, atomically.

    Raises:
      InputError: the credentials do not allow writing.
    """

  def delete(self, paths: list[str]) -> None:
    """Deletes objects of one bucket by their exact names, if they exist.

    Raises:
      PermissionError: the credentials do not allow deleting.
    """


def may_not_read(path: str, reason: object) -> InputError:
  """Returns the error of `open_to_read`; `reason` is the store's.

  Not an OSError, which would quarantine the image: credentials can expire during a job.
  """
  return InputError(f"{path} cannot be read with these credentials ({reason}): allow reading, or remove the object.")


def may_not_write(path: str, reason: object) -> InputError:
  """Returns the error of `upload`; `reason` is the store's."""
  return InputError(
    f"{path} cannot be written with these credentials ({reason}): allow writing, or give another output."
  )


def open_ranges(read: Callable[[int, int], bytes], size_bytes: Callable[[], int]) -> BinaryIO:
  """Opens an object that is read in ranges of `RANGE_BYTES`.

  Reads the first range at once, and so raises what `read` raises.

  Args:
    read: (start, end) -> the bytes from start to end, exclusive, or to the object's end.
    size_bytes: returns the object's size; called for large objects only.
  """
  ranges = _Ranges(read, size_bytes)
  return cast(BinaryIO, io.BufferedReader(DownloaderStream(ranges), min(RANGE_BYTES, ranges.size + 1)))


class _Ranges(Downloader):
  def __init__(self, read: Callable[[int, int], bytes], size_bytes: Callable[[], int]):
    self._read = read
    self._first = read(0, RANGE_BYTES)
    self._size = len(self._first) if len(self._first) < RANGE_BYTES else size_bytes()

  @property
  def size(self) -> int:
    return self._size

  def get_range(self, start: int, end: int) -> bytes:
    if end <= len(self._first):
      return self._first[start:end]
    self._first = b""  # no longer needed: reads go forward
    return self._read(start, end)


@functools.cache
def threads() -> ThreadPoolExecutor:
  """Returns the process's thread pool; its tasks must not wait for another."""
  return ThreadPoolExecutor(_THREADS)


os.register_at_fork(after_in_child=threads.cache_clear)  # threads do not survive a fork
