"""Runs trials, each in a process of its own, and says what became of them."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

LOST, DOUBLED, BYTES, LEFT, ORPHAN = "lost", "doubled", "other bytes", "left over", "orphan"
FAILED, PASSED, TRACEBACK, HARNESS = "failed", "passed", "traceback", "harness"
WRONG = {
  LOST: "lost: something of the undisturbed output is missing",
  DOUBLED: "doubled: the output has something more",
  BYTES: "other bytes",
  PASSED: "damage that passed, with another result",
  FAILED: "failed, where it should have worked, or the message is another one",
  TRACEBACK: "a traceback on the terminal",
  LEFT: "left over: temporary files in the output, TMPDIR, the cache or beside them",
  ORPHAN: "orphans: processes that stay",
  HARNESS: "faults of this harness",
}
"""Kind of fault -> what it is."""
SAME, NOTICED, HARMLESS, MENDED, NOT_REACHED = "same bytes", "noticed", "harmless", "mended", "not reached"
RIGHT = (SAME, NOTICED, HARMLESS, MENDED, NOT_REACHED)


@dataclasses.dataclass(frozen=True)
class Fault:
  kind: str
  text: str


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What became of a trial; without faults, `result` says what is right."""

  section: str
  case: str
  trial: str
  result: str
  faults: tuple[Fault, ...] = ()
  note: str = ""

  def to_json(self) -> str:
    return json.dumps(dataclasses.asdict(self))

  @classmethod
  def from_json(cls, text: str) -> Outcome:
    values = json.loads(text)
    faults = tuple(Fault(**fault) for fault in values.pop("faults"))
    return cls(**values, faults=faults)


class Trial(NamedTuple):
  """One thing to try: `act` runs in a process of its own."""

  section: str
  case: str
  name: str
  act: Callable[[], tuple[str, Sequence[Fault]]]


def run_trials(trials: Sequence[Trial], jobs: int, until: float = float("inf")) -> Iterator[Outcome]:
  """Runs some trials at a time; yields their outcomes, in the order in which they end.

  Args:
    until: the time, as of `time.monotonic`, after which no further trial begins.
  """
  waiting = list(reversed(trials))
  running: dict[int, tuple[Trial, str]] = {}
  while waiting or running:
    while waiting and len(running) < jobs:
      trial = waiting.pop()
      if time.monotonic() > until:
        yield _outcome(trial, NOT_REACHED, (), "there was no time left")
        continue
      descriptor, path = tempfile.mkstemp(prefix="outcome-")
      os.close(descriptor)
      running[_start(trial, path)] = trial, path
    if running:
      pid, _ = os.wait()
      if pid in running:
        trial, path = running.pop(pid)
        yield _read(trial, path)


def _start(trial: Trial, path: str) -> int:
  sys.stdout.flush()
  pid = os.fork()
  if pid:
    return pid
  try:
    result, faults = trial.act()
    outcome = _outcome(trial, result, faults)
  except NotReachedError as error:
    outcome = _outcome(trial, NOT_REACHED, (), str(error))
  except BaseException:
    outcome = _outcome(trial, NOT_REACHED, [Fault(HARNESS, traceback.format_exc())])
  try:
    with open(path, "w") as file:
      file.write(outcome.to_json())
  finally:
    os._exit(0)


class NotReachedError(Exception):
  """This machine, or this run, does not allow the trial; says why."""


def _outcome(trial: Trial, result: str, faults: Sequence[Fault], note: str = "") -> Outcome:
  return Outcome(trial.section, trial.case, trial.name, result, tuple(faults), note)


def _read(trial: Trial, path: str) -> Outcome:
  with open(path) as file:
    text = file.read()
  os.unlink(path)
  return Outcome.from_json(text) if text else _outcome(trial, NOT_REACHED, [Fault(HARNESS, "the trial died")])
