"""Combines the shards' reports and completes the output folder."""

from __future__ import annotations

import csv
import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import apache_beam as beam

from beam_retrain.transforms.core.corrections import CORRECTED, UNUSED_FILE, Correcting, Tally, sum_tallies
from beam_retrain.transforms.core.records.csv_format import csv_text, escape_cell, unescape_cell
from beam_retrain.transforms.core.records.leaks import LeakedImage, count_leaks, leaks_csv
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import (
  LEAKS_FILE,
  QUARANTINE_FILE,
  REPORTS_FOLDER,
  STATS_FILE,
  parse_shard_name,
)
from beam_retrain.transforms.core.records.shards import ShardReport
from beam_retrain.transforms.core.run.output_folder import complete_folder
from beam_retrain.transforms.core.run.stats import Stats, sum_reports
from beam_retrain.transforms.core.system.locks import Claim, claim_of
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.kinds import check_kinds, delete_kinds


@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class CloseLedger(beam.PTransform):
  """Checks the reports, deletes stale shards and writes statistics and quarantine.

  (PCollection[Shard], PCollection[ShardReport]) -> PCollection of one `Stats`. Every planned shard must be reported
  once, with inputs = outputs + quarantined.
  """

  output: str
  shards_folder: str = ""  # folder of the shard files; empty: `output`
  leaks: beam.PCollection | None = None  # of LeakedImage, to count and to list in `leaks.csv`
  distorted: beam.PCollection | None = None  # of one dict, the counts of distorted variants
  corrections: Correcting | None = None  # to count, and to list those that met no image

  def __post_init__(self) -> None:
    super().__init__()

  def expand(self, inputs: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
    shards, reports = inputs
    planned = (
      shards
      | "SplitOfShard" >> beam.Map(lambda shard: shard.split)
      | "CountShards" >> beam.combiners.Count.PerElement()
    )  # (split, number of shards)
    return (
      reports
      | "CollectReports" >> beam.combiners.ToList()
      # list of ShardReport
      | "CloseLedger"
      >> beam.Map(
        _close,
        claim_of(self.output),
        self.shards_folder or self.output,
        self.corrections,
        planned=beam.pvalue.AsDict(planned),
        leaks=None if self.leaks is None else beam.pvalue.AsList(self.leaks),
        distorted=None if self.distorted is None else beam.pvalue.AsSingleton(self.distorted),
      )
    )  # Stats


def _close(
  reports: list[ShardReport],
  claim: Claim,
  shards_folder: str,
  corrections: Correcting | None,
  planned: dict[str, int],
  leaks: list[LeakedImage] | None,
  distorted: dict[str, int] | None,
) -> Stats:
  reports = sorted(reports, key=lambda report: report.file)
  check_kinds(reports)
  counts = None if leaks is None else count_leaks(leaks)
  stats = dataclasses.replace(sum_reports(reports, planned), distorted=distorted, leaks=counts)
  claim.check(files.read_bytes)  # they may be another command's
  delete_strays(shards_folder, {report.file for report in reports})
  if leaks is not None:
    files.write_text(files.join(claim.folder, LEAKS_FILE), leaks_csv(leaks))
  quarantined = [entry for report in reports for entry in report.quarantined]
  if corrections is not None:
    corrected, unused = sum_tallies(corrections, (Tally(**report.extra[CORRECTED]) for report in reports), quarantined)
    stats = dataclasses.replace(stats, corrections=corrected)
    files.write_text(files.join(claim.folder, UNUSED_FILE), unused)
  files.write_text(files.join(claim.folder, QUARANTINE_FILE), quarantine_csv(quarantined))
  files.write_text(files.join(claim.folder, STATS_FILE), stats.to_json())
  return stats


def delete_strays(folder: str, current: set[str]) -> None:
  """Deletes shards and reports of earlier runs with other shard counts."""
  delete_kinds(folder)
  for place, suffix in ((folder, ""), (files.join(folder, REPORTS_FOLDER), ".json")):
    files.sweep(place)
    for path in files.find_in(place, "*.json" if suffix else "*-of-*"):
      name = path.rsplit("/", 1)[-1].removesuffix(suffix)
      if name not in current and (suffix or parse_shard_name(name)):
        files.delete([path])


def quarantine_csv(entries: Iterable[Quarantined]) -> str:
  """Returns the quarantine as CSV: `file_name,split,size_bytes,reason,detail`."""
  rows = (
    [escape_cell(entry.key), entry.split, entry.size_bytes, str(entry.reason), escape_cell(entry.detail)]
    for entry in sorted(entries, key=lambda entry: (entry.split, entry.key))
  )
  return csv_text([["file_name", "split", "size_bytes", "reason", "detail"], *rows])


def read_quarantine(path: str, limit: int) -> list[list[str]]:
  """Returns the first `limit` rows of a `quarantine.csv`."""
  return list(itertools.islice(csv.reader(files.read_lines(path)), 1, limit + 1))


def parse_quarantine(path: str) -> Iterator[Quarantined]:
  """Yields the entries of a `quarantine.csv`."""
  for row in csv.DictReader(files.read_lines(path)):
    key, detail = unescape_cell(row["file_name"]), unescape_cell(row["detail"])
    yield Quarantined(key, int(row["size_bytes"]), Reason(row["reason"]), detail, row["split"])


# `*_` has no annotation: Beam takes one for the type of the whole tuple.
def mark_completed(  # type: ignore[no-untyped-def]
  stats: Stats, claim: Claim, max_bad_fraction: float, *_
) -> Stats:
  """Writes `COMPLETED`, unless the bad images exceed `max_bad_fraction`, 0..1.

  Further arguments are side inputs to wait for. Raises InputError if another command has taken the folder.
  """
  if stats.bad_fraction <= max_bad_fraction:
    complete_folder(claim.folder, files, claim)
  return stats
