"""The unit of work, and what is said of it when it is done: plain records, no Beam."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from beam_retrain.transforms.core.records.compressed_pickle import reduce_packed
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import shard_name

IMAGES_PER_SHARD = 1024

BOTTLENECKS = "bottlenecks"
"""In a report's `extra` and in `stats.json`: {"computed": n, "reused": m}, n + m records written. The trunk ran for n
images; m have the bytes of one that it ran for, in an earlier run or in this one."""


class ImageFile(NamedTuple):
  """One image in a file of its own; `path` is empty where its name is not UTF-8, and so cannot be read."""

  key: str
  label: str
  path: str
  size_bytes: int
  modified_secs: float


@dataclasses.dataclass(frozen=True)
class SetAside:
  """Bytes that wait in a scratch file, which the workers of this job can read, until their shard is worked.

  Attributes:
    path: of the file.
    start: where in it they begin.
    size_bytes: how many there are.
    sha256: theirs, 64 hex digits.
  """

  path: str
  start: int
  size_bytes: int
  sha256: str

  def read(self) -> bytes:
    with open(self.path, "rb") as file:
      file.seek(self.start)
      return file.read(self.size_bytes)


class IdxRange(NamedTuple):
  """`count` images of an IDX file from `start` on; `pixels` and `labels` are None where they can be read from the
  files, else the raw bytes (a gzip file cannot be read from the middle), or where they wait. `modified_secs` is that of
  the file that changed last: a changed file is another digest."""

  images_path: str
  labels_path: str
  start: int
  count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls
  rows: int
  columns: int
  pixels: bytes | SetAside | None
  labels: bytes | None
  modified_secs: float = 0.0


class RecordsFile(NamedTuple):
  """One file of image or bottleneck records."""

  path: str
  size_bytes: int
  modified_secs: float


class PickedRecords(NamedTuple):
  """Some image records of a file: `numbers` says which, 0 for the first, ascending."""

  path: str
  size_bytes: int
  modified_secs: float
  numbers: tuple[int, ...]


class StoredBottleneck(NamedTuple):
  """A image whose bottleneck need not be computed where it is asked for: it is, or will be, in a file of records.

  Attributes:
    key: today's name of the image.
    label: today's label.
    size_bytes: of the image.
    sha256: 64 hex digits.
    path: the file of bottleneck records.
    position: the byte at which the record starts; None where it has to be looked up by its sha256.
    computed: whether the trunk was run for this very image, and not for another of the same bytes.
  """

  key: str
  label: str
  size_bytes: int
  sha256: str
  path: str
  position: int | None
  computed: bool


Input = ImageFile | IdxRange | RecordsFile | PickedRecords | StoredBottleneck | Quarantined
"""`Quarantined` is a image that was found bad before its shard was worked."""


class Shard(NamedTuple):
  """What one worker does in one go: `inputs`, in order, become the shard's file.

  `same_as` is the digest of a shard with other inputs whose file has the same bytes: what is computed from the images
  there is found in a store here, say. Then it is this shard's digest too; empty: there is none.
  """

  split: str
  index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls
  of: int
  inputs: tuple[Input, ...]
  same_as: str = ""

  def __reduce__(self) -> Any:
    # Not a single range, whose pixels, if they travel at all, are noise to whatever would compress them.
    return reduce_packed(self) if len(self.inputs) > 1 else (Shard, tuple(self))

  def name(self, suffix: str = "tfrecord") -> str:
    return shard_name(self.split, self.index, self.of, suffix)

  def digest(self, request: str) -> str:
    """Returns what the shard's file is made of, in 64 hex digits: the same digest promises the same bytes.

    Args:
      request: what is done with the inputs: the digest of the command's own settings.
    """
    if self.same_as:
      return self.same_as
    described = json.dumps([request, self.split, self.index, self.of, self.inputs], default=_describe)
    return hashlib.sha256(described.encode()).hexdigest()


def pick_inputs(inputs: Sequence[Input], positions: Sequence[int]) -> tuple[Input, ...]:
  """Returns the inputs of some of a shard's images, as few and as small as can be.

  Args:
    inputs: those of a shard, as a source planned it; a `RecordsFile` is the last or only one.
    positions: of the images, 0 for the shard's first, ascending, each once.
  """
  picked: list[Input] = []
  start, taken = 0, 0
  for entry in inputs:
    end = start + _images_in(entry)
    first = taken
    while taken < len(positions) and positions[taken] < end:
      taken += 1
    if taken > first:
      picked += _pick(entry, [position - start for position in positions[first:taken]])
    start = end
  return tuple(picked)


def _images_in(entry: Input) -> int:
  match entry:
    case IdxRange():
      return entry.count
    case RecordsFile():
      return sys.maxsize  # only its reader knows
    case PickedRecords():
      return len(entry.numbers)
    case _:
      return 1


def _pick(entry: Input, numbers: list[int]) -> Iterator[Input]:
  """Yields what is left of one input: `numbers` count from its first image."""
  match entry:
    case IdxRange():
      # Runs of neighbours: what rises by one from one to the next keeps its distance to its place in the list.
      for _, run in itertools.groupby(enumerate(numbers), lambda placed: placed[1] - placed[0]):
        first, *others = (number for _, number in run)
        yield _cut_range(entry, first, 1 + len(others))
    case RecordsFile():
      yield PickedRecords(*entry, tuple(numbers))
    case PickedRecords():
      yield entry._replace(numbers=tuple(entry.numbers[number] for number in numbers))
    case _:
      yield entry


def _cut_range(entry: IdxRange, start: int, count: int) -> IdxRange:
  pixels, labels = entry.pixels, entry.labels
  if isinstance(pixels, SetAside):
    pixels = pixels.read()
  size = entry.rows * entry.columns
  return entry._replace(
    start=entry.start + start,
    count=count,
    pixels=None if pixels is None else pixels[start * size : (start + count) * size],
    labels=None if labels is None else labels[start : start + count],
  )


def _describe(value: bytes | SetAside | Quarantined) -> Any:
  if isinstance(value, SetAside):
    return value.sha256  # as if they travelled
  return dataclasses.asdict(value) if isinstance(value, Quarantined) else hashlib.sha256(value).hexdigest()


@dataclasses.dataclass(frozen=True)
class ShardReport:
  """What a worker says of one finished shard. `inputs = outputs + len(quarantined)`, or the job has failed.

  Attributes:
    file: the shard's file name.
    split: its split.
    inputs: images read.
    outputs: records written.
    size_bytes: the file's size.
    sha256: the file's checksum, 64 hex digits.
    digest: `Shard.digest` of what made it.
    labels: records written per label.
    quarantined: the images left out.
    extra: what only one kind of job has to say, JSON values.
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
    """Inverse of `to_json`.

    Raises:
      ValueError, TypeError, KeyError: the text is not a report.
    """
    fields = json.loads(text)
    fields["quarantined"] = tuple(
      Quarantined(**{**entry, "reason": Reason(entry["reason"])}) for entry in fields["quarantined"]
    )
    return cls(**fields)
