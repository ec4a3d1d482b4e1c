"""A worker's report on itself.

Workers get this file as text, so that it runs without our package, or with another version of it. It needs only Beam
and Python, of any version: pickled code would need the same versions. Our own modules are imported if installed.
"""

import dataclasses
import importlib.metadata
import importlib.util
import inspect
import json
import os
import pathlib
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
UNKNOWN = "unknown"
_PAUSE_SECS = 0.1


@dataclasses.dataclass(frozen=True, order=True)
class Process:
  """A Python process: a worker's, or the driver.

  Attributes:
    versions: name -> version; empty if not installed, `UNKNOWN` if it can be imported but is not installed.
    memory_bytes: available to all such processes of its machine; 0 if unknown.
    unread: path -> why it could not be read.
    unwritten: why it could not write into the given folder, or "".
  """

  host: str
  pid: int
  versions: dict[str, str] = dataclasses.field(compare=False)
  memory_bytes: int = dataclasses.field(default=0, compare=False)
  unread: dict[str, str] = dataclasses.field(default_factory=dict, compare=False)
  unwritten: str = dataclasses.field(default="", compare=False)


def describe_process() -> Process:
  versions = {"Python": platform.python_version()}
  versions.update({name: _version(name) for name in ("apache-beam", "tensorflow", "openvino")})
  # A package in a folder on PYTHONPATH has no version.
  found = importlib.util.find_spec("beam_retrain")
  versions["beam-retrain"] = (_version("beam-retrain") or UNKNOWN) if found else ""
  try:
    from beam_retrain.transforms.core.system.machine import available_memory
  except ImportError:
    return Process(socket.gethostname(), os.getpid(), versions)
  return Process(socket.gethostname(), os.getpid(), versions, available_memory())


def _version(name: str) -> str:
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return ""


def read_start(path: str) -> str:
  """Returns the first bytes of a file as hex digits."""
  with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
    return bytes(file.read(64)).hex()


def _write(path: str, text: str) -> None:
  if FileSystems.get_scheme(path) is None:  # Beam would make the folder, on a disk that no other machine sees
    pathlib.Path(path).write_text(text)
    return
  with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
    file.write(text.encode())


def _reason(error: Exception) -> str:
  reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
  return reason.splitlines()[0][:200]


def report(read: dict[str, str], folder: str) -> str:
  """Returns the JSON of this `Process`, after it has tried the files.

  Args:
    read: path -> what `read_start` should return.
    folder: where to write the report, or "".
  """
  process = describe_process()
  for path, start in read.items():
    try:
      if read_start(path) != start:
        process.unread[path] = "another file is there"
    except Exception as error:  # each file system has its own
      process.unread[path] = _reason(error)
  try:
    if folder:
      _write(f"{folder}/{process.host}-{process.pid}.json", json.dumps(dataclasses.asdict(process)))
  except Exception as error:
    process = dataclasses.replace(process, unwritten=_reason(error))
  return json.dumps(dataclasses.asdict(process), sort_keys=True)


class _SentAsText(beam.DoFn):
  """A DoFn pickled as this file and a line that makes it."""

  text = ""

  def __init__(self, *arguments: Any):
    self.arguments = arguments

  def __reduce__(self) -> Any:
    if not self.text:
      source = inspect.getsource(sys.modules[type(self).__module__])
      self.text = f"{source}\n{type(self).__name__}{self.arguments!r}"
    return PythonCallableWithSource.load_from_script, (self.text,), {"text": self.text}


class Spread(_SentAsText):
  """Yields pairs (0, 0), (1, 1), ... for any element."""

  def process(self, element):  # type: ignore[no-untyped-def]
    for number in range(*self.arguments):
      yield number, number


class Report(_SentAsText):
  """Reports once, by a metric and a file; arguments: see `report`."""

  is_done = False

  def process(self, element):  # type: ignore[no-untyped-def]
    time.sleep(_PAUSE_SECS)  # so that other processes get some elements, too
    if not self.is_done:
      self.is_done = True
      beam.metrics.Metrics.string_set("beam_retrain", REPORTS).add(report(*self.arguments))
