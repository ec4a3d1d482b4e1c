"""Finds candidates for duplicates by four bytes of each hash.

Equal images have equal marks, as do about one in 4 billion other pairs in a bucket: candidates are compared again by
their whole hashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

_MARK = slice(8, 12)  # `partition_by_hash` uses the bytes before
_MARK_TYPE = np.dtype("<u4")


def mark_of(digest: bytes) -> bytes:
  """Returns the 4-byte mark of a SHA-256 digest."""
  return digest[_MARK]


def find_candidates(marked: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
  """Yields (shard's name, its repeated marks, joined) for shards with any.

  Args:
    marked: (shard's name, joined marks of its images) of one bucket.
  """
  marks = [(name, np.frombuffer(packed, _MARK_TYPE)) for name, packed in marked]
  values, counts = np.unique(np.concatenate([shard_marks for _, shard_marks in marks]), return_counts=True)
  repeated = values[counts > 1]
  for name, shard_marks in marks:
    candidates = shard_marks[np.isin(shard_marks, repeated)]
    if candidates.size:
      yield name, candidates.tobytes()


def unpack_marks(packed: Iterable[bytes]) -> set[bytes]:
  """Splits joined marks."""
  size = _MARK_TYPE.itemsize
  return {marks[start : start + size] for marks in packed for start in range(0, len(marks), size)}
