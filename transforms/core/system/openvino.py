"""Loads OpenVINO and NNCF, which are optional, with their telemetry disabled."""

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

_TELEMETRY = "openvino_telemetry"


def load_openvino() -> Any:
  with _without_telemetry():
    return importlib.import_module("openvino")


@functools.cache
def openvino_fault() -> str:
  """Returns why an installed OpenVINO cannot be imported; empty if it can."""
  return _import_error(lambda: load_openvino().Core)


@functools.cache
def nncf_fault() -> str:
  """Returns why an installed NNCF cannot be imported; empty if it can."""
  return _import_error(lambda: load_nncf().quantize)


def _import_error(access: Callable[[], Any]) -> str:
  """Returns the first line of the import error; empty if none.

  `access` reads an attribute: remains of an uninstalled package may still be importable.
  """
  try:
    access()
  except Exception as error:  # a broken package may raise anything
    return first_line(error)
  return ""


def load_nncf() -> Any:
  os.environ["NNCF_CI"] = "1"  # NNCF's own switch for its telemetry
  with _without_telemetry():
    nncf = importlib.import_module("nncf")
  nncf.set_log_level(logging.ERROR)
  return nncf


@contextlib.contextmanager
def _without_telemetry() -> Iterator[None]:
  """Hides the telemetry package: both libraries work without it."""
  if _TELEMETRY in sys.modules:
    yield
    return
  sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
  try:
    yield
  finally:
    del sys.modules[_TELEMETRY]
