"""Progress files and counters of a running job: images planned, images done.

The counts are those of the pipeline's own counters. Not every engine can be asked for them before a job ends, Beam's
local runner cannot in its default mode; so, where the output is a local folder, they are kept beside the reports, too:
in small files with temporary names, which go away with the shard, or are swept with what killed workers left.
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
"""A temporary name, as `files.sweep` knows them."""

_EVERY_SECS = 0.5
_PLANNED = f"planned{LIVE_SUFFIX}"


class Counts(NamedTuple):
  """Images done, and images quarantined but not left out on request."""

  done: int
  bad: int


class LiveCounts:
  """Counts a shard's images, twice a second into counters and a file.

  An update for each image would cost more than some images do.

  Attributes:
    output: folder of the shard files.
    name: the shard's file name.
  """

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
      self._tell()

  def _tell(self) -> None:
    for name, counter in self._counters.items():
      if self._fresh[name]:
        counter.inc(self._fresh[name])
        self._fresh[name] = 0
    # Nobody's work ends because it could not be told how far it is.
    if self._path is not None:
      with contextlib.suppress(OSError), open(self._path, "w") as file:
        file.write(f"{self._done} {self._bad}")
    self._next = time.monotonic() + _EVERY_SECS

  def __enter__(self) -> LiveCounts:
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    self._tell()


def delete_live_counts(output: str, name: str) -> None:
  """Deletes a shard's live counts: its report says it all."""
  if files.is_local(output):
    files.delete([files.join(output, REPORTS_FOLDER, f"{name}{LIVE_SUFFIX}")])


def read_live(reports_folder: str, entry: str) -> Counts | None:
  """Returns a shard's live counts; None while the file is written."""
  with contextlib.suppress(OSError, ValueError), open(os.path.join(reports_folder, entry)) as file:
    done, bad = file.read().split()
    return Counts(int(done), int(bad))
  return None


def counts_of(report: ShardReport) -> Counts:
  """Returns what a finished shard's live counts would be."""
  return Counts(report.inputs, sum(entry.reason not in DROPPED for entry in report.quarantined))


class RecordPlanned(beam.PTransform):
  """PCollection[Shard] -> PCollection of one int, the images that are planned, or -1 where only their reader knows.

  Kept in `output` for `read_planned`.

  Attributes:
    output: folder of the shard files; local.
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
  """Returns the number of planned images; None where it is unknown."""
  with contextlib.suppress(OSError, ValueError), open(os.path.join(reports_folder, _PLANNED)) as file:
    count = int(file.read())
    return count if count >= 0 else None
  return None
