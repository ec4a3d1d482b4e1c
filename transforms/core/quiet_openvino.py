"""Loading OpenVINO and NNCF, optional extras, without what reports home of their use."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

_REPORTER = "openvino_telemetry"


def load_openvino() -> Any:
  """Returns the module `openvino`."""
  with _without_reporter():
    return importlib.import_module("openvino")


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
