"""Pauses garbage collection while large packages are imported."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
  """Imports Beam or TensorFlow in two thirds of the time.

  Each import creates a million objects that live as long as the process. The garbage collector would scan them again
  and again while they are created, at each later full collection, and once more at exit: so it is paused here, and
  ignores them afterwards (`gc.freeze`).
  """
  enabled = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    gc.freeze()
    if enabled:
      gc.enable()
    _freeze_at_exit()


@functools.cache
def _freeze_at_exit() -> None:
  """Skips the final collection, just before all memory is freed anyway."""
  atexit.register(gc.freeze)
