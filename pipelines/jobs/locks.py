"""Locks between processes of a machine; they end with their holder."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

import filelock

from beam_retrain.transforms.core.errors import InputError

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def hold(path: str) -> Iterator[None]:
  """Waits for the lock file `path` and holds it; the file stays."""
  lock = _acquire(path, blocking=True)
  assert lock is not None, "waited for without a limit"
  try:
    yield
  finally:
    lock.release()


@contextlib.contextmanager
def hold_alone(path: str, busy: str) -> Iterator[None]:
  """Holds the lock file `path`, and finally removes it.

  Args:
    busy: the error message if another process holds it.
  """
  lock = _acquire(path, blocking=False)
  if lock is None:
    raise InputError(busy)
  try:
    yield
  finally:
    with contextlib.suppress(FileNotFoundError):
      os.unlink(path)
    lock.release()


def is_held(path: str) -> bool:
  if not os.path.exists(path):
    return False
  lock = _acquire(path, blocking=False)
  if lock is None:
    return True
  lock.release()
  return False


def _acquire(path: str, *, blocking: bool) -> filelock.BaseFileLock | None:
  # A soft lock, a mere file, would outlive a killed holder.
  lock = filelock.FileLock(path, thread_local=False, fallback_to_soft=False)
  try:
    lock.acquire(blocking=blocking)
  except filelock.Timeout:
    return None
  except OSError as error:
    if error.errno not in _NO_LOCKS:
      raise
    raise InputError(
      f"the file system of {os.path.dirname(path)} cannot lock files ({error.strerror}): use another file system."
    ) from error
  return lock
