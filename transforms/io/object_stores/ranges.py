"""An object as a file to read: asked for in ranges of 16 MiB, so that an image is one request, and a large file needs
no more memory."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO, cast

from apache_beam.io.filesystemio import Downloader, DownloaderStream

RANGE_BYTES = 1 << 24


def open_ranges(read: Callable[[int, int], bytes], size_bytes: Callable[[], int]) -> BinaryIO:
  """Opens an object.

  Args:
    read: returns its bytes from the first to the second number, without that, as far as it goes.
    size_bytes: of the object; asked of large ones only.

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
    self._first = b""  # who reads on does not come back
    return self._read(start, end)
