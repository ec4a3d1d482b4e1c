"""Four bytes of each hash find all that may be there twice, and little else."""

from __future__ import annotations

import hashlib
from collections import Counter

from beam_retrain.transforms.core.records.hash_buckets import partition_by_hash
from beam_retrain.transforms.leaks.duplicate_candidates import find_candidates, mark_of, unpack_marks

SHARDS = {
  "training-0": ["a", "b", "c", "d"],
  "training-1": ["e", "f", "f", "g"],
  "testing-0": ["h", "c", "i"],
  "testing-1": [],
}


def digest(text: str) -> bytes:
  return hashlib.sha256(text.encode()).digest()


def suspected(buckets: int) -> dict[str, list[str]]:
  """Deals all images in buckets; returns which ones of each shard are candidates."""
  met: dict[int, list[tuple[str, bytes]]] = {}
  for name, images in SHARDS.items():
    for bucket, dealt in partition_by_hash([(digest(text),) for text in images], buckets).items():
      met.setdefault(bucket, []).append((name, b"".join(mark_of(hashed) for (hashed,) in dealt)))
  found: dict[str, list[bytes]] = {}
  for of_bucket in met.values():
    for name, packed in find_candidates(of_bucket):
      found.setdefault(name, []).append(packed)
  return {
    name: [text for text in SHARDS[name] if mark_of(digest(text)) in unpack_marks(packed)]
    for name, packed in found.items()
  }


def test_what_comes_twice_is_suspected_within_a_shard_and_across():
  for buckets in (1, 2, 7):
    assert suspected(buckets) == {"training-0": ["c"], "training-1": ["f", "f"], "testing-0": ["c"]}


def test_what_comes_once_is_not_but_for_an_accident():
  """65,536 marks of 4 bytes: 0.5 pairs are expected to be equal."""
  marks = [mark_of(digest(str(number))) for number in range(1 << 16)]
  twice = [mark for mark, count in Counter(marks).items() if count > 1]
  found = [packed for _, packed in find_candidates([("one", b"".join(marks))])]
  assert len(twice) <= 5
  assert b"".join(sorted(unpack_marks(found))) == b"".join(sorted(twice))
