"""Prints a job's progress, or that there is none for long."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TextIO

from beam_retrain.transforms.core.printing import clear_line, say
from beam_retrain.transforms.core.records.schema import REPORTS_FOLDER, parse_shard_name
from beam_retrain.transforms.core.records.shards import ShardReport
from beam_retrain.transforms.core.run.progress_line import ProgressLine
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.progress import LIVE_SUFFIX, Counts, counts_of, read_live, read_planned

_LOOK_SECS = 1.0
SILENT_SECS = 600.0
_LOOKS = 10  # at a remote folder within that
_MAX_SHARE = 0.005
"""Largest share of a core for progress: a folder of a million reports takes long to list, so it is listed rarely."""


class Work(NamedTuple):
  """A part of a job that processes shards.

  Attributes:
    folder: of its shards; progress is shown only for local folders, which are cheap to list, and of others it is
      only said if there is none.
    unit: what is counted.
  """

  name: str
  folder: str
  unit: str = "images"


@contextlib.contextmanager
def shard_progress(works: Sequence[Work], stream: TextIO | None = None) -> Iterator[None]:
  """Prints progress while the block runs; by default on standard error."""
  stream = stream or sys.stderr
  watched = [
    (ProgressLine(work.name, work.unit, stream=stream), ShardProgress(f"{work.folder}/{REPORTS_FOLDER}"))
    for work in works
    if files.is_local(work.folder)
  ]
  # An earlier run's shards and the time until the first image do not count for the speed.
  reported = [shards.look().done for _, shards in watched]
  remote = [work for work in works if not files.is_local(work.folder)]
  stop = threading.Event()
  threads = [
    threading.Thread(target=target, args=(*given, stop), name="progress", daemon=True)
    for target, given in ((_report, (watched, reported, stream)), (_watch, (remote, stream)))
    if given[0]
  ]
  for thread in threads:
    thread.start()
  try:
    yield
  finally:
    stop.set()
    for thread in threads:
      thread.join()
    clear_line()


class Silence:
  """Tells of a count that does not grow: after `SILENT_SECS`, then doubled."""

  def __init__(self, now: float):
    self._count, self._since, self._next = 0, now, SILENT_SECS

  def look(self, count: int, now: float) -> str:
    """Returns a sentence, or ""."""
    if count != self._count:
      self._count, self._since, self._next = count, now, SILENT_SECS
    silent_secs = now - self._since
    if silent_secs < self._next:
      return ""
    self._next *= 2
    return (
      f"nothing was finished for {silent_secs / 60:,.0f} minutes: see whether the engine's workers are alive and reach"
      " the output, or stop this command and run it again: finished shards are kept."
    )


def _warn(work: str, sentence: str, stream: TextIO) -> None:
  if sentence:
    say(f"beam-retrain: warning: {work}: {sentence}", file=stream)


def _watch(works: Sequence[Work], stream: TextIO, stop: threading.Event) -> None:
  """Watches remote folders, which are listed rarely."""
  silences = {work: Silence(time.monotonic()) for work in works}
  finished = dict.fromkeys(works, 0)
  while not stop.wait(SILENT_SECS / _LOOKS):
    for work, silence in silences.items():
      with contextlib.suppress(Exception):  # the store does not answer: nothing is finished
        finished[work] = sum(1 for _ in files.list_tree(f"{work.folder}/{REPORTS_FOLDER}"))
      _warn(work.name, silence.look(finished[work], time.monotonic()), stream)


def _report(
  watched: Sequence[tuple[ProgressLine, ShardProgress]], reported: list[int], stream: TextIO, stop: threading.Event
) -> None:
  silences = [Silence(time.monotonic()) for _ in watched]
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
      _warn(line.name, silences[number].look(seen.done, now), stream)
      if stop.wait((time.thread_time() - began) / _MAX_SHARE):
        return


class ShardProgress:
  """Adds up finished shards' reports and the live counts of others.

  Deletes live counts that killed workers left. `planned` are the images in all shards; None if unknown.
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
