"""Images meet by their hashes in buckets: few elements cross a shuffle, and one bucket fits into memory."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, TypeVar

Entry = TypeVar("Entry", bound=tuple[Any, ...])


def bucket_count(shards: int) -> int:
  """Returns into how many buckets the hashes of a data set's images are dealt.

  With the square root, a million images in 1,000 shards make 32,000 elements of 32 hashes, and buckets of 31,000.
  """
  return max(1, math.isqrt(max(0, shards - 1)) + 1)


def deal(hashed: Iterable[Entry], buckets: int) -> dict[int, list[Entry]]:
  """Returns bucket -> what is in it; each tuple begins with a SHA-256, 32 bytes: equal ones are in the same bucket."""
  dealt: dict[int, list[Entry]] = defaultdict(list)
  for entry in hashed:
    dealt[int.from_bytes(entry[0][:8], "big") % buckets].append(entry)
  return dealt
