"""Vectors in memory or in a temporary file.

Both give rows in the same way, and the same numbers.
"""

from __future__ import annotations

import mmap
import os
import tempfile

import numpy as np

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.printing import say
from beam_retrain.transforms.core.system.machine import available_memory

_SHARE = 0.5  # of the available memory


class StoredVectors:
  """float32 [N, D] in a file without a name.

  A range of rows is mapped: its pages are the page cache's, and leave this process with the array. Single rows are
  read. Threads may do both at the same time.
  """

  def __init__(self, shape: tuple[int, int]):
    """May raise OSError."""
    self.shape = shape
    self._row_bytes = 4 * shape[1]
    self._file = tempfile.TemporaryFile(prefix="vectors-")  # noqa: SIM115, closed with this object
    os.posix_fallocate(self._file.fileno(), 0, shape[0] * self._row_bytes)  # a full disk is found now

  def __len__(self) -> int:
    return self.shape[0]

  def __setitem__(self, rows: slice, vectors: np.ndarray) -> None:
    left = np.ascontiguousarray(vectors, np.float32).data.cast("B")
    place = rows.start * self._row_bytes
    while left:
      written = os.pwrite(self._file.fileno(), left, place)
      left, place = left[written:], place + written

  def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
    if isinstance(rows, slice):
      return self._map(*rows.indices(len(self))[:2])
    found = np.empty((len(rows), self.shape[1]), np.float32)
    for row, vector in zip(rows.tolist(), found, strict=True):
      os.preadv(self._file.fileno(), [vector.data], row * self._row_bytes)
    return found

  def _map(self, start: int, end: int) -> np.ndarray:
    if start >= end:
      return np.empty((0, self.shape[1]), np.float32)
    before = start * self._row_bytes % mmap.ALLOCATIONGRANULARITY
    place, size = start * self._row_bytes - before, before + (end - start) * self._row_bytes
    mapped = mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ, offset=place)
    mapped.madvise(mmap.MADV_WILLNEED)  # all of it is read at once
    return np.frombuffer(mapped, np.float32, offset=before).reshape(-1, self.shape[1])


Vectors = np.ndarray | StoredVectors


def make_vectors(shape: tuple[int, int], memory_limit: int | None) -> Vectors:
  """Returns room for vectors, in memory if `memory_limit` bytes are enough.

  None: half of the available memory. Raises InputError if there is no room in the folder for temporary files.
  """
  size = 4 * shape[0] * shape[1]
  limit = int(_SHARE * available_memory()) if memory_limit is None else memory_limit
  if size <= limit:
    return np.empty(shape, np.float32)
  try:
    stored = StoredVectors(shape)
  except OSError as error:
    raise InputError(
      f"the bottlenecks take {size / 1e9:.1f} GB, more than --memory_limit ({limit / 1e9:.1f} GB), and"
      f" {tempfile.gettempdir()} has no room for them ({error.strerror}): set TMPDIR to a folder that has, or raise"
      " --memory_limit."
    ) from error
  say(
    f"the bottlenecks take {size / 1e9:.1f} GB, more than --memory_limit ({limit / 1e9:.1f} GB): they are kept in a"
    f" temporary file in {tempfile.gettempdir()}"
  )
  return stored
