"""Sums the reports of a job's shards into `stats.json`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.quarantine import DROPPED
from beam_retrain.transforms.core.records.schema import STATS_FILE, TESTING, TRAINING
from beam_retrain.transforms.core.records.shards import BOTTLENECKS, ORIENTED, BottleneckCounts, ShardReport
from beam_retrain.transforms.core.run.contents import Files
from beam_retrain.transforms.core.run.flags import accept_bad
from beam_retrain.transforms.core.system import local_files
from beam_retrain.transforms.core.system.small_files import RUN_AGAIN, parse_json, read_small


class SplitCounts(NamedTuple):
  """Counts of a split: images, shards, and records per label."""

  inputs: int
  outputs: int
  quarantined: int
  shards: int
  labels: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Stats:
  """Contents of a `stats.json`.

  `reasons` has the number of quarantined images by reason; `bad_fraction`, 0..1, is without images dropped on request.
  `oriented` is the number of images with an EXIF orientation, None for 0.
  See also `count_distorted`, `count_leaks` and, for `corrections`, `sum_tallies`.
  """

  splits: Mapping[str, SplitCounts]
  reasons: Mapping[str, int]
  inputs: int
  outputs: int
  quarantined: int
  bad_fraction: float
  bottlenecks: BottleneckCounts | None = None
  distorted: Mapping[str, int] | None = None
  leaks: Mapping[str, Mapping[str, int]] | None = None
  oriented: int | None = None
  corrections: Mapping[str, int] | None = None

  def describe_bad(self, quarantine: str) -> str:
    """Returns the bad inputs' number, reasons and list, and what to do.

    `quarantine` is the path of the list. Images that were left out on request are not bad.
    """
    counts = {reason: count for reason, count in self.reasons.items() if reason not in DROPPED}
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    bad = sum(counts.values())
    return (
      f"{bad} of {self.inputs} inputs {'are' if bad > 1 else 'is'} bad ({reasons}): see {quarantine}; repair or remove"
      f" {'them' if bad > 1 else 'it'}, or"
      f" accept the loss with {accept_bad(self.bad_fraction)}"
    )

  def to_json(self) -> str:
    # Not `asdict`, which writes named tuples as lists.
    entries = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
    entries["splits"] = {split: counts._asdict() for split, counts in self.splits.items()}
    entries["bottlenecks"] = self.bottlenecks and dataclasses.asdict(self.bottlenecks)
    return json.dumps({name: value for name, value in entries.items() if value is not None}, indent=2) + "\n"

  @classmethod
  def from_json(cls, data: bytes) -> Stats:
    """Inverse of `to_json`; raises ValueError or TypeError."""
    return parse_json(cls, json.loads(data))


def read_stats(folder: str, files: Files = local_files) -> Stats:
  return read_small(os.path.join(folder, STATS_FILE), Stats.from_json, RUN_AGAIN, files.read_bytes)


def sum_reports(reports: Iterable[ShardReport], planned: Mapping[str, int]) -> Stats:
  """Sums the reports of a finished job, one per shard.

  `planned` has the number of shards per split. Raises InputError if the counts do not add up.
  """
  # Sorted, since `planned` is in arbitrary order: `stats.json` must always have the same bytes.
  splits = sorted(planned, key=lambda split: (split != TRAINING, split == TESTING, split))
  counts = {split: Counter(inputs=0, outputs=0, quarantined=0, shards=0) for split in splits}
  labels = {split: Counter[str]() for split in splits}
  reasons: Counter[str] = Counter()
  bottlenecks: Counter[str] = Counter()
  oriented = 0
  files: set[str] = set()
  for report in reports:
    if report.file in files:
      raise InputError(f"the counts do not add up: shard {report.file} was reported twice; run the command again.")
    files.add(report.file)
    quarantined = len(report.quarantined)
    if report.inputs != report.outputs + quarantined or report.outputs != sum(report.labels.values()):
      raise InputError(
        f"the counts do not add up: shard {report.file} read {report.inputs} inputs but wrote {report.outputs} and"
        f" quarantined {quarantined}; please report this as a bug."
      )
    counts[report.split].update(inputs=report.inputs, outputs=report.outputs, quarantined=quarantined, shards=1)
    labels[report.split].update(report.labels)
    reasons.update(str(entry.reason) for entry in report.quarantined)
    bottlenecks.update(report.extra.get(BOTTLENECKS, {}))
    oriented += report.extra.get(ORIENTED, 0)
  for split, shards in planned.items():
    if counts[split]["shards"] != shards:
      raise InputError(
        f"the counts do not add up: {counts[split]['shards']} of {shards} {split} shards were reported;"
        " run the command again to compute the rest."
      )
  inputs = sum(counts[split]["inputs"] for split in splits)
  bad = sum(count for reason, count in reasons.items() if reason not in DROPPED)
  return Stats(
    splits={split: SplitCounts(**counts[split], labels=dict(sorted(labels[split].items()))) for split in splits},
    reasons=dict(sorted(reasons.items())),
    inputs=inputs,
    outputs=inputs - reasons.total(),
    quarantined=reasons.total(),
    bad_fraction=bad / inputs if inputs else 0.0,
    bottlenecks=BottleneckCounts(bottlenecks["computed"], bottlenecks["reused"]) if bottlenecks else None,
    oriented=oriented or None,
  )
