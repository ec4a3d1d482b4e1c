"""Applies `--on_leak`: audits images before the work, or records after it."""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Sequence
from typing import NamedTuple

import apache_beam as beam

from beam_retrain.transforms.core.records.leaks import (
  LeakedImage,
  OnLeak,
  count_rows,
  describe,
  leaks_csv,
  warnings_of,
)
from beam_retrain.transforms.core.records.schema import LEAKS_FILE, REFUSED_LEAKS_FILE
from beam_retrain.transforms.core.records.shards import unpack
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.stats import Stats
from beam_retrain.transforms.core.system.cpu import Threads
from beam_retrain.transforms.io import files
from beam_retrain.transforms.leaks.audit import AuditImages, audit_records, drop_leaks
from beam_retrain.transforms.shards.checks import CheckSplits

OWNED = (LEAKS_FILE, REFUSED_LEAKS_FILE)
"""Files that the audit writes to the stage's folder."""


class Planned(NamedTuple):
  """Audited shards, ready for the work.

  Attributes:
    shards: PCollection[Shard], without dropped images.
    checked: a PCollection that is computed once each split is known to have images of each label.
    leaks: PCollection[LeakedImage] of all planned images, dropped ones included; None: not audited yet.
  """

  shards: beam.PCollection
  checked: beam.PCollection
  leaks: beam.PCollection | None


@dataclasses.dataclass(frozen=True)
class SplitAudit:
  """The split audit of a job. Attributes: as of `AuditImages`."""

  on_leak: OnLeak
  labels: Sequence[str]
  percentages: SplitPercentages
  max_pixels: int
  threads: Threads

  def plan(self, shards: beam.PCollection, leaks_path: str = "") -> Planned:
    """Checks the splits; with `drop` or `fail`, audits the images first.

    Args:
      shards: PCollection[Shard], as planned by a source.
      leaks_path: CSV for `refuses`, with `--on_leak fail`; empty: audit the records after the work.
    """
    leaks = None
    if self.on_leak == OnLeak.DROP or (self.on_leak == OnLeak.FAIL and leaks_path):
      audited = shards | "Audit" >> AuditImages(self.labels, self.percentages, self.max_pixels, self.threads)
      leaks = audited | "Leaks" >> beam.FlatMapTuple(lambda _, packed: unpack(packed))  # LeakedImage
      if self.on_leak == OnLeak.FAIL:
        _ = leaks | "CollectLeaks" >> beam.combiners.ToList() | "WriteLeaks" >> beam.Map(_write, leaks_path)
      else:
        shards = shards | "DropLeaks" >> beam.Map(drop_leaks, beam.pvalue.AsDict(audited))
    dropped = leaks if self.on_leak == OnLeak.DROP else None
    checked = shards | "CheckSplits" >> CheckSplits(self.labels, self.percentages, dropped)
    return Planned(shards, checked, leaks)

  def audit(self, planned: Planned, reports: beam.PCollection, records_folder: str) -> beam.PCollection:
    """Returns PCollection[LeakedImage] for the ledger; audits the records if necessary."""
    if planned.leaks is not None:
      return planned.leaks
    return reports | "Audit" >> audit_records(list(self.labels), self.percentages, records_folder)

  def refuses(self, leaks_path: str) -> bool:
    """Returns whether the leaks written by `plan` end the command; prints why."""
    if self.on_leak != OnLeak.FAIL:
      return False
    with files.open_to_read(leaks_path) as file, io.TextIOWrapper(file, "utf-8", newline="") as lines:
      counts = count_rows(lines)
    if not (sentences := describe(counts)):
      return False
    print(
      f"beam-retrain: {' and '.join(sentences.values())}: see {files.shown(leaks_path)}; fix them, or exclude them with"
      " --on_leak drop.",
      file=sys.stderr,
    )
    return True

  def tell(self, stats: Stats, output: str) -> None:
    """Prints a line for each kind of leak that `stats.json` counts."""
    for line in warnings_of(stats.leaks or {}, files.shown(files.join(output, LEAKS_FILE)), self.on_leak):
      print(line, file=sys.stderr)


def _write(leaks: list[LeakedImage], path: str) -> None:
  files.write_text(path, leaks_csv(leaks))
