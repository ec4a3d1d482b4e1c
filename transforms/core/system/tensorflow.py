"""Loads TensorFlow without its start-up messages."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator

from beam_retrain.transforms.core.system.imports import gc_paused
from beam_retrain.transforms.core.system.stderr import native_stderr_captured

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def load_tensorflow() -> None:
  """Imports TensorFlow; silent unless the user has set TF_CPP_MIN_LOG_LEVEL.

  Level 3 also hides its messages about damaged images, which the quarantine reports.
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
  """Makes a package appear not to be installed.

  Used for scikit-learn, which Keras imports for wrappers that nothing here uses: TensorFlow then loads a sixth faster.
  """
  if package in sys.modules:
    yield
    return
  sys.modules[package] = None  # type: ignore[assignment]
  try:
    yield
  finally:
    del sys.modules[package]
