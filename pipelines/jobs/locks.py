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
def hold(path: str, *, blocking: bool = True) -> Iterator[None]:
  """Waits for the lock file `path` and holds it; the file stays.

  Raises:
    filelock.Timeout: another process holds it, and this one should not wait.
  """
  # A soft lock, a mere file, would outlive a killed holder.
  lock = filelock.FileLock(path, thread_local=False, fallback_to_soft=False)
  try:
    lock.acquire(blocking=blocking)
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
def hold_alone(path: str, busy: str) -> Iterator[None]:
  """Holds the lock file `path`, and finally removes it.

  Args:
    busy: the error message if another process holds it.
  """
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(hold(path, blocking=False))
    except filelock.Timeout as error:
      raise InputError(busy) from error
    try:
      yield
    finally:
      with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def is_held(path: str) -> bool:
  try:
    with hold(path, blocking=False) if os.path.exists(path) else contextlib.nullcontext():
      return False
  except filelock.Timeout:
    return True
