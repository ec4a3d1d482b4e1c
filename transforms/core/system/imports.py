"""Importing large packages in two thirds of the time, by leaving the garbage collector out of it."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
  """A block that imports Beam or TensorFlow.

  Each makes a million objects that live as long as the process. The collector would go through all of them again and
  again while they are made, later with each full collection, and once more when Python ends. So it rests meanwhile, and
  does not look at them afterwards either (`gc.freeze`).
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
  """Memory need not be searched for garbage just before the process gives all of it back."""
  atexit.register(gc.freeze)
