"""What the object stores share: their protocol, sentences for what they refuse, reading in ranges, threads.

There are no folders, only names with slashes in them.
"""

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
"""HTTP: unknown credentials, or credentials that do not suffice."""
RANGE_BYTES = 1 << 24
"""An image is one request, and a large file needs no more memory."""
_THREADS = 10  # as many connections as boto3's client has


class FileStat(NamedTuple):
  path: str
  size_bytes: int
  modified_secs: float


class ObjectStore(Protocol):
  """Paths are whole, as users write them; several threads call at once.

  A name that ends in a slash, which stands for an empty folder, is an object like any other here.
  """

  def stat(self, path: str) -> FileStat | None:
    """Returns what is known of one object; None where it is not there or these credentials do not see it."""

  def open_to_read(self, path: str) -> BinaryIO:
    """Opens an object; its bytes come as they are, whatever the name says of a compression.

    Raises:
      FileNotFoundError: it is not there.
      InputError: these credentials do not read it.
    """

  def list_prefix(self, prefix: str) -> Iterator[FileStat]:
    """Yields all objects whose path begins so, sorted by name. No character is a wildcard."""

  def subfolders(self, folder: str) -> set[str]:
    """Returns the next part, up to a slash, of the names of all objects below a folder."""

  def upload(self, path: str, file: BinaryIO) -> None:
    """Writes an open local file, from its position on: the object appears whole or not at all.

    Raises:
      InputError: these credentials do not write there.
    """

  def delete(self, paths: list[str]) -> None:
    """Deletes objects of one bucket by their exact names; what is not there is no error.

    Raises:
      PermissionError: these credentials do not delete there.
    """


def may_not_read(path: str, reason: object) -> InputError:
  """Returns what `open_to_read` raises; `reason` is the store's own word.

  Not an OSError, which would quarantine one image: credentials can expire in the middle of a job.
  """
  return InputError(f"{path} cannot be read with these credentials ({reason}): let them read it, or take it away.")


def may_not_write(path: str, reason: object) -> InputError:
  """Returns what `upload` raises; `reason` is the store's own word."""
  return InputError(
    f"{path} cannot be written with these credentials ({reason}): let them write there, or give another place."
  )


def open_ranges(read: Callable[[int, int], bytes], size_bytes: Callable[[], int]) -> BinaryIO:
  """Opens an object that is read in ranges of `RANGE_BYTES`.

  Args:
    read: returns the object's bytes from one position to another, exclusive, as far as it goes.
    size_bytes: returns the object's size; asked of large ones only.

  Raises:
    whatever `read` does, on opening already.
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
    self._first = b""  # reading goes forward
    return self._read(start, end)


@functools.cache
def threads() -> ThreadPoolExecutor:
  """Returns this process's threads for many requests side by side. A task in them must not wait for another."""
  return ThreadPoolExecutor(_THREADS)


os.register_at_fork(after_in_child=threads.cache_clear)  # a forked process has no threads of its parent
