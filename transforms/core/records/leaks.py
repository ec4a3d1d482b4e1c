"""Leaks: identical images with different labels, or in both training and testing.

Leaks make the measured accuracy wrong: an image with two labels is wrong under one of them, and an image that was
trained on tests nothing. Validation counts as training: it decides when training ends.
"""

from __future__ import annotations

import csv
import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from beam_retrain.transforms.core.records.csv_format import csv_text, escape_cell
from beam_retrain.transforms.core.records.quarantine import OnLeak, Quarantined, Reason
from beam_retrain.transforms.core.records.schema import TESTING

DIFFERENT_LABELS = "different_labels"
TRAINING_AND_TESTING = "training_and_testing"
KINDS = (DIFFERENT_LABELS, TRAINING_AND_TESTING)

HASH_BYTES = 12
"""Of a SHA-256: 96 bits tell a billion images apart."""

_COLUMNS = ["kind", "sha256", "file_name", "split", "label"]


HashedImage = tuple[bytes, int, int]
"""The first `HASH_BYTES` of an image's SHA-256, its position in the shard, and its class index."""

_HASHED = np.dtype([("digest", f"S{HASH_BYTES}"), ("position", "<u4"), ("class_index", "<u4")])


class HashedImages(NamedTuple):
  """Images of one shard in one hash bucket, packed."""

  shard: str
  split: str
  packed: bytes

  @classmethod
  def pack(cls, shard: str, split: str, images: Sequence[HashedImage]) -> HashedImages:
    return cls(shard, split, np.array(images, _HASHED).tobytes())

  def unpack(self) -> np.ndarray:
    return np.frombuffer(self.packed, _HASHED)


class Leak(NamedTuple):
  """A copy of a leaking image, by its position in its shard.

  `digest` is as in `HashedImage`; `classes` are the class indices of all copies, ascending.
  """

  position: int
  digest: bytes
  kinds: tuple[str, ...]
  classes: tuple[int, ...]

  def named(self, sha256: str, key: str, split: str, label: str, labels: Sequence[str]) -> LeakedImage:
    """Returns the image by name; `labels` is the label list."""
    all_labels = tuple(labels[index] for index in self.classes)
    return LeakedImage(sha256, key, split, label, self.kinds, all_labels, self.position)


class LeakedImage(NamedTuple):
  """A copy of a leaking image, by name."""

  sha256: str  # 64 hex digits
  key: str
  split: str
  label: str
  kinds: tuple[str, ...]  # of `KINDS`
  labels: tuple[str, ...]  # of all copies, in the order of the label list
  position: int = 0  # in its shard
  size_bytes: int = 0  # of the image, if it was read

  @property
  def is_dropped(self) -> bool:
    """Whether `--on_leak drop` leaves this copy out."""
    return DIFFERENT_LABELS in self.kinds or self.split != TESTING

  def quarantined(self, split: str) -> Quarantined:
    """Returns the quarantine entry of a dropped copy; `split`: the shard's."""
    if DIFFERENT_LABELS in self.kinds:
      labels = ", ".join(map(repr, self.labels[:5])) + (", ..." if len(self.labels) > 5 else "")
      # "pictures": bytes of quarantine.csv and of shard reports are those of 0.4.
      detail = f"identical pictures have different labels ({labels}): see the group {self.sha256[:12]} in leaks.csv"
      return Quarantined(self.key, self.size_bytes, Reason.CONFLICTING_LABELS, detail, split)
    detail = f"an identical picture is in testing: see the group {self.sha256[:12]} in leaks.csv"
    return Quarantined(self.key, self.size_bytes, Reason.LEAKED, detail, split)


def find_leaks(bucket: Iterable[HashedImages]) -> Iterator[tuple[str, list[Leak]]]:
  """Yields (shard file name, its leaks) of one bucket, in any order."""
  shards = [(shard.shard, shard.split, shard.unpack()) for shard in bucket]
  digests, counts = np.unique(np.concatenate([images["digest"] for _, _, images in shards]), return_counts=True)
  copies: dict[bytes, list[tuple[str, str, int, int]]] = defaultdict(list)
  for shard, split, images in shards:
    for digest, position, class_index in images[np.isin(images["digest"], digests[counts > 1])].tolist():
      copies[digest].append((shard, split, position, class_index))
  leaks: dict[str, list[Leak]] = defaultdict(list)
  for digest, group in copies.items():
    classes = tuple(sorted({class_index for *_, class_index in group}))
    if kinds := kinds_of(classes, {split for _, split, *_ in group}):
      for shard, _, position, _ in group:
        leaks[shard].append(Leak(position, digest, kinds, classes))
  yield from leaks.items()


def kinds_of(classes: Collection[object], splits: Collection[str]) -> tuple[str, ...]:
  """Returns the kinds of leak of images with these classes and splits."""
  different_labels = (DIFFERENT_LABELS,) if len(classes) > 1 else ()
  training_and_testing = (TRAINING_AND_TESTING,) if TESTING in splits and len(splits) > 1 else ()
  return different_labels + training_and_testing


def count_leaks(images: Iterable[LeakedImage]) -> dict[str, dict[str, int]]:
  """Counts leaks: kind -> {"groups": different images, "images": all copies}."""
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
    DIFFERENT_LABELS: ("image has different labels", "images have different labels"),
    TRAINING_AND_TESTING: ("image is in training and in testing alike", "images are in training and in testing alike"),
  }
  return {
    kind: f"{count['groups']:,} {words[kind][count['groups'] != 1]} ({count['images']:,} copies)"
    for kind, count in counts.items()
    if count["groups"]
  }


def warnings_of(counts: Mapping[str, Mapping[str, int]], path: str, on_leak: OnLeak) -> Sequence[str]:
  """Returns a line for each kind; `path` is of the CSV file."""
  remedies = {DIFFERENT_LABELS: "leaves them out", TRAINING_AND_TESTING: "leaves them out of training"}
  done = {DIFFERENT_LABELS: "all left out", TRAINING_AND_TESTING: "left out of training"}
  return [
    f"{words}: {done[kind]}; see {path}"
    if on_leak == OnLeak.DROP
    else f"warning: {words}: {path}; --on_leak drop {remedies[kind]}"
    for kind, words in describe(counts).items()
  ]
