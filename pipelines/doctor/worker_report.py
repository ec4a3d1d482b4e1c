"""A worker's report on itself.

Workers get this file as text, so that it runs without our package, or with another version of it. It needs only Beam
and Python, of any version: pickled code would need the same versions. Our own modules are imported if installed.
"""

import importlib.metadata
import importlib.util
import inspect
import json
import os
import platform
import socket
import sys
import time
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.utils.python_callable import PythonCallableWithSource

REPORTS = "doctor_reports"


def describe_process() -> dict[str, Any]:
  """Returns the fields of `comparison.Process`, JSON values."""
  versions = {"Python": platform.python_version()}
  versions.update({name: _version(name) for name in ("apache-beam", "tensorflow", "openvino")})
  # A package in a folder on PYTHONPATH has no version.
  found = importlib.util.find_spec("beam_retrain")
  versions["beam-retrain"] = (_version("beam-retrain") or "unknown") if found else ""
  return {"host": socket.gethostname(), "pid": os.getpid(), "versions": versions, "memory_bytes": _memory_bytes()}


def _version(name: str) -> str:
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return ""


def _memory_bytes() -> int:
  try:
    from beam_retrain.transforms.core.system.memory import available_memory
  except ImportError:
    return 0
  return available_memory()


def read_start(path: str) -> bytes:
  if FileSystems.get_scheme(path) is None:
    with open(path, "rb") as file:
      return file.read(64)
  with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
    return bytes(file.read(64))


def _write(path: str, data: bytes) -> None:
  if FileSystems.get_scheme(path) is None:  # Beam would make the folder, on a disk that no other machine sees
    with open(path, "wb") as file:
      file.write(data)
    return
  with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
    file.write(data)


def _reason(error: Exception) -> str:
  reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
  return reason.splitlines()[0][:200]


class AsText(beam.DoFn):
  """A DoFn whose class is sent as the text of this file.

  Attributes:
    text: this file, with a last line that makes the DoFn.
  """

  text = ""

  def __reduce__(self) -> Any:
    return PythonCallableWithSource.load_from_script, (self.text,), {"text": self.text}


class Spread(AsText):
  """Any element -> `count` pairs (0, 0), (1, 1), ..."""

  def __init__(self, count: int):
    self.count = count

  def process(self, element):  # type: ignore[no-untyped-def]
    for number in range(self.count):
      yield number, number


class Report(AsText):
  """Reports on its process by a metric and by a file.

  Attributes:
    request: `read`: path -> first bytes of the file, hex digits; `folder`: where to write, or ""; `pause_secs`:
      duration of an element, so that other processes get some, too.
  """

  def __init__(self, request: dict):
    self.request = request
    self.is_done = False

  def process(self, element):  # type: ignore[no-untyped-def]
    time.sleep(self.request["pause_secs"])
    if not self.is_done:
      self.is_done = True
      text = json.dumps(self.report(), sort_keys=True)
      beam.metrics.Metrics.string_set("beam_retrain", REPORTS).add(text)
    return ()

  def report(self) -> dict[str, Any]:
    found = describe_process()
    found["unread"] = {}
    for path, start in self.request["read"].items():
      try:
        if read_start(path).hex() != start:
          found["unread"][path] = "another file is there"
      except Exception as error:  # each file system has its own
        found["unread"][path] = _reason(error)
    found["unwritten"] = ""
    if self.request["folder"]:
      name = f"{found['host']}-{found['pid']}.json"
      try:
        _write(self.request["folder"] + "/" + name, json.dumps(found, sort_keys=True).encode())
      except Exception as error:
        found["unwritten"] = _reason(error)
    return found


def as_text(expression: str) -> Any:
  """Returns the DoFn that an expression makes, to be sent as text."""
  text = inspect.getsource(sys.modules[__name__]) + "\n" + expression
  made = PythonCallableWithSource.load_from_script(text)
  made.text = text
  return made
