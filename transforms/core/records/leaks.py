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
NEAR = "near_"
"""Before a kind: the images are near-duplicates, not the same bytes."""
NEAR_DUPLICATES = f"{NEAR}duplicates"
"""Near-duplicates of one label, of one split or both of training."""

HASH_BYTES = 12
"""Of a SHA-256: 96 bits tell a billion images apart."""

_COLUMNS = ["kind", "sha256", "file_name", "split", "label"]
_NEAR_COLUMNS = ["like", "cosine", "hash_distance"]


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
  """A copy of a leaking image, or a near-duplicate, by name.

  `like`, `like_sha256` and `cosine` are of the most similar image; `hash_distance` is in bits of 64, None if unknown.
  """

  sha256: str  # 64 hex digits
  key: str
  split: str
  label: str
  kinds: tuple[str, ...]  # of `KINDS`, also after `NEAR`, or `NEAR_DUPLICATES`
  labels: tuple[str, ...]  # of all copies, in the order of the label list
  position: int = 0  # in its shard
  size_bytes: int = 0  # of the image, if it was read
  like: str = ""
  like_sha256: str = ""
  cosine: float = 1.0
  hash_distance: int | None = None

  @property
  def group(self) -> str:
    """Returns what its copies, or two near-duplicates, have in common."""
    return min(self.sha256, self.like_sha256) + max(self.sha256, self.like_sha256) if self.like else self.sha256

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


def near_kinds_of(labels: Collection[str], splits: Collection[str]) -> tuple[str, ...]:
  """Returns the kinds of two near-duplicates with these labels and splits."""
  return tuple(NEAR + kind for kind in kinds_of(labels, splits)) or (NEAR_DUPLICATES,)


def count_leaks(images: Iterable[LeakedImage]) -> dict[str, dict[str, int]]:
  """Counts leaks: kind -> {"groups": different images, "images": all copies}."""
  return _count((kind, image.group) for image in images for kind in image.kinds)


def count_rows(lines: Iterable[str]) -> dict[str, dict[str, int]]:
  """Returns the same as `count_leaks`, from lines of `leaks_csv`."""
  return _count((row[0], row[1]) for row in itertools.islice(csv.reader(lines), 1, None))


def _count(copies: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
  copies_of_kind: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
  for kind, sha256 in copies:
    copies_of_kind.setdefault(kind, Counter())[sha256] += 1
  return {kind: {"groups": len(counter), "images": counter.total()} for kind, counter in copies_of_kind.items()}


def leaks_csv(images: Iterable[LeakedImage]) -> str:
  """Returns `leaks.csv`: one row per copy and kind, sorted, copies together.

  Near-duplicates have three columns more, the most alike first.
  """
  copies = sorted(((kind, entry) for entry in images for kind in entry.kinds), key=_order)
  has_near = any(entry.like for _, entry in copies)
  rows = ([*_cells(kind, entry), *(_near_cells(entry) if has_near else ())] for kind, entry in copies)
  return csv_text([[*_COLUMNS, *(_NEAR_COLUMNS if has_near else ())], *rows])


def _order(copy: tuple[str, LeakedImage]) -> tuple[str, float, str, str, str, str]:
  kind, entry = copy
  return kind, -entry.cosine, entry.sha256, entry.key, entry.split, entry.label


def _cells(kind: str, entry: LeakedImage) -> list[str]:
  return [kind, entry.sha256, escape_cell(entry.key), entry.split, escape_cell(entry.label)]


def _near_cells(entry: LeakedImage) -> list[str]:
  if not entry.like:
    return ["", "", ""]
  bits = "" if entry.hash_distance is None else str(entry.hash_distance)
  return [escape_cell(entry.like), f"{entry.cosine:.4f}", bits]


def describe(counts: Mapping[str, Mapping[str, int]]) -> dict[str, str]:
  """Returns kind -> phrase with its counts, for the kinds found."""
  pairs = ("pair of near-duplicates", "pairs of near-duplicates")
  words = {
    DIFFERENT_LABELS: ("image has different labels", "images have different labels"),
    TRAINING_AND_TESTING: ("image is in training and in testing alike", "images are in training and in testing alike"),
    NEAR + DIFFERENT_LABELS: (f"{pairs[0]} has different labels", f"{pairs[1]} have different labels"),
    NEAR + TRAINING_AND_TESTING: (f"{pairs[0]} is in training and testing", f"{pairs[1]} are in training and testing"),
    NEAR_DUPLICATES: pairs,
  }
  return {
    kind: f"{found['groups']:,} {phrases[found['groups'] != 1]} ({found['images']:,} {_of_kind(kind)})"
    for kind, phrases in words.items()
    if (found := counts.get(kind, {"groups": 0, "images": 0}))["groups"]
  }


def _of_kind(kind: str) -> str:
  return "images" if kind.startswith(NEAR) else "copies"


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
