"""Partitions images by hash: few elements to shuffle, buckets that fit memory."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, TypeVar

Entry = TypeVar("Entry", bound=tuple[Any, ...])


def bucket_count(shards: int) -> int:
  """Returns the number of buckets for a data set's hashes.

  The square root: a million images in 1,000 shards make 32,000 elements of 32 hashes, and buckets of 31,000.
  """
  return max(1, math.isqrt(max(0, shards - 1)) + 1)


def partition_by_hash(hashed: Iterable[Entry], buckets: int) -> dict[int, list[Entry]]:
  """Returns bucket -> entries; each entry begins with a SHA-256, 32 bytes."""
  partitioned: dict[int, list[Entry]] = defaultdict(list)
  for entry in hashed:
    partitioned[int.from_bytes(entry[0][:8], "big") % buckets].append(entry)
  return partitioned
