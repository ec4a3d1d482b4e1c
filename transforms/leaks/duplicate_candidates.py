"""Finds candidates for duplicates by four bytes of each hash, so that little crosses a shuffle.

Equal images have equal marks. So do about one in 4 billion other pairs in a bucket: candidates are compared again, by
their whole hashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

_MARK = slice(8, 12)  # `partition_by_hash` uses the bytes before
_MARK_TYPE = np.dtype("<u4")


def mark_of(digest: bytes) -> bytes:
  """Returns the mark, 4 bytes, of an image by its SHA-256, 32 bytes."""
  return digest[_MARK]


def find_candidates(marked: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
  """Yields (shard's name, its marks that come twice, joined) for shards that have some.

  Args:
    marked: (shard's name, joined marks of its images), of one bucket.
  """
  marks = [(name, np.frombuffer(packed, _MARK_TYPE)) for name, packed in marked]
  values, counts = np.unique(np.concatenate([of_shard for _, of_shard in marks]), return_counts=True)
  twice = values[counts > 1]
  for name, of_shard in marks:
    candidates = of_shard[np.isin(of_shard, twice)]
    if candidates.size:
      yield name, candidates.tobytes()


def unpack_marks(packed: Iterable[bytes]) -> set[bytes]:
  """Splits joined marks."""
  size = _MARK_TYPE.itemsize
  return {marks[start : start + size] for marks in packed for start in range(0, len(marks), size)}
