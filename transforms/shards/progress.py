"""Progress files and counters of a running job.

Not every runner reports counters before a job ends. If the output is local, the counts are also written beside the
reports, to temporary files that are deleted with the shard, or swept after a crash.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import apache_beam as beam
from apache_beam.metrics import Metrics

from beam_retrain.transforms.core.records.quarantine import DROPPED, Reason
from beam_retrain.transforms.core.records.schema import REPORTS_FOLDER
from beam_retrain.transforms.core.records.shards import ShardReport
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.counters import METRICS_NAMESPACE, count_of

TRUNK_IMAGES = "trunk_pictures"
"""Images read, decoded, embedded and written."""
TRUNK_LOADS = "trunk_loads"
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
    self._path = _live_path(output, name) if files.is_local(output) else None
    self._fresh = Counter[str]()
    self._done = self._bad = 0
    self._next = 0.0

  def written(self) -> None:
    self._count("records_written")

  def quarantined(self, reason: Reason) -> None:
    self._bad += reason not in DROPPED
    self._count("inputs_quarantined")

  def _count(self, counter: str) -> None:
    self._fresh[counter] += 1
    self._done += 1
    if time.monotonic() >= self._next:
      self.close()

  def close(self) -> None:
    """Publishes the counts; more may follow."""
    for name, count in self._fresh.items():
      Metrics.counter(METRICS_NAMESPACE, name).inc(count)
    self._fresh.clear()
    # Progress is optional: an unwritable file must not fail the job.
    if self._path is not None:
      with contextlib.suppress(OSError), open(self._path, "w") as file:
        file.write(f"{self._done} {self._bad}")
    self._next = time.monotonic() + _EVERY_SECS


def _live_path(output: str, name: str) -> str:
  return files.join(output, REPORTS_FOLDER, f"{name}{LIVE_SUFFIX}")


def delete_live_counts(output: str, name: str) -> None:
  """Deletes the live counts of a finished shard."""
  if files.is_local(output):
    files.delete([_live_path(output, name)])


def read_live(reports_folder: str, entry: str) -> Counts | None:
  """Returns a shard's live counts; None while the file is being written."""
  with contextlib.suppress(OSError, ValueError), open(os.path.join(reports_folder, entry)) as file:
    done, bad = map(int, file.read().split())
    return Counts(done, bad)
  return None


def counts_of(report: ShardReport) -> Counts:
  """Returns the final counts of a finished shard."""
  return Counts(report.inputs, sum(entry.reason not in DROPPED for entry in report.quarantined))


class RecordPlanned(beam.PTransform):
  """Writes the number of planned images for `read_planned`.

  PCollection[Shard] -> PCollection of one int, or None if some counts are known only after reading. `output` is the
  local folder of the shard files.
  """

  def __init__(self, output: str):
    super().__init__()
    self._output = output

  def expand(self, shards: beam.PCollection) -> beam.PCollection:
    return (
      shards
      | "CountImages" >> beam.Map(lambda shard: _sum_known(entry.count_images() for entry in shard.inputs))
      # int or None
      | "SumImages" >> beam.CombineGlobally(_sum_known)
      | "WritePlanned" >> beam.Map(_write_planned, self._output)
    )


def _sum_known(counts: Iterable[int | None]) -> int | None:
  total = 0
  for count in counts:
    if count is None:
      return None
    total += count
  return total


def _write_planned(count: int | None, output: str) -> int | None:
  reports_folder = files.join(output, REPORTS_FOLDER)
  if read_planned(reports_folder) != count:
    with contextlib.suppress(OSError):
      files.write_text(files.join(reports_folder, _PLANNED), str(count))
  return count


def read_planned(reports_folder: str) -> int | None:
  """Returns the number of planned images; None if unknown."""
  with contextlib.suppress(OSError, ValueError), open(os.path.join(reports_folder, _PLANNED)) as file:
    return int(file.read())
  return None


def count_here(name: str, number: int) -> None:
  """Adds to this process's counter; call it on the bundle's thread."""
  count_of(name, f"{socket.gethostname()}/{os.getpid()}", number)
