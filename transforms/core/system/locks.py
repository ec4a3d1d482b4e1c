"""Locks between processes of a machine; they end with their holder.

One lock is one file, which names the process that holds it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.system.local_files import LOCK_FILE

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
_HELD: dict[str, str] = {}  # by this process: path of a lock -> token in it
_CHANGING_SECS = 1.0  # how long a lock that changes hands may name nobody, or a dead process


@dataclasses.dataclass(frozen=True)
class Holder:
  """A command at work: `start` is its local time."""

  host: str
  process: int
  command: str
  start: str

  @classmethod
  def me(cls, command: str) -> Self:
    start = datetime.datetime.now().astimezone().isoformat(" ", timespec="seconds")
    return cls(platform.node(), os.getpid(), command, start)

  @classmethod
  def from_json(cls, data: bytes) -> Self | None:
    """Inverse of `dataclasses.asdict`; ignores other entries; None if it is something else."""
    try:
      entries = json.loads(data)
      return cls(*(entries[field.name] for field in dataclasses.fields(cls)))
    except (ValueError, TypeError, KeyError):
      return None

  def __str__(self) -> str:
    return f"`{self.command}`, process {self.process} on {self.host} since {self.start}"

  @property
  def is_dead(self) -> bool:
    """Whether it was of this machine, and has ended."""
    return self.host == platform.node() and not os.path.exists(f"/proc/{self.process}") and os.path.exists("/proc/self")


class Claim(NamedTuple):
  """A folder, and the lock by which a command writes it.

  The command tells its workers, wherever they are. Without a lock `path` and `token` are empty.
  """

  folder: str
  path: str = ""
  token: str = ""

  def check(self, read_bytes: Callable[[str], bytes]) -> None:
    """Raises InputError if another command has taken the folder."""
    try:
      token = json.loads(read_bytes(self.path))["token"] if self.path else ""
    except (FileNotFoundError, ValueError, TypeError, KeyError):
      token = None
    if token != self.token:
      raise InputError(
        f"another command took {os.path.dirname(self.path)} from this one, or {self.path} was deleted: run one at a"
        f" time, or give another {flag('output')}."
      )


def claim_of(folder: str) -> Claim:
  """Returns a claim on a folder, by this process's nearest lock."""
  place = folder if "://" in folder else os.path.abspath(folder)
  around = [path for path in _HELD if f"{place}/".startswith(f"{os.path.dirname(path)}/")]
  path = max(around, key=lambda path: len(os.path.dirname(path)), default="")
  return Claim(folder, path, _HELD.get(path, ""))


@contextlib.contextmanager
def claimed(path: str, token: str) -> Iterator[None]:
  """Makes a lock that this process holds known to `claim_of`."""
  _HELD[path] = token
  try:
    yield
  finally:
    _HELD.pop(path, None)


def forget_claims() -> None:
  """Lets a job that is only built work without locks."""
  _HELD.clear()


@contextlib.contextmanager
def hold(path: str, *, blocking: bool = True) -> Iterator[None]:
  """Waits for the lock file `path` and holds it; the file stays.

  Raises BlockingIOError if another process holds it, and this one should not wait.
  """
  import filelock  # slow to import

  # A soft lock, a mere file, would outlive a killed holder.
  lock = filelock.FileLock(path, thread_local=False, fallback_to_soft=False)
  try:
    lock.acquire(blocking=blocking)
  except filelock.Timeout as error:
    raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), path) from error
  except OSError as error:
    if error.errno not in _NO_LOCKS:
      raise
    raise InputError(
      f"the file system of {os.path.dirname(path)} cannot lock files ({error.strerror}): use another file system."
    ) from error
  try:
    yield
  finally:
    lock.release()


@contextlib.contextmanager
def hold_alone(path: str, command: str, busy: str, remedy: str = "wait until it ends, or stop it") -> Iterator[None]:
  """Holds the lock file `path`, and finally removes it.

  Raises InputError if another process holds it: `busy`, who it is, and `remedy`.
  """
  with contextlib.ExitStack() as stack:
    until = time.monotonic() + _CHANGING_SECS
    while True:
      try:
        stack.enter_context(hold(path, blocking=False))
        break
      except BlockingIOError as error:  # or the last holder has just removed it
        holder = _read(path)
        if (holder is None or holder.is_dead) and time.monotonic() < until:
          time.sleep(0.01)
          continue
        raise InputError(f"{busy}{f' ({holder})' if holder else ''}: {remedy}.") from error
    if os.path.getsize(path) and _read(path) is None:
      raise InputError(f"{path} was not written by beam-retrain: move it away, or give another folder.")
    held, token = os.stat(path), os.urandom(16).hex()
    try:
      with contextlib.suppress(OSError):  # on a full disk the lock names nobody
        with open(path, "w") as file:
          json.dump({**dataclasses.asdict(Holder.me(command)), "token": token}, file)
        stack.enter_context(claimed(os.path.abspath(path), token))
      yield
    finally:
      with contextlib.suppress(OSError):
        if os.path.samestat(held, os.stat(path)):  # else its folder was deleted, and another has made it anew
          os.unlink(path)


def _read(path: str) -> Holder | None:
  with contextlib.suppress(OSError), open(path, "rb") as file:
    return Holder.from_json(file.read())
  return None


@contextlib.contextmanager
def hold_folder(folder: str, command: str) -> Iterator[None]:
  """Creates and holds an output folder; removes one left empty.

  Raises InputError if another command holds it.
  """
  if "://" in folder or (os.path.lexists(folder) and not os.path.isdir(folder)):
    yield  # the command says why it cannot be used
    return
  made = _make(folder)
  busy = f"{folder} is being written by another command"
  remedy = f"wait until it ends, stop it, or give another {flag('output')}"
  try:
    with contextlib.ExitStack() as stack:
      while True:
        try:
          stack.enter_context(hold_alone(os.path.join(folder, LOCK_FILE), command, busy, remedy))
          break
        except FileNotFoundError:  # the last holder has removed the empty folder
          made = _make(folder)
      yield
  finally:
    with contextlib.suppress(OSError):  # one is not empty
      for path in made:
        os.rmdir(path)


def _make(folder: str) -> list[str]:
  """Creates a folder; returns it and its new parents, innermost first."""
  path, made = os.path.abspath(folder), []
  while not os.path.isdir(path):
    made.append(path)
    path = os.path.dirname(path)
  os.makedirs(os.path.abspath(folder), exist_ok=True)
  return made


def is_held(path: str) -> bool:
  try:
    with hold(path, blocking=False) if os.path.exists(path) else contextlib.nullcontext():
      return False
  except BlockingIOError:
    return True
