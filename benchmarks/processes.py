"""A process of the benchmark: run alone, timed from outside, its words kept in a log."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).resolve().parents[1]
_MAX_SECS = 1200


class ProcessError(Exception):
  """A process that did not do what it was to do; says why in a line."""


class Process(NamedTuple):
  """What a process took, start and end included.

  Attributes:
    seconds: by the clock.
    cpu_seconds: of it and of those that it waited for.
    peak_mb: largest resident memory of it or of one of those that it waited for.
  """

  seconds: float
  cpu_seconds: float
  peak_mb: float


def run_process(
  command: Sequence[str], log: Path, environ: Mapping[str, str], *, max_secs: float = _MAX_SECS, root: Path = _ROOT
) -> Process:
  """Runs a command from the root of a checkout and waits for it.

  Args:
    command: program and arguments.
    log: file for all that it says.
    environ: added to this process's own.
    max_secs: after which it is ended, with all that it started in its group.
    root: of the checkout; its modules can be imported.

  Raises:
    ProcessError: it ended with another code than 0.
  """
  log.parent.mkdir(parents=True, exist_ok=True)
  # No reports home, and the modules of this folder for whatever a peer starts.
  quiet = {"CI": "true", "NNCF_CI": "1", "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": str(root)}
  with log.open("wb") as file:
    began = time.perf_counter()
    child = subprocess.Popen(
      command,
      cwd=root,
      env={**os.environ, **quiet, **environ},
      stdin=subprocess.DEVNULL,
      stdout=file,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )
    timer = threading.Timer(max_secs, os.killpg, (child.pid, signal.SIGKILL))
    timer.start()
    try:
      _, status, usage = os.wait4(child.pid, 0)
    except BaseException:
      os.killpg(child.pid, signal.SIGTERM)
      child.wait()
      raise
    finally:
      timer.cancel()
    seconds = time.perf_counter() - began
  code = child.returncode = os.waitstatus_to_exitcode(status)
  if code:
    said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = said[-1].strip() if said else "it said nothing"
    cause = f"no end after {max_secs:.0f} s" if seconds >= max_secs else f"exit code {code}"
    raise ProcessError(f"{cause} ({last[:200]}), see {log.parent.name}/{log.name}")
  return Process(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
