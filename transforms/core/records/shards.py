"""Shards, the unit of work; their inputs; and reports of finished ones."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import pickle
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import Image, shard_name
from beam_retrain.transforms.core.system.small_files import parse_json

if TYPE_CHECKING:
  from beam_retrain.transforms.core.corrections import Correcting

HashedEntry = TypeVar("HashedEntry", bound=tuple[Any, ...])

IMAGES_PER_SHARD = 1024
SAMPLED_FROM = 100_000
"""Names at most, about, of which a sample is drawn: it is as good as of all."""

_ZLIB_LEVEL = 1

BOTTLENECKS = "bottlenecks"
"""In a report's `extra` and in `stats.json`: the `BottleneckCounts`."""


ORIENTED = "oriented"
"""In a report's `extra` and in `stats.json`: the number of images whose EXIF orientation is not upright."""


@dataclasses.dataclass(frozen=True)
class BottleneckCounts:
  """Numbers of images that the trunk ran over, and identical ones."""

  computed: int
  reused: int


def some_oriented(count: int) -> dict[str, int]:
  """Returns the entry of a report's `extra`, if there are any."""
  return {ORIENTED: count} if count else {}


class Input(Protocol):
  """One or more images of a shard, counted and read by workers.

  Each format implements it as a `NamedTuple`, whose fields are part of the shard's digest.
  """

  def count_images(self) -> int | None:
    """Returns the number of images; None if unknown until read."""

  def names(self, split: str) -> Iterator[tuple[str, str | None]]:
    """Yields (key, label) of each image; the label is None if bad."""

  def read(self, split: str) -> Iterator[Image | Quarantined]:
    """Yields one item per image, in order.

    Raises InputError if a file has changed since it was planned.
    """

  def read_where(self, split: str, is_wanted: Callable[[str], bool]) -> Iterator[Image | Quarantined]:
    """Yields the wanted images; nothing if the input holds no images."""

  def pick(self, numbers: Sequence[int]) -> Iterator[Input]:
    """Yields inputs of some images: ascending numbers, 0 for the first."""


class StoredBottleneck(NamedTuple):
  """An image whose bottleneck is, or will be, in a record file.

  `key` and `label` are today's; `position` is the start byte in the file at `path`, or None if it must be looked up by
  its sha256; `computed` is whether the trunk ran over this very image rather than an identical one, `oriented` whether
  it has an EXIF orientation.
  """

  key: str
  label: str
  size_bytes: int
  sha256: str
  path: str
  position: int | None
  computed: bool
  oriented: bool = False

  def count_images(self) -> int:
    return 1

  def names(self, split: str) -> Iterator[tuple[str, str | None]]:
    yield self.key, self.label

  def read(self, split: str) -> Iterator[Image | Quarantined]:
    raise TypeError("a StoredBottleneck has no image to read")

  def read_where(self, split: str, is_wanted: Callable[[str], bool]) -> Iterator[Image | Quarantined]:
    return iter(())

  def pick(self, numbers: Sequence[int]) -> Iterator[Input]:
    yield self


class Shard(NamedTuple):
  """The unit of work: its `inputs`, in order, become one file.

  `same_as`, if not empty, is the digest of a shard with other inputs but the same output bytes, for example when
  bottlenecks come from a store here. It then identifies this shard. `corrections` are of its images' labels,
  `identity` is of its image files where the inputs are not these files.
  """

  split: str
  index: int  # type: ignore[assignment]  # hides tuple.index, which is not used
  of: int
  inputs: tuple[Input, ...]
  same_as: str = ""
  corrections: Correcting | None = None
  identity: str = ""

  def __reduce__(self) -> Any:
    # A single range is not compressed: its pixels, if they are in it, would hardly shrink.
    return (
      (_unpack_shard, (pack(self.inputs), *self._replace(inputs=()))) if len(self.inputs) > 1 else (Shard, tuple(self))
    )

  def name(self, suffix: str = "tfrecord") -> str:
    return shard_name(self.split, self.index, self.of, suffix)

  def digest(self, request: str) -> str:
    """Returns the digest of all that determines the shard file's bytes.

    `request` is the digest of the command's settings; both have 64 hex digits.
    """
    if self.same_as:
      return self.same_as
    corrected = [self.corrections.digest] if self.corrections else []
    described = json.dumps([request, self.split, self.index, self.of, self.inputs, *corrected], default=_describe)
    return hashlib.sha256(described.encode()).hexdigest()

  def names(self) -> Iterator[tuple[str, str | None]]:
    """Yields (key, label) of each image; the label is None if bad.

    Labels are corrected by the names alone: no image is read.
    """
    for entry in self.inputs:
      for key, label in entry.names(self.split):
        yield key, self.corrections.by_name(key, label) if self.corrections else label

  def begun(self) -> Shard:
    """Returns the shard with a new tally, unless it was read."""
    return self if self.same_as or not self.corrections else self._replace(corrections=self.corrections.begun())

  def read_images(self, labels: Collection[str]) -> Iterator[Image | Quarantined]:
    """Yields one item per image, in order; quarantines labels not in `labels`."""
    for entry in self.inputs:
      for read in entry.read(self.split):
        image = self.corrections.correct(read) if self.corrections and isinstance(read, Image) else read
        if isinstance(image, Image) and image.label not in labels:
          detail = f"label {image.label!r} is not one of the {len(labels)} labels"
          yield Quarantined(image.key, len(image.encoded), Reason.BAD_LABEL, detail, self.split)
        else:
          yield image


