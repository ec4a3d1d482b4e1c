"""Loads TensorFlow, OpenVINO and NNCF fast, without messages and telemetry."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from beam_retrain.transforms.core.errors import first_line
from beam_retrain.transforms.core.system.stderr import native_stderr_captured

OWN_JOB = "BEAM_RETRAIN_OWN_JOB"
"""Variable of an engine's worker whose job is a command's, not a program's own pipeline."""

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_TELEMETRY = "openvino_telemetry"
_NOT_FOR_JOBS = ("google.cloud", "apitools", "boto3", "pymongo", "pandas", "pyarrow", "apache_beam.io.gcp.bigquery")
_left_out_of_beam: list[str] = []


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
  """Imports Beam or TensorFlow in two thirds of the time.

  Each import creates a million objects that live as long as the process. The garbage collector would scan them again
  and again while they are created, at each later full collection, and once more at exit: so it is paused here, and
  ignores them afterwards (`gc.freeze`). Where all was imported already it ignores nothing: what earlier jobs of the
  process have left, a graph or a model in a cycle, could then never be freed.
  """
  enabled, before = gc.isenabled(), len(sys.modules)
  gc.disable()
  try:
    yield
  finally:
    if len(sys.modules) > before:
      gc.freeze()
    if enabled:
      gc.enable()
    _freeze_at_exit()


@functools.cache
def _freeze_at_exit() -> None:
  """Skips the final collection, just before all memory is freed anyway."""
  atexit.register(gc.freeze)


@contextlib.contextmanager
def _without(package: str) -> Iterator[None]:
  """Makes an optional package appear not to be installed.

  It may be in `sys.modules` without having been imported: a `.pth` file of Google's puts `google.cloud` there.
  """
  before = sys.modules.get(package)
  sys.modules[package] = None  # type: ignore[assignment]
  try:
    yield
  finally:
    del sys.modules[package]
    if before:
      sys.modules[package] = before


def leave_out_of_beam() -> None:
  """Lets `load_command` import Beam without clouds, databases and tables.

  It takes half of the time, and 100 MB less. For a process that runs our commands alone: nobody else's pipeline there
  would find them. Dataflow's flags import all of Beam first, and `gs://` its part when it is used.
  """
  _left_out_of_beam[:] = _NOT_FOR_JOBS
  # For each step Beam looks whether it runs in a notebook: a tenth of a second for its import, or hundreds of searches.
  sys.modules.setdefault("IPython", None)  # type: ignore[arg-type]


def load_command(module: str) -> Any:
  """Imports a command's module, and with it Beam."""
  with contextlib.ExitStack() as stack:
    stack.enter_context(gc_paused())
    if _left_out_of_beam and "apache_beam" not in sys.modules:
      stack.enter_context(_without_warnings())
      for package in _left_out_of_beam:
        stack.enter_context(_without(package))
    return importlib.import_module(module)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
  root = logging.getLogger()
  handlers = root.handlers[:]  # `logging.warning` adds one
  logging.disable(logging.WARNING)
  try:
    yield
  finally:
    logging.disable(logging.NOTSET)
    root.handlers[:] = handlers


_limits: list[int] = []  # the last one holds


def limit_tensorflow(threads: int) -> None:
  """Sets TensorFlow's threads, also if it is loaded later; 0: its choice."""
  _limits.append(threads)
  if "tensorflow" in sys.modules:
    load_tensorflow()


def load_tensorflow(threads: int = 0) -> None:
  """Imports TensorFlow; silent unless the user has set TF_CPP_MIN_LOG_LEVEL.

  Level 3 also hides its messages about damaged images, which the quarantine reports. Without scikit-learn and
  matplotlib, which Keras imports for wrappers and plots that nothing here uses, it loads a quarter faster. `threads`:
  of this process, unless TensorFlow has already started; 0: those of `limit_tensorflow`.
  """
  if "tensorflow" not in sys.modules:
    with contextlib.ExitStack() as stack:
      stack.enter_context(gc_paused())
      for package in ("sklearn", "matplotlib"):
        stack.enter_context(_without(package))
      if _LEVEL not in os.environ:
        os.environ[_LEVEL] = "3"
        stack.enter_context(native_stderr_captured())
      importlib.import_module("tensorflow")
  if threads := threads or (_limits[-1] if _limits else 0):
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # it has already started
      tf.config.threading.set_intra_op_parallelism_threads(threads)
      tf.config.threading.set_inter_op_parallelism_threads(threads)


def load_openvino() -> Any:
  with _without(_TELEMETRY):
    return importlib.import_module("openvino")


def load_nncf() -> Any:
  os.environ["NNCF_CI"] = "1"  # NNCF's own switch for its telemetry
  with _without(_TELEMETRY):
    nncf = importlib.import_module("nncf")
  nncf.set_log_level(logging.ERROR)
  return nncf


@functools.cache
def openvino_fault() -> str:
  """Returns why an installed OpenVINO cannot be imported; empty if it can."""
  return _import_error(lambda: load_openvino().Core)


@functools.cache
def nncf_fault() -> str:
  """Returns why an installed NNCF cannot be imported; empty if it can."""
  return _import_error(lambda: load_nncf().quantize)


def _import_error(access: Callable[[], Any]) -> str:
  # Reads an attribute: remains of an uninstalled package may still be importable.
  try:
    access()
  except Exception as error:  # a broken package may raise anything
    return first_line(error)
  return ""
