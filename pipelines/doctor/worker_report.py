"""A worker's report on itself.

Workers get this file as text, so that it runs without our package, or with another version of it. It needs only Beam
and Python, of any version: pickled code would need the same versions. Our own modules are imported if installed.
"""

import dataclasses
import functools
import importlib.metadata
import importlib.util
import inspect
import json
import os
import pathlib
import platform
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.utils.python_callable import PythonCallableWithSource

REPORTS = "doctor_reports"
UNKNOWN = "unknown"
_PAUSE_SECS = 0.1
_TRIAL_SECS = 10.0
_TRIAL_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True, order=True)
class Process:
  """A Python process: a worker's, or the driver.

  Attributes:
    versions: name -> version; empty if not installed, `UNKNOWN` if it can be imported but is not installed.
    memory_bytes: available to all such processes of its machine; 0 if unknown.
    unread: path -> why it could not be read.
    unwritten: why it could not write into the given folder, or "".
    place: tells hosts of one name apart: containers and namespaces of a machine, copies of a virtual machine.
    instructions: of its processor, as far as results depend on them; "" if unknown.
    clock_secs: its clock when it reported.
    scratch: why its folder for temporary files cannot be used, or "".
    scratch_bytes: free in that folder.
  """

  host: str
  pid: int
  versions: dict[str, str] = dataclasses.field(compare=False)
  memory_bytes: int = dataclasses.field(default=0, compare=False)
  unread: dict[str, str] = dataclasses.field(default_factory=dict, compare=False)
  unwritten: str = dataclasses.field(default="", compare=False)
  place: str = ""
  instructions: str = dataclasses.field(default="", compare=False)
  clock_secs: float = dataclasses.field(default=0.0, compare=False)
  scratch: str = dataclasses.field(default="", compare=False)
  scratch_bytes: int = dataclasses.field(default=0, compare=False)


def describe_process() -> Process:
  versions = {"Python": platform.python_version()}
  versions.update({name: _version(name) for name in ("apache-beam", "tensorflow", "openvino")})
  # A package in a folder on PYTHONPATH has no version.
  found = importlib.util.find_spec("beam_retrain")
  versions["beam-retrain"] = (_version("beam-retrain") or UNKNOWN) if found else ""
  process = Process(socket.gethostname(), os.getpid(), versions, place=_place(), clock_secs=time.time())
  try:
    from beam_retrain.transforms.core.runtimes.variant import instructions
    from beam_retrain.transforms.core.system.machine import available_memory
  except ImportError:
    return process
  return dataclasses.replace(process, memory_bytes=available_memory(), instructions=instructions())


def _place() -> str:
  """Returns the kernel's boot and the network namespace, or ""."""
  try:
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/net')}"
  except OSError:
    return ""


def _version(name: str) -> str:
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return ""


def read_start(path: str) -> str:
  """Returns a file's first bytes as hex digits, "" of a folder.

  Our own client reads objects: it gives up in seconds where Beam's would try for hours.
  """
  if FileSystems.get_scheme(path) is None:
    if os.path.isdir(path):
      os.listdir(path)
      return ""
    with open(path, "rb") as file:
      return file.read(64).hex()
  from beam_retrain.transforms.io import files

  files.check_reachable([path])
  if files.stat(path) is None:
    return ""
  with files.open_to_read(path) as file:
    return file.read(64).hex()


def _write(path: str, text: str) -> None:
  if FileSystems.get_scheme(path) is None:  # `files` would make the folder, on a disk that no other machine sees
    pathlib.Path(path).write_text(text)
    return
  from beam_retrain.transforms.io import files

  files.write_text(path, text)


def _try_scratch() -> None:
  with tempfile.TemporaryFile() as file:
    file.write(bytes(_TRIAL_BYTES))


def _failures(trials: Mapping[str, Callable[[], None]]) -> dict[str, str]:
  """Makes all calls at once; returns why some failed, by their names.

  One that hangs, as on a server of files that does not answer, is left alone.
  """
  failures = dict.fromkeys(trials, f"no answer within {_TRIAL_SECS:g} seconds")

  def attempt(name: str) -> None:
    try:
      trials[name]()
      failures.pop(name)
    except Exception as error:  # each file system has its own
      reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
      failures[name] = reason.splitlines()[0][:400]

  threads = [threading.Thread(target=attempt, args=[name], daemon=True) for name in trials]
  for thread in threads:
    thread.start()
  until = time.monotonic() + _TRIAL_SECS
  for thread in threads:
    thread.join(max(0.0, until - time.monotonic()))
  return dict(failures)


def report(read: dict[str, str], folder: str) -> str:
  """Returns the JSON of this `Process`, after it has tried the files.

  Args:
    read: path -> what `read_start` should return.
    folder: where to write the report, or "".
  """

  def check(path: str) -> None:
    if read_start(path) != read[path]:
      raise ValueError("another file is there")

  failures = _failures({"": _try_scratch, **{path: functools.partial(check, path) for path in read}})
  process = dataclasses.replace(describe_process(), scratch=failures.pop("", ""), unread=failures)
  if not process.scratch:
    process = dataclasses.replace(process, scratch_bytes=shutil.disk_usage(tempfile.gettempdir()).free)
  if folder:
    path = f"{folder}/{process.host}-{process.pid}-{os.urandom(4).hex()}.json"  # two hosts may have one name
    failures = _failures({"": lambda: _write(path, json.dumps(dataclasses.asdict(process)))})
    process = dataclasses.replace(process, unwritten=failures.get("", ""))
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
