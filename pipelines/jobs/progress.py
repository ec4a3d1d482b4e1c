"""Prints a job's progress, from shard reports and live counts."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TextIO

from beam_retrain.transforms.core.printing import clear_line
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
  """Prints progress while the block runs; by default on standard error."""
  watched = [
    (ProgressLine(work.name, work.unit, stream=stream or sys.stderr), ShardProgress(f"{work.folder}/{REPORTS_FOLDER}"))
    for work in works
    if files.is_local(work.folder)
  ]
  # An earlier run's shards and the time until the first image do not count for the speed.
  reported = [shards.look().done for _, shards in watched]
  stop = threading.Event()
  thread = threading.Thread(target=_report, args=(watched, reported, stop), name="progress", daemon=True)
  thread.start()
  try:
    yield
  finally:
    stop.set()
    thread.join()
    clear_line()


def _report(watched: Sequence[tuple[ProgressLine, ShardProgress]], reported: list[int], stop: threading.Event) -> None:
  due = [time.monotonic() + line.interval_secs for line, _ in watched]
  wait_secs = min([_LOOK_SECS, *(line.interval_secs for line, _ in watched)])
  while not stop.wait(wait_secs):
    for number, (line, shards) in enumerate(watched):
      began = time.thread_time()  # not wall time, which grows on a busy machine
      seen, now = shards.look(), time.monotonic()
      if seen.done > reported[number] and now >= due[number]:
        line.show(seen.done, shards.planned, seen.bad)
        reported[number], due[number] = seen.done, now + line.interval_secs
      elif seen.done > reported[number]:
        line.record(seen.done)
      if stop.wait((time.thread_time() - began) / _MAX_SHARE):
        return


class ShardProgress:
  """Adds up finished shards' reports and the live counts of others.

  Deletes live counts that killed workers left.

  Attributes:
    planned: images in all shards; None if unknown.
  """

  def __init__(self, reports_folder: str):
    with contextlib.suppress(FileNotFoundError):
      files.delete(file.path for file in os.scandir(reports_folder) if file.name.endswith(LIVE_SUFFIX))
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
