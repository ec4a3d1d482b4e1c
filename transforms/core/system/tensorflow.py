"""Loading TensorFlow without its start-up chatter, so that what a command prints is the command's."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator

from beam_retrain.transforms.core.system.imports import gc_paused

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def load_tensorflow() -> None:
  """Imports TensorFlow. A user who sets TF_CPP_MIN_LOG_LEVEL sees what TensorFlow has to say.

  Level 3 keeps its graph's complaints about damaged images back: those are the quarantine's to report.
  """
  if "tensorflow" in sys.modules:
    return
  with contextlib.ExitStack() as stack:
    stack.enter_context(gc_paused())
    stack.enter_context(block_import("sklearn"))
    if _LEVEL not in os.environ:
      os.environ[_LEVEL] = "3"
      stack.enter_context(native_stderr_captured())
    importlib.import_module("tensorflow")


@contextlib.contextmanager
def block_import(package: str) -> Iterator[None]:
  """Keras, which TensorFlow imports, looks for scikit-learn for the sake of wrappers that nothing here uses: without it
  the import takes a sixth less."""
  if package in sys.modules:
    yield
    return
  sys.modules[package] = None  # type: ignore[assignment]
  try:
    yield
  finally:
    del sys.modules[package]


@contextlib.contextmanager
def native_stderr_captured() -> Iterator[None]:
  """Some lines are written by native code before any level is read: only the file descriptor can hold them back.

  Where the block fails they are shown after all.
  """
  sys.stderr.flush()
  kept = os.dup(2)
  with tempfile.TemporaryFile() as held:
    os.dup2(held.fileno(), 2)
    try:
      yield
    except Exception:
      held.seek(0)
      os.write(kept, held.read())
      raise
    finally:
      os.dup2(kept, 2)
      os.close(kept)
