"""What is a leak: pure functions against plain loops over every pair."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import random

import pytest

from beam_retrain.transforms.core.records.leaks import (
  HASH_BYTES,
  HashedImages,
  LeakedImage,
  OnLeak,
  count_leaks,
  count_rows,
  describe,
  find_leaks,
  kinds_of,
  leaks_csv,
  near_kinds_of,
  warnings_of,
)
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.shards import bucket_count, partition_by_hash

_BOTH = ("different_labels", "training_and_testing")


def _digest(number: int) -> bytes:
  return hashlib.sha256(bytes([number])).digest()[:HASH_BYTES]


def _random_shards(seed: int) -> list[tuple[str, str, list[tuple[bytes, int, int]]]]:
  """(shard, split, (digest, place, class index) of its images): few different images, so that many meet."""
  rng = random.Random(seed)
  return [
    (
      f"{split}-{index}",
      split,
      [(_digest(rng.randrange(90)), 10 * place, rng.choice((0, 0, 0, 1, 2))) for place in range(rng.randrange(12))],
    )
    for split in ("training", "validation", "testing")
    for index in range(4)
  ]


def _plain(shards) -> set[tuple[str, int, bytes, tuple[str, ...], tuple[int, ...]]]:
  """Every image against every other."""
  images = [(shard, split, *image) for shard, split, found in shards for image in found]
  leaks = set()
  for shard, split, digest, place, class_index in images:
    others = [other for other in images if other[2] == digest]
    kinds = []
    if any(other[4] != class_index for other in others):
      kinds.append("different_labels")
    if any((other[1] == "testing") != (split == "testing") for other in others):
      kinds.append("training_and_testing")
    if kinds:
      leaks.add((shard, place, digest, tuple(kinds), tuple(sorted({other[4] for other in others}))))
  return leaks


@pytest.mark.parametrize("seed", range(5))
def test_leaks_of_random_shards_in_buckets_of_any_order(seed):
  shards = _random_shards(seed)
  buckets: dict[int, list[HashedImages]] = {}
  for shard, split, images in shards:
    for bucket, dealt in partition_by_hash(images, bucket_count(len(shards))).items():
      buckets.setdefault(bucket, []).append(HashedImages.pack(shard, split, dealt))
  assert len(buckets) > 2
  expected = _plain(shards)
  assert {kinds for _, _, _, kinds, _ in expected} == {(_BOTH[0],), (_BOTH[1],), _BOTH}
  for order in (1, -1):
    found = [leaks for met in buckets.values() for leaks in find_leaks(met[::order])]
    assert {(shard, *leak) for shard, leaks in found for leak in leaks} == expected
    assert sum(len(leaks) for _, leaks in found) == len(expected)


@pytest.mark.parametrize(
  ("classes", "splits", "kinds"),
  [
    ({1}, {"training"}, ()),
    ({1}, {"training", "validation"}, ()),
    ({1}, {"testing"}, ()),
    ({1}, {"training", "testing"}, _BOTH[1:]),
    ({1}, {"validation", "testing"}, _BOTH[1:]),
    ({1, 2}, {"validation"}, _BOTH[:1]),
    ({1, 2}, {"testing"}, _BOTH[:1]),
    ({1, 2}, {"training", "testing"}, _BOTH),
  ],
)
def test_what_is_a_leak(classes, splits, kinds):
  assert kinds_of(classes, splits) == kinds


def test_what_is_dropped_and_as_what():
  cases = itertools.product((_BOTH[:1], _BOTH[1:], _BOTH), ("training", "validation", "testing"))
  images = [LeakedImage("ab" * 32, "k.png", split, "a", kinds, ("a", "b"), size_bytes=7) for kinds, split in cases]
  kept = [(image.kinds, image.split) for image in images if not image.is_dropped]
  assert kept == [(_BOTH[1:], "testing")]
  assert images[0].quarantined("training") == Quarantined(
    "k.png",
    7,
    Reason.CONFLICTING_LABELS,
    "identical pictures have different labels ('a', 'b'): see the group abababababab in leaks.csv",
    "training",
  )
  leaked = LeakedImage("ab" * 32, "k.png", "training", "a", _BOTH[1:], ("a",)).quarantined("training")
  assert leaked.detail == "an identical picture is in testing: see the group abababababab in leaks.csv"
  reasons = [image.quarantined("training").reason for image in images]
  assert reasons == [Reason.CONFLICTING_LABELS] * 3 + [Reason.LEAKED] * 3 + [Reason.CONFLICTING_LABELS] * 3


_IMAGES = [
  LeakedImage("bb", "=1+1.png", "training", "a", _BOTH, ("a", "-b")),
  LeakedImage("bb", "line\nbreak.png", "testing", "-b", _BOTH, ("a", "-b")),
  LeakedImage("aa", "z.png", "validation", "a", _BOTH[1:], ("a",)),
  LeakedImage("aa", "y.png", "training", "a", _BOTH[1:], ("a",)),
  LeakedImage("aa", "x,y.png", "testing", "a", _BOTH[1:], ("a",)),
]


def test_the_csv_has_a_row_per_copy_and_kind_and_no_formula():
  text = leaks_csv(_IMAGES)
  assert all(leaks_csv(order) == text for order in itertools.permutations(_IMAGES))
  assert list(csv.reader(io.StringIO(text, newline=""))) == [
    ["kind", "sha256", "file_name", "split", "label"],
    ["different_labels", "bb", "'=1+1.png", "training", "a"],
    ["different_labels", "bb", "line\nbreak.png", "testing", "'-b"],
    ["training_and_testing", "aa", "x,y.png", "testing", "a"],
    ["training_and_testing", "aa", "y.png", "training", "a"],
    ["training_and_testing", "aa", "z.png", "validation", "a"],
    ["training_and_testing", "bb", "'=1+1.png", "training", "a"],
    ["training_and_testing", "bb", "line\nbreak.png", "testing", "'-b"],
  ]
  assert leaks_csv([]) == "kind,sha256,file_name,split,label\n"


def test_near_duplicates_have_three_columns_more_and_come_after_copies():
  near = LeakedImage("cc", "a.png", "training", "a", ("near_different_labels",), ("-b", "a"), like="=b.png")
  near = near._replace(like_sha256="dd", cosine=0.98765, hash_distance=3)
  back = near._replace(sha256="dd", key="=b.png", label="-b", like="a.png", like_sha256="cc", cosine=0.99)
  images = [near, back._replace(hash_distance=None), *_IMAGES[:2]]
  rows = list(csv.reader(io.StringIO(leaks_csv(images), newline="")))
  assert rows[0][5:] == ["like", "cosine", "hash_distance"]
  assert rows[1] == ["different_labels", "bb", "'=1+1.png", "training", "a", "", "", ""]
  assert [row[0:1] + row[2:3] + row[5:] for row in rows[3:5]] == [
    ["near_different_labels", "'=b.png", "a.png", "0.9900", ""],
    ["near_different_labels", "a.png", "'=b.png", "0.9877", "3"],
  ]
  counts = count_leaks(images)
  assert counts["near_different_labels"] == {"groups": 1, "images": 2}
  assert list(describe(counts).values())[-1] == "1 pair of near-duplicates has different labels (2 images)"


@pytest.mark.parametrize(
  ("labels", "splits", "kinds"),
  [
    ("aa", ("training", "training"), ("near_duplicates",)),
    ("aa", ("training", "validation"), ("near_duplicates",)),
    ("ab", ("all", "all"), ("near_different_labels",)),
    ("ab", ("training", "testing"), ("near_different_labels", "near_training_and_testing")),
  ],
)
def test_kinds_of_near_duplicates(labels, splits, kinds):
  assert near_kinds_of(set(labels), set(splits)) == kinds


def test_counts_from_the_images_and_from_the_csv():
  counts = {"different_labels": {"groups": 1, "images": 2}, "training_and_testing": {"groups": 2, "images": 5}}
  assert count_leaks(_IMAGES) == counts
  assert count_rows(io.StringIO(leaks_csv(_IMAGES), newline="")) == counts
  none = {kind: {"groups": 0, "images": 0} for kind in _BOTH}
  assert count_leaks([]) == count_rows(io.StringIO(leaks_csv([]))) == none


def test_a_line_for_each_kind_that_is_there():
  counts = {"different_labels": {"groups": 1, "images": 2}, "training_and_testing": {"groups": 1200, "images": 2500}}
  assert warnings_of(counts, "out/leaks.csv", OnLeak.WARN) == [
    "warning: 1 image has different labels (2 copies): out/leaks.csv; --on_leak drop leaves them out",
    "warning: 1,200 images are in training and in testing alike (2,500 copies): out/leaks.csv; --on_leak drop leaves"
    " them out of training",
  ]
  assert warnings_of(counts, "out/leaks.csv", OnLeak.DROP) == [
    "1 image has different labels (2 copies): all left out; see out/leaks.csv",
    "1,200 images are in training and in testing alike (2,500 copies): left out of training; see out/leaks.csv",
  ]
  assert warnings_of(count_leaks([]), "out/leaks.csv", OnLeak.WARN) == []


def test_buckets_hold_equal_digests_together_and_lose_none():
  hashed = [(_digest(number % 50), number) for number in range(200)]
  dealt = partition_by_hash(hashed, 7)
  assert sorted(entry for entries in dealt.values() for entry in entries) == sorted(hashed)
  owners: dict[bytes, set[int]] = {}
  for bucket, entries in dealt.items():
    for digest, _ in entries:
      owners.setdefault(digest, set()).add(bucket)
  assert {len(buckets) for buckets in owners.values()} == {1}
  assert len(dealt) == 7
