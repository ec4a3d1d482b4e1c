"""Leaks: identical images with different labels, or in both training and testing.

Leaks make the measured accuracy wrong: an image with two labels is wrong under one of them, and an image that was
trained on tests nothing. Validation counts as training: it decides when training ends.
"""

from __future__ import annotations

import csv
import enum
import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from beam_retrain.transforms.core.records.csv_format import csv_text, escape_cell
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import TESTING

LEAKS = "leaks"
"""In `stats.json`: kind -> {"groups": different images, "images": all their copies}."""

DIFFERENT_LABELS = "different_labels"
TRAINING_AND_TESTING = "training_and_testing"
KINDS = (DIFFERENT_LABELS, TRAINING_AND_TESTING)

_COLUMNS = ["kind", "sha256", "file_name", "split", "label"]


class OnLeak(enum.StrEnum):
  """How to handle leaks: the values of `--on_leak`."""

  WARN = "warn"  # list and count them
  DROP = "drop"  # also leave out all copies with different labels, and the training copies of testing images
  FAIL = "fail"  # stop before the trunk runs


class HashedImages(NamedTuple):
  """Images of one shard in one hash bucket.

  `count` is the number of images in the shard. Each of `images` is (SHA-256, 32 bytes; position in the shard, as its
  reader defines it; class index).
  """

  shard: str
  split: str
  count: int  # type: ignore[assignment]  # hides tuple.count, which is not used
  images: list[tuple[bytes, int, int]]


class Leak(NamedTuple):
  """A copy of a leaking image, by its position in its shard.

  `classes` are the class indices of all copies, ascending.
  """

  place: int
  digest: bytes
  kinds: tuple[str, ...]
  classes: tuple[int, ...]


class ShardLeaks(NamedTuple):
  """Leaks of one shard; as one element, Beam pickles them together.

  `count` is the number of images in the shard; the leaks are in any order.
  """

  count: int  # type: ignore[assignment]  # hides tuple.count, which is not used
  leaks: list[Leak]


class LeakedImage(NamedTuple):
  """A copy of a leaking image, by name.

  Attributes:
    sha256: 64 hex digits.
    kinds: its kinds of leak, of `KINDS`.
    labels: of all copies, in the order of the label list.
  """

  sha256: str
  key: str
  split: str
  label: str
  kinds: tuple[str, ...]
  labels: tuple[str, ...]

  @property
  def is_dropped(self) -> bool:
    """Whether `--on_leak drop` leaves this copy out."""
    return DIFFERENT_LABELS in self.kinds or self.split != TESTING

  def quarantined(self, size_bytes: int, split: str) -> Quarantined:
    """Returns the quarantine entry of a dropped copy."""
    if DIFFERENT_LABELS in self.kinds:
      labels = ", ".join(map(repr, self.labels[:5])) + (", ..." if len(self.labels) > 5 else "")
      detail = f"identical images have different labels ({labels}): see the group {self.sha256[:12]} in leaks.csv"
      return Quarantined(self.key, size_bytes, Reason.CONFLICTING_LABELS, detail, split)
    detail = f"an identical image is in testing: see the group {self.sha256[:12]} in leaks.csv"
    return Quarantined(self.key, size_bytes, Reason.LEAKED, detail, split)


def find_leaks(bucket: Iterable[HashedImages]) -> Iterator[tuple[str, ShardLeaks]]:
  """Yields (shard file name, its leaks) of one bucket, in any order."""
  copies: dict[bytes, list[tuple[str, int, int]]] = defaultdict(list)
  shards: dict[str, tuple[str, int]] = {}
  for shard, split, count, images in bucket:
    shards[shard] = split, count
    for digest, place, class_index in images:
      copies[digest].append((shard, place, class_index))
  leaks: dict[str, list[Leak]] = defaultdict(list)
  for digest, group in copies.items():
    if len(group) == 1:
      continue
    classes = tuple(sorted({class_index for _, _, class_index in group}))
    kinds = kinds_of(classes, {shards[shard][0] for shard, _, _ in group})
    if kinds:
      for shard, place, _ in group:
        leaks[shard].append(Leak(place, digest, kinds, classes))
  for shard, shard_leaks in leaks.items():
    yield shard, ShardLeaks(shards[shard][1], shard_leaks)


def kinds_of(classes: Collection[object], splits: Collection[str]) -> tuple[str, ...]:
  """Returns the kinds of leak, of `KINDS`, among identical images.

  `classes` and `splits` are the different ones among them.
  """
  different_labels = (DIFFERENT_LABELS,) if len(classes) > 1 else ()
  training_and_testing = (TRAINING_AND_TESTING,) if TESTING in splits and len(splits) > 1 else ()
  return different_labels + training_and_testing


def count_leaks(images: Iterable[LeakedImage]) -> dict[str, dict[str, int]]:
  """Counts leaks: kind -> {"groups": different images, "images": all copies}.

  An image with both kinds counts in both.
  """
  return _count((kind, image.sha256) for image in images for kind in image.kinds)


def count_rows(lines: Iterable[str]) -> dict[str, dict[str, int]]:
  """Returns the same as `count_leaks`, from lines of `leaks_csv`."""
  return _count((row[0], row[1]) for row in itertools.islice(csv.reader(lines), 1, None))


def _count(copies: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
  copies_of_kind: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
  for kind, sha256 in copies:
    copies_of_kind[kind][sha256] += 1
  return {kind: {"groups": len(counter), "images": counter.total()} for kind, counter in copies_of_kind.items()}


def leaks_csv(images: Iterable[LeakedImage]) -> str:
  """Returns `leaks.csv`: one row per copy and kind, sorted, copies together."""
  copies = sorted((kind, entry) for entry in images for kind in entry.kinds)
  rows = (
    [kind, sha256, escape_cell(key), split, escape_cell(label)] for kind, (sha256, key, split, label, *_) in copies
  )
  return csv_text([_COLUMNS, *rows])


def describe(counts: Mapping[str, Mapping[str, int]]) -> dict[str, str]:
  """Returns kind -> phrase with its counts, for the kinds found."""
  words = {
    DIFFERENT_LABELS: ("has different labels", "have different labels"),
    TRAINING_AND_TESTING: ("is in training and in testing alike", "are in training and in testing alike"),
  }
  return {
    kind: f"{_images(count['groups'])} {words[kind][count['groups'] != 1]} ({count['images']:,} copies)"
    for kind, count in counts.items()
    if count["groups"]
  }


def _images(count: int) -> str:
  return "1 image" if count == 1 else f"{count:,} images"


def warnings_of(counts: Mapping[str, Mapping[str, int]], path: str, on_leak: OnLeak) -> Sequence[str]:
  """Returns a line for each kind of leak in `counts`.

  `path` is the CSV file, as a user would type it.
  """
  remedies = {DIFFERENT_LABELS: "leaves them out", TRAINING_AND_TESTING: "leaves them out of training"}
  done = {DIFFERENT_LABELS: "all left out", TRAINING_AND_TESTING: "left out of training"}
  return [
    f"{words}: {done[kind]}; see {path}"
    if on_leak == OnLeak.DROP
    else f"warning: {words}: {path}; --on_leak drop {remedies[kind]}"
    for kind, words in describe(counts).items()
  ]
