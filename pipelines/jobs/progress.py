"""Prints a job's progress, from shard reports and live counts."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TextIO

from beam_retrain.transforms.core.records.schema import REPORTS_FOLDER, parse_shard_name
from beam_retrain.transforms.core.records.shards import ShardReport
from beam_retrain.transforms.core.run.progress_line import ProgressLine
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.progress import LIVE_SUFFIX, Counts, counts_of, read_live, read_planned

_LOOK_SECS = 1.0
_MAX_SHARE = 0.005
"""Largest share of a core for progress: a folder of a million reports takes long to list, so it is listed rarely."""


class Work(NamedTuple):
  """A part of a job that processes shards.

  Attributes:
    folder: of its shards; progress is shown only for local folders, which are cheap to list.
    unit: what is counted.
  """

  name: str
  folder: str
  unit: str = "images"


@contextlib.contextmanager
def shard_progress(works: Sequence[Work], stream: TextIO | None = None) -> Iterator[None]:
  """Prints progress while the block runs, on a terminal in one line.

  Args:
    works: the long parts of the job.
    stream: where to print; default: standard error.
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
      began = time.thread_time()  # not wall time, which grows on a busy machine
      work.look(time.monotonic())
      if stop.wait((time.thread_time() - began) / _MAX_SHARE):
        return


class _Watched:
  """A part of a job, and its progress line."""

  def __init__(self, work: Work, stream: TextIO):
    reports_folder = os.path.join(work.folder, REPORTS_FOLDER)
    with contextlib.suppress(FileNotFoundError):  # live counts that killed workers left
      files.delete(file.path for file in os.scandir(reports_folder) if file.name.endswith(LIVE_SUFFIX))
    self.line = ProgressLine(work.name, work.unit, stream=stream)
    self._progress = ShardProgress(reports_folder)
    # An earlier run's shards and the time until the first image do not count for the speed.
    self._reported = self._progress.look().done
    self._next_line = time.monotonic() + self.line.interval_secs

  def look(self, now: float) -> None:
    seen = self._progress.look()
    if seen.done > self._reported and now >= self._next_line:
      self.line.show(seen.done, self._progress.planned, seen.bad)
      self._reported, self._next_line = seen.done, now + self.line.interval_secs
    elif seen.done > self._reported:
      self.line.record(seen.done)


class ShardProgress:
  """Adds up finished shards' reports and the live counts of others.

  Attributes:
    planned: images in all shards; None if unknown.
  """

  def __init__(self, reports_folder: str):
    self._folder = reports_folder
    self._finished: set[str] = set()
    self._done = self._bad = 0
    self._live: dict[str, Counts] = {}
    self.planned: int | None = None

  def look(self) -> Counts:
    """Returns the current counts."""
    with contextlib.suppress(FileNotFoundError):
      for entry in os.listdir(self._folder):
        name = entry.removesuffix(".json")
        if name != entry and name not in self._finished and parse_shard_name(name):
          self._finish(name)
        elif entry.endswith(LIVE_SUFFIX) and (counts := read_live(self._folder, entry)):
          # Kept until its report exists: in between there is neither.
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
    # A damaged report belongs to a shard that will be processed again.
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
      with open(os.path.join(self._folder, f"{name}.json")) as file:
        done, bad = counts_of(ShardReport.from_json(file.read()))
      self._finished.add(name)
      self._done += done
      self._bad += bad
