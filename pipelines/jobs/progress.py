"""Prints the progress of a running job, from shard reports and live counts."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TextIO

from beam_retrain.transforms.core.records.schema import parse_shard_name
from beam_retrain.transforms.core.records.shards import ShardReport
from beam_retrain.transforms.core.run.progress_line import ProgressLine
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.progress import (
  LIVE_SUFFIX,
  REPORTS_FOLDER,
  Counts,
  counts_of,
  read_live,
  read_planned,
)

_LOOK_SECS = 1.0
_MAX_SHARE = 0.005
"""Of a core, for looking. A folder of a million reports takes its time to be listed: then it is looked at less often,
as long as there is something to see."""


class Work(NamedTuple):
  """A part of a job whose shards are worked.

  Attributes:
    name: of the part.
    folder: where its shards are written; looked at only where it is local, and so cheap to list.
    unit: what is counted.
  """

  name: str
  folder: str
  unit: str = "images"


@contextlib.contextmanager
def shard_progress(works: Sequence[Work], stream: TextIO | None = None) -> Iterator[None]:
  """Prints progress while the block runs; on a terminal in one changing line.

  Args:
    works: the parts of the job that take their time.
    stream: where to print; standard error if not given.
  """
  watched = [_Watched(work, stream or sys.stderr) for work in works if files.is_local(work.folder)]
  stop = threading.Event()
  thread = threading.Thread(target=_report, args=(watched, stop), name="progress", daemon=True)
  thread.start()
  try:
    yield
  finally:
    stop.set()
    thread.join()
    for work in watched:
      work.line.clear()


def _report(watched: Sequence[_Watched], stop: threading.Event) -> None:
  wait_secs = min((work.line.interval_secs for work in watched), default=_LOOK_SECS)
  while not stop.wait(min(_LOOK_SECS, wait_secs)):
    for work in watched:
      began = time.thread_time()  # and not by the clock: on a busy machine it would say less, not more
      work.look(time.monotonic())
      if stop.wait((time.thread_time() - began) / _MAX_SHARE):
        return


class _Watched:
  """A part of a job, and its progress line."""

  def __init__(self, work: Work, stream: TextIO):
    reports_folder = os.path.join(work.folder, REPORTS_FOLDER)
    delete_killed_counts(reports_folder)
    self.line = ProgressLine(work.name, work.unit, stream)
    self._progress = ShardProgress(reports_folder)
    # What an earlier run has finished is not this run's speed, nor is the time until the first image.
    self._told = self._progress.look().done
    self._next_line = time.monotonic() + self.line.interval_secs

  def look(self, now: float) -> None:
    seen = self._progress.look()
    if seen.done > self._told and now >= self._next_line:
      self.line.show(seen.done, self._progress.planned, seen.bad)
      self._told, self._next_line = seen.done, now + self.line.interval_secs
    elif seen.done > self._told:
      self.line.see(seen.done)


def delete_killed_counts(reports_folder: str) -> None:
  """Deletes the live counts of shards that nobody works any more."""
  with contextlib.suppress(FileNotFoundError):
    files.delete(
      os.path.join(reports_folder, name) for name in os.listdir(reports_folder) if name.endswith(LIVE_SUFFIX)
    )


class ShardProgress:
  """Adds up the reports of finished shards and the live counts of others.

  Attributes:
    planned: images in all shards; None where it is not known, or not yet.
  """

  def __init__(self, reports_folder: str):
    self._folder = reports_folder
    self._finished: set[str] = set()
    self._done = self._bad = 0
    self._live: dict[str, Counts] = {}
    self.planned: int | None = None

  def look(self) -> Counts:
    """Returns how far it is now."""
    with contextlib.suppress(FileNotFoundError):
      for entry in os.listdir(self._folder):
        name = entry.removesuffix(".json")
        if name != entry and name not in self._finished and parse_shard_name(name):
          self._finish(name)
        elif entry.endswith(LIVE_SUFFIX) and (counts := read_live(self._folder, entry)):
          # Kept until its report is there: in between there is neither.
          self._live[entry.removesuffix(LIVE_SUFFIX)] = counts
    for name in self._finished & self._live.keys():
      del self._live[name]
    if self.planned is None:
      self.planned = read_planned(self._folder)
    return Counts(
      self._done + sum(counts.done for counts in self._live.values()),
      self._bad + sum(counts.bad for counts in self._live.values()),
    )

  def _finish(self, name: str) -> None:
    # A damaged one belongs to a shard that is worked again.
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
      with open(os.path.join(self._folder, f"{name}.json")) as file:
        done, bad = counts_of(ShardReport.from_json(file.read()))
      self._finished.add(name)
      self._done += done
      self._bad += bad
