"""Loading OpenVINO and NNCF, optional extras, without what reports home of their use."""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from beam_retrain.transforms.core.errors import first_line

_REPORTER = "openvino_telemetry"


def load_openvino() -> Any:
  """Returns the module `openvino`."""
  with _without_reporter():
    return importlib.import_module("openvino")


@functools.cache
def openvino_fault() -> str:
  """Returns why OpenVINO, where it is installed, cannot be imported, in a line; empty: it can."""
  return _fault(lambda: load_openvino().Core)


@functools.cache
def nncf_fault() -> str:
  """Returns the same of NNCF."""
  return _fault(lambda: load_nncf().quantize)


def _fault(find: Callable[[], Any]) -> str:
  """`find` takes something from the module: what is left of one that was removed can be imported too."""
  try:
    find()
  except Exception as error:  # of whatever kind: a package that is broken may raise anything
    return first_line(error)
  return ""


def load_nncf() -> Any:
  """Returns the module `nncf`."""
  os.environ["NNCF_CI"] = "1"  # its own switch: no reports
  with _without_reporter():
    nncf = importlib.import_module("nncf")
  nncf.set_log_level(logging.ERROR)
  return nncf


@contextlib.contextmanager
def _without_reporter() -> Iterator[None]:
  """Both do without it where it is not installed: here it looks as if it were not."""
  if _REPORTER in sys.modules:
    yield
    return
  sys.modules[_REPORTER] = None  # type: ignore[assignment]
  try:
    yield
  finally:
    del sys.modules[_REPORTER]
