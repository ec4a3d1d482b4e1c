"""Counts what a process and its workers do to files, and kills at the N-th operation.

Points in time differ from run to run; points in the sequence of file operations hardly do. What counts are Python's
openings for writing, renames, deletions, new folders and syncs below one folder. TensorFlow's own writes are not seen:
a kill reaches only the points before and after them. Imports nothing of the product, as workers load it by its path.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import mmap
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any

VARIABLE = "BEAM_RETRAIN_CHAOS_PLAN"
NEVER = 0
PROCESS, GROUP, WORKER = "process", "group", "worker"

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_EVENTS = {
  "open": "open",
  "os.rename": "rename",
  "os.remove": "delete",
  "os.mkdir": "make",
  "os.rmdir": "remove",
  "os.truncate": "truncate",
  "os.link": "link",
  "os.symlink": "link",
}


@dataclasses.dataclass(frozen=True)
class Plan:
  root: str  # operations below this folder count
  state: str  # a file of 8 bytes, the count; `STATE.log` gets one line for each operation
  at: int = NEVER  # the number of the operation before which to kill, from 1; NEVER: only count
  whom: str = GROUP  # the command's own process, its whole group, or the process that is at work
  main: int = 0  # process id of the command

  @property
  def log(self) -> str:
    return f"{self.state}.log"


def prepare(plan: Plan) -> None:
  """Creates the files of a plan, with the count at 0."""
  with open(plan.state, "wb") as file:
    file.write(bytes(8))
  open(plan.log, "wb").close()


def operations(plan: Plan) -> list[str]:
  """Returns the operations so far, in order."""
  with open(plan.log) as file:
    return file.read().splitlines()


def install(plan: Plan) -> None:
  """Counts from now on in this process and those forked from it."""
  Counter(plan).install()


class Counter:
  """Counts the operations of several processes in one shared number."""

  def __init__(self, plan: Plan):
    self._plan = plan
    self._root = os.path.join(os.path.realpath(plan.root), "")
    self._lock = threading.Lock()
    self._file = os.open(plan.state, os.O_RDWR)
    self._log = os.open(plan.log, os.O_WRONLY | os.O_APPEND)
    self._count = mmap.mmap(self._file, 8)

  def install(self) -> None:
    """Cannot be undone: audit hooks stay."""
    sys.addaudithook(self._see)
    for name in ("fsync", "fdatasync"):
      setattr(os, name, self._counting(getattr(os, name)))

  def _counting(self, sync: Callable[[Any], None]) -> Callable[[Any], None]:
    def counted(descriptor: Any) -> None:
      number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
      self._reach("sync", os.readlink(f"/proc/self/fd/{number}"))
      sync(descriptor)

    return counted

  def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
    name = _EVENTS.get(event)
    if name is None or (event == "open" and not (arguments[2] or 0) & _WRITES):
      return
    path = arguments[0]
    if isinstance(path, int):
      return
    folder = arguments[-1] if event in ("os.remove", "os.rmdir", "os.mkdir") else -1
    base = os.readlink(f"/proc/self/fd/{folder}") if isinstance(folder, int) and folder >= 0 else os.getcwd()
    self._reach(name, os.path.join(base, os.fsdecode(path)))

  def _reach(self, name: str, path: str) -> None:
    if not path.startswith(self._root):
      return
    with self._lock:
      fcntl.lockf(self._file, fcntl.LOCK_EX)
      try:
        (count,) = struct.unpack("q", self._count[:])
        count += 1
        self._count[:] = struct.pack("q", count)
        os.write(self._log, f"{name} {path.removeprefix(self._root)}\n".encode())
        if count == self._plan.at:
          self._kill()
      finally:
        fcntl.lockf(self._file, fcntl.LOCK_UN)

  def _kill(self) -> None:
    main = self._plan.main or os.getpid()
    if self._plan.whom == GROUP:
      os.killpg(main, signal.SIGKILL)
    os.kill(os.getpid() if self._plan.whom == WORKER else main, signal.SIGKILL)


def to_environment(plan: Plan) -> dict[str, str]:
  """Returns the variables by which started processes find the plan."""
  return {
    VARIABLE: json.dumps(dataclasses.asdict(plan)),
    "PYTHONPATH": os.path.join(os.path.dirname(__file__), "inject"),
  }


def install_from_environment() -> None:
  if text := os.environ.get(VARIABLE):
    install(Plan(**json.loads(text)))
