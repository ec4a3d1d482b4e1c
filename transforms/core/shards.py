"""The unit of work, and what is said of it when it is done: plain records, no Beam."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from transforms.core.errors import InputError
from transforms.core.quarantine import Quarantined, Reason
from transforms.core.schema import TESTING, TRAINING, shard_name

IMAGES_PER_SHARD = 1024


class ImageFile(NamedTuple):
  """One picture in a file of its own; `path` is empty where its name is not UTF-8, and so cannot be read."""

  key: str
  label: str
  path: str
  size_bytes: int
  modified_secs: float


class IdxRange(NamedTuple):
  """`count` images of an IDX file from `start` on; `pixels` and `labels` are None where they can be read from the
  files, else the raw bytes (a gzip file cannot be read from the middle). `modified_secs` is that of the file that
  changed last: a changed file is another digest."""

  images_path: str
  labels_path: str
  start: int
  count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls
  rows: int
  columns: int
  pixels: bytes | None
  labels: bytes | None
  modified_secs: float = 0.0


class RecordsFile(NamedTuple):
  """One file of image or bottleneck records."""

  path: str
  size_bytes: int
  modified_secs: float


Input = ImageFile | IdxRange | RecordsFile


class Shard(NamedTuple):
  """What one worker does in one go: `inputs`, in order, become the shard's file."""

  split: str
  index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls
  of: int
  inputs: tuple[Input, ...]

  def name(self, suffix: str = "tfrecord") -> str:
    return shard_name(self.split, self.index, self.of, suffix)

  def digest(self, request: str) -> str:
    """Returns what the shard's file is made of, in 64 hex digits: the same digest promises the same bytes.

    Args:
      request: what is done with the inputs: the digest of the command's own settings.
    """
    described = json.dumps([request, self.split, self.index, self.of, self.inputs], default=_hash_bytes)
    return hashlib.sha256(described.encode()).hexdigest()


def _hash_bytes(value: bytes) -> str:
  return hashlib.sha256(value).hexdigest()


@dataclasses.dataclass(frozen=True)
class ShardReport:
  """What a worker says of one finished shard. `inputs = outputs + len(quarantined)`, or the job has failed.

  Attributes:
    file: the shard's file name.
    split: its split.
    inputs: pictures read.
    outputs: records written.
    size_bytes: the file's size.
    sha256: the file's checksum, 64 hex digits.
    digest: `Shard.digest` of what made it.
    labels: records written per label.
    quarantined: the pictures left out.
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


def check_ledger(reports: Iterable[ShardReport], planned: Mapping[str, int]) -> dict[str, Any]:
  """Adds up the reports of a finished job and checks that nothing was lost and nothing counted twice.

  Args:
    reports: one per shard, in any order.
    planned: split -> number of shards that were planned.

  Returns:
    The contents of `stats.json`: per split inputs, outputs, quarantined, shards and records per label; quarantined
    inputs per reason; `bad_fraction`, 0..1.

  Raises:
    InputError: the ledger does not close; says where.
  """
  splits: dict[str, dict[str, Any]] = {
    split: {"inputs": 0, "outputs": 0, "quarantined": 0, "shards": 0, "labels": Counter()}
    # The plan is counted in whatever order the workers come: the bytes of `stats.json` must not tell.
    for split in sorted(planned, key=lambda split: (split != TRAINING, split == TESTING, split))
  }
  reasons: Counter[str] = Counter()
  seen: set[str] = set()
  for report in reports:
    if report.file in seen:
      raise InputError(f"the ledger does not close: shard {report.file} was reported twice; run the command again.")
    seen.add(report.file)
    if report.inputs != report.outputs + len(report.quarantined) or report.outputs != sum(report.labels.values()):
      raise InputError(
        f"the ledger does not close: shard {report.file} read {report.inputs} inputs but wrote {report.outputs} and"
        f" quarantined {len(report.quarantined)}; please report this as a bug."
      )
    totals = splits[report.split]
    totals["inputs"] += report.inputs
    totals["outputs"] += report.outputs
    totals["quarantined"] += len(report.quarantined)
    totals["shards"] += 1
    totals["labels"].update(report.labels)
    reasons.update(str(entry.reason) for entry in report.quarantined)
  for split, shards in planned.items():
    if splits[split]["shards"] != shards:
      raise InputError(
        f"the ledger does not close: {splits[split]['shards']} of {shards} {split} shards were reported;"
        " run the command again to compute the rest."
      )
  inputs = sum(totals["inputs"] for totals in splits.values())
  bad = sum(reasons.values())
  return {
    "splits": {split: {**totals, "labels": dict(sorted(totals["labels"].items()))} for split, totals in splits.items()},
    "reasons": dict(sorted(reasons.items())),
    "inputs": inputs,
    "outputs": inputs - bad,
    "quarantined": bad,
    "bad_fraction": bad / inputs if inputs else 0.0,
  }
