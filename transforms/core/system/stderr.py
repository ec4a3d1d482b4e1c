"""Redirects standard error, also that of native code and child processes."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import IO

STDERR = 2


@contextlib.contextmanager
def redirect_native_stderr(file: IO) -> Iterator[int]:
  """Sends file descriptor 2 to `file`; yields the old descriptor."""
  sys.stderr.flush()
  before = os.dup(STDERR)
  os.dup2(file.fileno(), STDERR)
  try:
    yield before
  finally:
    os.dup2(before, STDERR)
    os.close(before)


@contextlib.contextmanager
def native_stderr_captured() -> Iterator[None]:
  """Captures the process's standard error; prints it if the block fails.

  Works on the file descriptor: native code writes some lines before any log level applies.
  """
  with tempfile.TemporaryFile() as held, redirect_native_stderr(held) as before:
    try:
      yield
    except Exception:
      held.seek(0)
      os.write(before, held.read())
      raise
