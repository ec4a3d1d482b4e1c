"""Loading TensorFlow without its start-up chatter, so that what a command prints is the command's."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator

from beam_retrain.transforms.core.system.imports import collector_at_rest

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def load_tensorflow() -> None:
  """Imports TensorFlow. A user who sets TF_CPP_MIN_LOG_LEVEL sees what TensorFlow has to say.

  Level 3 keeps its graph's complaints about damaged images back: those are the quarantine's to report.
  """
  if "tensorflow" in sys.modules:
    return
  with contextlib.ExitStack() as stack:
    stack.enter_context(collector_at_rest())
    stack.enter_context(not_to_be_imported("sklearn"))
    if _LEVEL not in os.environ:
      os.environ[_LEVEL] = "3"
      stack.enter_context(native_stderr_held_back())
    importlib.import_module("tensorflow")


@contextlib.contextmanager
def not_to_be_imported(package: str) -> Iterator[None]:
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
def native_stderr_held_back() -> Iterator[None]:
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
