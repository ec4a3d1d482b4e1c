"""Locks between processes on one machine: the kernel's (`flock`), which end with their holder, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from beam_retrain.transforms.core.errors import InputError


@contextlib.contextmanager
def hold(path: str) -> Iterator[None]:
  """Waits until nobody else holds the lock file `path`, then holds it; the file stays.

  Raises:
    InputError: there are no locks there.
  """
  lock = _open(path)
  try:
    _take(path, lock, wait=True)
    yield
  finally:
    os.close(lock)


@contextlib.contextmanager
def hold_alone(path: str, busy: str) -> Iterator[None]:
  """Holds the lock file `path`, and removes it in the end.

  Args:
    path: the lock file.
    busy: the sentence for who comes second.

  Raises:
    InputError: another process holds it; or there are no locks there.
  """
  lock = _open(path)
  try:
    while _take(path, lock, wait=False):
      if _is_file(path, lock):
        break
      os.close(lock)  # the holder before removed it after we had opened it
      lock = _open(path)
    else:
      raise InputError(busy)
    try:
      yield
    finally:
      with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
  finally:
    os.close(lock)


def is_held(path: str) -> bool:
  """Says whether a process holds the lock file `path`."""
  try:
    lock = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
  except FileNotFoundError:
    return False
  try:
    return not _take(path, lock, wait=False)
  finally:
    os.close(lock)


def _open(path: str) -> int:
  return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)


def _take(path: str, lock: int, *, wait: bool) -> bool:
  try:
    fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  except OSError as error:
    raise InputError(
      f"the file system of {os.path.dirname(path)} cannot lock files ({error.strerror}): use a folder on another one."
    ) from error
  return True


def _is_file(path: str, opened: int) -> bool:
  try:
    return os.path.samestat(os.stat(path), os.fstat(opened))
  except FileNotFoundError:
    return False
