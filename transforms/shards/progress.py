"""Progress files and counters of a running job.

Not every runner reports counters before a job ends. If the output is local, the counts are also written beside the
reports, to temporary files that are deleted with the shard, or swept after a crash.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from types import TracebackType
from typing import NamedTuple

import apache_beam as beam
from apache_beam.metrics import Metrics

from beam_retrain.transforms.core.records.quarantine import DROPPED, Reason
from beam_retrain.transforms.core.records.schema import REPORTS_FOLDER
from beam_retrain.transforms.core.records.shards import Shard, ShardReport
from beam_retrain.transforms.io import files

METRICS_NAMESPACE = "beam_retrain"
LIVE_SUFFIX = ".tmp-live"
"""Marks a temporary file for `files.sweep`."""

_EVERY_SECS = 0.5
_PLANNED = f"planned{LIVE_SUFFIX}"


class Counts(NamedTuple):
  """Images done, and those of them quarantined, except dropped leaks."""

  done: int
  bad: int


class LiveCounts:
  """Counts a shard's images; updates counters and a file twice a second."""

  def __init__(self, output: str, name: str):
    self._path = files.join(output, REPORTS_FOLDER, f"{name}{LIVE_SUFFIX}") if files.is_local(output) else None
    self._counters = {
      "records_written": Metrics.counter(METRICS_NAMESPACE, "records_written"),
      "inputs_quarantined": Metrics.counter(METRICS_NAMESPACE, "inputs_quarantined"),
    }
    self._fresh = dict.fromkeys(self._counters, 0)
    self._done = self._bad = 0
    self._next = 0.0

  def written(self) -> None:
    self._fresh["records_written"] += 1
    self._count()

  def quarantined(self, reason: Reason) -> None:
    self._fresh["inputs_quarantined"] += 1
    self._bad += reason not in DROPPED
    self._count()

  def _count(self) -> None:
    self._done += 1
    if time.monotonic() >= self._next:
      self._publish()

  def _publish(self) -> None:
    for name, counter in self._counters.items():
      if self._fresh[name]:
        counter.inc(self._fresh[name])
        self._fresh[name] = 0
    # Progress is optional: an unwritable file must not fail the job.
    if self._path is not None:
      with contextlib.suppress(OSError), open(self._path, "w") as file:
        file.write(f"{self._done} {self._bad}")
    self._next = time.monotonic() + _EVERY_SECS

  def __enter__(self) -> LiveCounts:
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    self._publish()


def delete_live_counts(output: str, name: str) -> None:
  """Deletes the live counts of a finished shard."""
  if files.is_local(output):
    files.delete([files.join(output, REPORTS_FOLDER, f"{name}{LIVE_SUFFIX}")])


def read_live(reports_folder: str, entry: str) -> Counts | None:
  """Returns a shard's live counts; None while the file is being written."""
  with contextlib.suppress(OSError, ValueError), open(os.path.join(reports_folder, entry)) as file:
    done, bad = file.read().split()
    return Counts(int(done), int(bad))
  return None


def counts_of(report: ShardReport) -> Counts:
  """Returns the final counts of a finished shard."""
  return Counts(report.inputs, sum(entry.reason not in DROPPED for entry in report.quarantined))


class RecordPlanned(beam.PTransform):
  """Writes the number of planned images for `read_planned`.

  PCollection[Shard] -> PCollection of one int; -1 if some counts are known only after reading.

  Attributes:
    output: local folder of the shard files.
  """

  def __init__(self, output: str):
    super().__init__()
    self._output = output

  def expand(self, shards: beam.PCollection) -> beam.PCollection:
    return (
      shards
      | "CountImages" >> beam.Map(_count_images)
      # int
      | "SumImages" >> beam.CombineGlobally(_sum_known)
      | "WritePlanned" >> beam.Map(_write_planned, self._output)
    )  # int


def _count_images(shard: Shard) -> int:
  counts = (entry.count_images() for entry in shard.inputs)
  return _sum_known(-1 if count is None else count for count in counts)


def _sum_known(counts: Iterable[int]) -> int:
  total = 0
  for count in counts:
    if count < 0:
      return -1
    total += count
  return total


def _write_planned(count: int, output: str) -> int:
  reports_folder = files.join(output, REPORTS_FOLDER)
  if read_planned(reports_folder) != count:
    with contextlib.suppress(OSError):
      files.write_text(files.join(reports_folder, _PLANNED), str(count))
  return count


def read_planned(reports_folder: str) -> int | None:
  """Returns the number of planned images; None if unknown."""
  with contextlib.suppress(OSError, ValueError), open(os.path.join(reports_folder, _PLANNED)) as file:
    count = int(file.read())
    return count if count >= 0 else None
  return None
