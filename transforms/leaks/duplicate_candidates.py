"""Which images may be there twice, from four bytes of each one's hash: what meets in one place stays small.

Images that are equal have equal marks. Others may, too: one in about 4 billion pairs that meet in a bucket, so that
suspects are to be looked at again, by their whole hashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

_MARK = slice(8, 12)  # `deal` deals by the bytes before
_MARK_TYPE = np.dtype("<u4")


def mark_of(digest: bytes) -> bytes:
  """Returns the mark, 4 bytes, of a image by its SHA-256, 32 bytes."""
  return digest[_MARK]


def find_suspects(met: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
  """Yields (shard's name, marks one after the other) for the shards that have images with marks that come twice.

  Args:
    met: (shard's name, marks of its images one after the other) of one bucket.
  """
  marks = [(name, np.frombuffer(packed, _MARK_TYPE)) for name, packed in met]
  values, counts = np.unique(np.concatenate([of_shard for _, of_shard in marks]), return_counts=True)
  twice = values[counts > 1]
  for name, of_shard in marks:
    suspects = of_shard[np.isin(of_shard, twice)]
    if suspects.size:
      yield name, suspects.tobytes()


def unpack_marks(packed: Iterable[bytes]) -> set[bytes]:
  """Returns the marks that were put one after the other."""
  size = _MARK_TYPE.itemsize
  return {marks[start : start + size] for marks in packed for start in range(0, len(marks), size)}
