"""Runs commands in processes forked from this one, which has loaded the product once."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tools.chaos import hook

PATIENCE_SECS = 150.0
_ORPHANS_SECS = 20.0
_POLL_SECS = 0.01
_MS_REC, _MS_PRIVATE, _CLONE_NEWNS, _CLONE_NEWUSER = 0x4000, 0x40000, 0x20000, 0x10000000
_MNT_DETACH = 2
_LIBC = ctypes.CDLL(None, use_errno=True)
# Not native messages of libraries: the product hides them in a process that it has started itself.
_NOISE = ("WARNING: All log messages before absl", "I0000 ", "W0000 ", "E0000 ", "To enable the following instructions")


class Ended(NamedTuple):
  """A command that has ended; `code` is negative if a signal ended it."""

  code: int
  out: str
  err: str

  @property
  def is_killed(self) -> bool:
    return self.code == -signal.SIGKILL

  @property
  def has_traceback(self) -> bool:
    return "Traceback" in self.out + self.err or "see the traceback" in self.err

  @property
  def sentence(self) -> str:
    """The last line on standard error."""
    lines = [line for line in self.err.splitlines() if line.strip()]
    return lines[-1] if lines else ""

  @property
  def is_refused(self) -> bool:
    """Whether it failed and said why in one sentence."""
    return self.code in (1, 2, 3) and not self.has_traceback and bool(self.sentence)

  @property
  def is_locked_out(self) -> bool:
    return self.code == 2 and not self.has_traceback and "another" in self.sentence


class Running(NamedTuple):
  """A command in a session of its own, and the files with what it prints."""

  pid: int
  out: Path
  err: Path

  def wait(self) -> Ended:
    """Waits for the end of the command; kills it if that does not come."""
    until = time.monotonic() + PATIENCE_SECS
    while True:
      pid, status = os.waitpid(self.pid, os.WNOHANG)
      if pid:
        break
      if time.monotonic() > until:
        kill_session(self.pid)
        _, status = os.waitpid(self.pid, 0)
        break
      time.sleep(_POLL_SECS)
    lines = self.err.read_text(errors="replace").splitlines()
    shown = [line for line in lines if not line.startswith(_NOISE)]
    return Ended(os.waitstatus_to_exitcode(status), self.out.read_text(errors="replace"), "\n".join(shown))

  def orphans(self) -> list[int]:
    """Waits for the command's workers to end; kills and returns those that do not."""
    until = time.monotonic() + _ORPHANS_SECS
    while (left := session(self.pid)) and time.monotonic() < until:
      time.sleep(_POLL_SECS)
    kill_session(self.pid)
    return left


def session(leader: int) -> list[int]:
  """Returns the living processes of a session."""
  found = []
  for name in filter(str.isdigit, os.listdir("/proc")):
    with contextlib.suppress(OSError):
      fields = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
      if int(fields[3]) == leader and fields[0] != "Z":
        found.append(int(name))
  return found


def kill_session(leader: int) -> None:
  for pid in session(leader):
    with contextlib.suppress(ProcessLookupError):
      os.kill(pid, signal.SIGKILL)


def load() -> None:
  """Imports the product and what it loads; no session of TensorFlow, no gRPC server."""
  os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
  importlib.import_module("beam_retrain.transforms.core")
  from beam_retrain.pipelines import cli

  for name in ("tensorflow", "keras", "tensorflow_transform.beam", "jinja2", "matplotlib.figure", "sklearn.datasets"):
    importlib.import_module(name)
  for command in cli.COMMANDS:
    flags = cli.flags_of(command)
    importlib.import_module(getattr(flags, "module", flags.run.__module__))
  importlib.import_module("beam_retrain.pipelines.compat.retrain")


def start(
  argv: Sequence[str],
  *,
  logs: Path,
  folder: Path,
  environment: Mapping[str, str],
  plan: hook.Plan | None = None,
  hidden: Sequence[str] = (),
  prepare: Callable[[], None] = lambda: None,
) -> Running:
  """Starts a command in a fork of this process.

  Args:
    logs: the files get their names from it.
    folder: its current one.
    hidden: modules that a command's own process would not have loaded.
    prepare: called in the new process first.
  """
  running = Running(0, logs.with_suffix(".out"), logs.with_suffix(".err"))
  pid = os.fork()
  if pid:
    return running._replace(pid=pid)
  code = 2
  try:
    os.setsid()
    for descriptor, path in ((1, running.out), (2, running.err)):
      os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.chdir(folder)
    os.environ.update(environment)
    tempfile.tempdir = None
    for name in hidden:
      sys.modules.pop(name, None)
    prepare()
    if plan:
      plan = hook.Plan(plan.root, plan.state, plan.at, plan.whom, os.getpid())
      os.environ.update(hook.to_environment(plan))
      hook.install(plan)
    code = _main(argv)
  except BaseException:
    traceback.print_exc()
  finally:
    os._exit(code)


def _main(argv: Sequence[str]) -> int:
  """Runs a command, and ends as an interpreter does."""
  from beam_retrain.pipelines import cli

  code = cli.main(argv)
  threading._shutdown()  # type: ignore[attr-defined]
  atexit._run_exitfuncs()
  sys.stdout.flush()
  sys.stderr.flush()
  return code


def start_fresh(
  argv: Sequence[str], *, logs: Path, folder: Path, environment: Mapping[str, str], prefix: Sequence[str] = ()
) -> Running:
  """Starts a command in a Python of its own, as users do."""
  out, err = logs.with_suffix(".out"), logs.with_suffix(".err")
  with out.open("w") as stdout, err.open("w") as stderr:
    child = subprocess.Popen(
      [*prefix, sys.executable, "-m", "beam_retrain.pipelines.cli", *argv],
      cwd=folder,
      env={**os.environ, **environment},
      stdout=stdout,
      stderr=stderr,
      start_new_session=True,
    )
  child.returncode = 0  # it is waited for by its id
  return Running(child.pid, out, err)


def isolate() -> bool:
  """Gives this process mounts of its own; returns whether that is allowed."""
  ids = os.getuid(), os.getgid()
  if _LIBC.unshare(_CLONE_NEWNS) and _LIBC.unshare(_CLONE_NEWNS | _CLONE_NEWUSER):
    return False
  if os.getuid() != ids[0]:  # a user's own namespace, in which it is root
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {ids[0]} 1")
    Path("/proc/self/gid_map").write_text(f"0 {ids[1]} 1")
  return not _LIBC.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)


def mount(kind: str, source: str, target: Path, options: str = "", flags: int = 0) -> None:
  """Raises OSError."""
  target.mkdir(parents=True, exist_ok=True)
  if _LIBC.mount(source.encode(), os.fsencode(target), kind.encode(), flags, options.encode()):
    raise OSError(ctypes.get_errno(), f"cannot mount {kind}: {os.strerror(ctypes.get_errno())}", str(target))


def unmount(target: Path) -> None:
  """Takes a mount away, even if a process still uses it."""
  if _LIBC.umount2(os.fsencode(target), _MNT_DETACH):
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(target))
