"""The memory of a process and of all that it starts, watched from outside through `/proc` (Linux)."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_POLL_SECS = 0.1
_MIN_SECS = 0.5
_MIN_MB = 20.0  # below are shells, which only start others


class TreePeaks(NamedTuple):
  """What a command took.

  Attributes:
    seconds: by the clock, start and end included.
    peaks_mb: largest resident memory of each of its processes that lived for half a second or longer, but for shells,
      in the order of their starts: the command itself first, then its workers.
  """

  seconds: float
  peaks_mb: tuple[float, ...]


def run_watched(command: Sequence[str], *, cwd: Path | None = None) -> TreePeaks:
  """Runs a command to its end.

  The kernel keeps each process's peak (`VmHWM`), which is looked at ten times a second: nothing between two looks is
  missed but the last tenth of a second.

  Raises:
    SystemExit: it failed; its own words are above.
  """
  began = time.perf_counter()
  child = subprocess.Popen(command, cwd=cwd)
  peaks: dict[int, float] = {}
  seen: dict[int, int] = {}
  stop = threading.Event()

  def watch() -> None:
    while not stop.wait(_POLL_SECS):
      for pid in process_tree(child.pid):
        peak = peak_mb(pid)
        if peak is not None:
          peaks[pid] = max(peaks.get(pid, 0.0), peak)
          seen[pid] = seen.get(pid, 0) + 1

  watcher = threading.Thread(target=watch, daemon=True)
  watcher.start()
  code = child.wait()
  seconds = time.perf_counter() - began
  stop.set()
  watcher.join()
  if code:
    raise SystemExit(f"{' '.join(command)} ended with exit code {code}")
  lasting = [peak for pid, peak in peaks.items() if seen[pid] * _POLL_SECS >= _MIN_SECS and peak >= _MIN_MB]
  return TreePeaks(seconds, tuple(lasting))


def process_tree(pid: int) -> list[int]:
  """Returns a process and all that it has started, and they; those that have ended by now are left out."""
  found = [pid]
  for parent in found:
    for children in (_PROC / str(parent) / "task").glob("*/children"):
      try:
        found += map(int, children.read_text().split())
      except OSError:  # the thread has ended meanwhile
        continue
  return found


def peak_mb(pid: int) -> float | None:
  """Returns a process's largest resident memory so far; None: it has ended."""
  try:
    lines = (_PROC / str(pid) / "status").read_text().splitlines()
  except OSError:
    return None
  (kb,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")] or ("0",)
  return int(kb) / 1024
