"""What to do about leaks, and where in a `bottlenecks` job the audit stands."""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Sequence
from typing import NamedTuple

import apache_beam as beam

from beam_retrain.transforms.core.records.leaks import OnLeak, count_rows, describe, warnings_of
from beam_retrain.transforms.core.records.schema import LEAKS_FILE, REFUSED_LEAKS_FILE
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.stats import Stats
from beam_retrain.transforms.core.system.cpu import Threads
from beam_retrain.transforms.io import files
from beam_retrain.transforms.leaks.audit import AuditImages, AuditRecords, DropLeaks, WriteLeaks, leaked_images
from beam_retrain.transforms.shards.checks import CheckSplits

OWNED = (LEAKS_FILE, REFUSED_LEAKS_FILE)
"""What the audit writes into the stage's folder."""


class Planned(NamedTuple):
  """What the work begins with.

  Attributes:
    shards: PCollection[Shard], without what is dropped.
    checked: a PCollection that is there once each class is known to have images in each split.
    leaks: PCollection[LeakedImage] of all planned images, also of what is dropped; None where it is not known yet.
  """

  shards: beam.PCollection
  checked: beam.PCollection
  leaks: beam.PCollection | None


@dataclasses.dataclass(frozen=True)
class SplitAudit:
  """Attributes:
  on_leak: what to do about leaks.
  labels: class index -> label.
  percentages: how training images are drawn for validation.
  max_pixels: largest height x width that is decoded.
  threads: of TensorFlow in a process.
  """

  on_leak: OnLeak
  labels: Sequence[str]
  percentages: SplitPercentages
  max_pixels: int
  threads: Threads

  def plan(self, shards: beam.PCollection, leaks_path: str = "") -> Planned:
    """Audits planned shards, where that has to be before the work, and checks the splits.

    Args:
      shards: PCollection[Shard], as a source planned them.
      leaks_path: CSV to write for `refuses`, with `--on_leak fail`; empty: the records will be audited.
    """
    leaks = None
    if self.on_leak == OnLeak.DROP or (self.on_leak == OnLeak.FAIL and leaks_path):
      audited = shards | "Audit" >> AuditImages(self.labels, self.percentages, self.max_pixels, self.threads)
      leaks = audited | "Leaks" >> beam.FlatMapTuple(leaked_images)  # LeakedImage
      if self.on_leak == OnLeak.FAIL:
        _ = leaks | "WriteLeaks" >> WriteLeaks(leaks_path)
      else:
        shards = (shards, audited) | "Drop" >> DropLeaks()
    dropped = leaks if self.on_leak == OnLeak.DROP else None
    checked = shards | "CheckSplits" >> CheckSplits(self.labels, self.percentages, dropped)
    return Planned(shards, checked, leaks)

  def audit(self, planned: Planned, reports: beam.PCollection, records_folder: str) -> beam.PCollection:
    """Returns PCollection[LeakedImage] for the ledger: what `plan` found, else what the finished records show."""
    if planned.leaks is not None:
      return planned.leaks
    return reports | "Audit" >> AuditRecords(self.labels, self.percentages, records_folder=records_folder)

  def refuses(self, leaks_path: str) -> bool:
    """Says, of what a job with `plan` has written there, whether the command ends here, and tells the user why."""
    if self.on_leak != OnLeak.FAIL:
      return False
    with files.open_to_read(leaks_path) as file, io.TextIOWrapper(file, "utf-8", newline="") as lines:
      counts = count_rows(lines)
    if not (found := describe(counts)):
      return False
    print(
      f"beam-retrain: {' and '.join(found.values())}: see {files.shown(leaks_path)}; mend them, or leave them out with"
      " --on_leak drop instead of fail.",
      file=sys.stderr,
    )
    return True

  def tell(self, stats: Stats, output: str) -> None:
    """Prints a line for each kind of leak that `stats.json` counts."""
    for line in warnings_of(stats.leaks or {}, files.shown(files.join(output, LEAKS_FILE)), self.on_leak):
      print(line, file=sys.stderr)