def _unpack_shard(packed: bytes, *others: Any) -> Shard:
  return Shard(*others)._replace(inputs=unpack(packed))


def pick_inputs(inputs: Sequence[Input], positions: Sequence[int]) -> tuple[Input, ...]:
  """Returns the inputs of some of a shard's images.

  Only the last input may be of unknown size. `positions` are ascending and unique, 0 for the shard's first image.
  """
  picked: list[Input] = []
  start, taken = 0, 0
  for number, entry in enumerate(inputs, 1):
    if taken == len(positions):
      break
    count = sys.maxsize if number == len(inputs) else entry.count_images()
    assert count is not None, "only the last input may be of unknown size"
    first = taken
    while taken < len(positions) and positions[taken] < start + count:
      taken += 1
    if taken > first:
      picked += entry.pick([position - start for position in positions[first:taken]])
    start += count
  return tuple(picked)


def read_picked(entry: Input, split: str, is_wanted: Callable[[str], bool]) -> Iterator[Image | Quarantined]:
  """Implements `Input.read_where` for formats whose names are cheap to read."""
  numbers = [number for number, (key, _) in enumerate(entry.names(split)) if is_wanted(key)]
  if numbers:
    for picked in entry.pick(numbers):
      yield from picked.read(split)


def _describe(value: Any) -> Any:
  """Encodes a field for the digest that JSON cannot."""
  return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value.to_json()


WRITTEN = "files"
"""Entry of a report: (path, size in bytes, SHA-256) of each file that the shard wrote besides its own."""


@dataclasses.dataclass(frozen=True)
class ShardReport:
  """Report of a finished shard; `inputs` is `outputs` plus quarantined images.

  `file` is the name, `size_bytes` and `sha256` are of its file; `labels` are label -> records written; `extra` are
  entries of one kind of job only, JSON values.
  """

  file: str
  split: str
  inputs: int
  outputs: int
  size_bytes: int
  sha256: str
  digest: str
  labels: Mapping[str, int]
  quarantined: tuple[Quarantined, ...] = ()
  extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def to_json(self) -> str:
    return json.dumps(dataclasses.asdict(self), sort_keys=True)

  @classmethod
  def from_json(cls, text: str) -> ShardReport:
    """Inverse of `to_json`; raises ValueError, TypeError or KeyError."""
    values = json.loads(text)
    if "/" in values["file"]:
      raise ValueError(f"{values['file']} is not a file's name")
    if unknown := values.keys() - {field.name for field in dataclasses.fields(cls)}:
      raise ValueError(f"of another version, with {min(unknown)!r}")
    return parse_json(cls, values)


# Compressed pickling of records in transit: a list of a thousand files repeats the same folders a thousand times, and
# the local runner keeps in memory what crosses a shuffle. Only workers of the same job unpickle it; it is not stored.


def pack(items: Sequence[Any]) -> bytes:
  """Packs items; named tuples of one kind by columns, which is faster."""
  kinds = set(map(type, items))
  kind = kinds.pop() if len(kinds) == 1 else None
  data = (kind, tuple(zip(*items, strict=True))) if hasattr(kind, "_make") else (None, tuple(items))
  return zlib.compress(pickle.dumps(data, pickle.HIGHEST_PROTOCOL), _ZLIB_LEVEL)


def unpack(packed: bytes) -> tuple[Any, ...]:
  kind, data = pickle.loads(zlib.decompress(packed))
  return tuple(map(kind._make, zip(*data, strict=True))) if kind else data


def reduce_packed(record: tuple[Any, ...]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
  """Implements `__reduce__` of a named tuple, so that it is pickled compressed."""
  return _unpack_record, (type(record), pack(record))


def _unpack_record(kind: Callable[..., Any], packed: bytes) -> Any:
  return kind(*unpack(packed))


def bucket_count(shards: int) -> int:
  """Returns the number of hash buckets: the square root of `shards`.

  A million images in 1,000 shards make 32,000 elements of 32 hashes, and buckets of 31,000.
  """
  return max(1, math.isqrt(max(0, shards - 1)) + 1)


def partition_by_hash(hashed: Iterable[HashedEntry], buckets: int) -> dict[int, list[HashedEntry]]:
  """Returns bucket -> entries; each entry begins with a SHA-256, 32 bytes."""
  partitioned: dict[int, list[HashedEntry]] = defaultdict(list)
  for entry in hashed:
    partitioned[int.from_bytes(entry[0][:8], "big") % buckets].append(entry)
  return partitioned
