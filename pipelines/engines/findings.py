"""What is made of what the driver and the workers of an engine say of themselves, before a long job is sent there.

The facts are asked for elsewhere; here they become sentences, each with its remedy.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_GIB = 1 << 30
_BASE_BYTES = 2 * _GIB
"""Python, Beam, TensorFlow and the batches: the bundled trunk's process, a trunk of 5 MB, takes 1.1 GB."""

_COPIES = 8
"""Of the trunk: as it is read, as a graph, and as the runtime lays it out; with room to spare."""

UNKNOWN = "unknown"
"""The version of a package that is there, but was not installed."""

_PYTHON = "Python"


class Severity(enum.StrEnum):
  """A warning does not stand against the job; a problem does."""

  FINE = "ok"
  WARNING = "warning"
  PROBLEM = "problem"


@dataclasses.dataclass(frozen=True)
class Finding:
  """A line for the user.

  Attributes:
    severity: whether there is something to do.
    thing: what it is about, a flag for one.
    cause: what was found.
    remedy: what to do; empty where all is well.
  """

  severity: Severity
  thing: str
  cause: str
  remedy: str = ""

  @property
  def sentence(self) -> str:
    return f"{self.thing}: {self.cause}" + (f": {self.remedy}." if self.remedy else "")

  def __str__(self) -> str:
    return f"{self.severity}: {self.sentence}"


def fine(thing: str, fact: str) -> Finding:
  return Finding(Severity.FINE, thing, fact)


def warning(thing: str, cause: str, remedy: str) -> Finding:
  return Finding(Severity.WARNING, thing, cause, remedy)


def problem(thing: str, cause: str, remedy: str) -> Finding:
  return Finding(Severity.PROBLEM, thing, cause, remedy)


@dataclasses.dataclass(frozen=True, order=True)
class Process:
  """What a Python process of a worker, or of the driver, says of itself.

  Attributes:
    host: its machine's name.
    pid: its process id.
    versions: name -> version; empty: it is not installed.
    memory_bytes: what is left there for it and the other processes of its machine; 0: it cannot tell.
    unread: path -> why it could not be read.
    unwritten: why it could not write into the folder that it was given; empty: it could, or was given none.
  """

  host: str
  pid: int
  versions: Mapping[str, str] = dataclasses.field(compare=False)
  memory_bytes: int = dataclasses.field(default=0, compare=False)
  unread: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False)
  unwritten: str = dataclasses.field(default="", compare=False)

  @classmethod
  def from_json(cls, found: Mapping[str, Any]) -> Process:
    return cls(**{field.name: found[field.name] for field in dataclasses.fields(cls) if field.name in found})


def describe_driver(driver: Process) -> Finding:
  return fine("driver", ", ".join(f"{name} {version}" for name, version in driver.versions.items() if version))


def count_processes(driver: Process, workers: Sequence[Process], meant: int, remedy: str) -> Finding:
  """Says where the workers are, and whether one process does the work that several were to do.

  Args:
    driver: where the command is.
    workers: not empty.
    meant: how many processes the user's flags speak of; 1 where they speak of none.
    remedy: what gives more processes on this engine.
  """
  hosts = Counter(worker.host for worker in workers)
  where = "this machine" if set(hosts) == {driver.host} else ", ".join(sorted(hosts))
  counted = f"{_processes(len(workers))} on {where}"
  if len(workers) == 1 and meant > 1:
    shared = ", which is the command's own" if workers[0] == driver else ""
    return warning("workers", f"{counted}{shared}, where {meant} were meant", remedy)
  return fine("workers", counted)


def compare_versions(driver: Process, workers: Sequence[Process]) -> list[Finding]:
  """Says what the workers have in another version than the driver, or do not have."""
  findings = []
  for name, own in driver.versions.items():
    others = {worker.versions.get(name, "") for worker in workers} if own else set()
    for other in sorted(version for version in others if not _is_same(name, version, own)):
      hosts = sorted({worker.host for worker in workers if worker.versions.get(name, "") == other})
      cause = f"the workers on {', '.join(hosts)} have {other or 'none'}, and the driver has {own}"
      findings.append(problem(name, cause, _version_remedy(name, own, other)))
  return findings or [fine("versions", "the same in the driver and the workers")]


def _is_same(name: str, version: str, own: str) -> bool:
  if name == _PYTHON:  # pickled code is understood by the same minor version
    return version.split(".")[:2] == own.split(".")[:2]
  return version == own or (bool(version) and UNKNOWN in (version, own))


def _version_remedy(name: str, own: str, other: str) -> str:
  if name == _PYTHON:
    return f"start the command with Python {'.'.join(other.split('.')[:2])}, or the workers with {own}"
  return f"install {name}=={own} in the workers' Python, or in their image"


def look_at_paths(
  workers: Sequence[Process], named: Mapping[str, str], output: str, missing: Sequence[Process]
) -> list[Finding]:
  """Says whether the workers read what the driver reads, and write where it reads.

  Args:
    workers: any number.
    named: path that they were to read -> the user's flag that it belongs to; may be empty.
    output: the flag of the folder that they were to write in; empty: in none.
    missing: workers that say they have written, and of whose file the driver sees nothing.
  """
  remedy = "give a path that all workers and this machine see as the same, on a shared disk or in a bucket"
  for worker in workers:
    for path, why in worker.unread.items():
      return [problem(named[path], f"the worker on {worker.host} does not see what is there ({why})", remedy)]
    if worker.unwritten:
      return [problem(output, f"the worker on {worker.host} cannot write there ({worker.unwritten})", remedy)]
  for worker in missing:
    return [problem(output, f"what the worker on {worker.host} wrote there is not seen here", remedy)]
  did = "read and write" if output else "read"
  return [fine("paths", f"the workers {did} where this machine does")] if named else []


def worker_memory_bytes(model_bytes: int) -> int:
  """Returns the memory that a process needs for a stored model of so many bytes: an estimate, on the safe side."""
  return _BASE_BYTES + _COPIES * model_bytes


def look_at_memory(workers: Sequence[Process], model_bytes: int | None, trunk: str) -> list[Finding]:
  """Says whether the processes of each machine have room for a trunk each; of the fullest machine.

  Args:
    workers: any number.
    model_bytes: of the trunk, as it is stored; None: not known.
    trunk: its name.
  """
  need = worker_memory_bytes(model_bytes or 0)
  counts = Counter(worker.host for worker in workers)
  left = {
    host: min(worker.memory_bytes for worker in workers if worker.host == host and worker.memory_bytes)
    for host in {worker.host for worker in workers if worker.memory_bytes}
  }
  if not left:
    return []
  host = min(left, key=lambda name: (left[name] / counts[name], name))
  with_trunk = f"and the trunk {trunk}" if model_bytes is None else f"with the trunk {trunk}"
  room = f"{left[host] / _GIB:.1f} GiB for {_processes(counts[host])} of up to {need / _GIB:.1f} GiB {with_trunk}"
  if left[host] < counts[host] * need:
    remedy = "start fewer worker processes on a machine, or give it more memory"
    return [warning("memory", f"{host} has left {room}", remedy)]
  return [fine("memory", room)]


def _processes(count: int) -> str:
  return f"{count} process{'es' if count > 1 else ''}"


# What an engine or a worker says -> what it means, and what to do.
_KNOWN = (
  (
    r"No module named '?beam_retrain\b",
    "the workers do not have beam-retrain",
    "install the package in the workers' Python or image, of the version that this command has",
  ),
  (
    r"No module named '?apache_beam\b",
    "the workers are started with a Python that has no Beam",
    "start them with the Python that beam-retrain is installed in; for workers of LOOPBACK, put it first on PATH",
  ),
  (
    r"Unable to fetch remote job server jar at (?P<what>[^\s:]+:[^\s:]+)",
    "the job server {what} is not to be had from here",
    "fetch it elsewhere, and give its path with --flink_job_server_jar or --spark_job_server_jar",
  ),
  (
    r"Unable to fetch remote prism binary",
    "Prism is not to be had from here",
    "build it with `go install`, and give its path with --prism_location; or use --runner=FnApiRunner",
  ),
  (
    r"Cannot connect to the Docker daemon|docker: not found|Cannot run program \"docker\"",
    "the workers are to be containers, and there is no docker",
    "use --environment_type=PROCESS with a command that starts a worker, or start docker",
  ),
  (
    r"Cannot run program \"(?P<what>[^\"]+)\"",
    "the workers' machines cannot start {what}",
    "give the command of --environment_config as an absolute path of an executable file that is there on each of them",
  ),
  (
    r"Process died with exit code (?P<code>\d+)",
    "the workers' command ended at once, with exit code {code}",
    "run it on a worker's machine: beam-retrain has to be installed in the Python that it starts",
  ),
  (
    r"NoResourceAvailableException|Initial job has not accepted any resources|Could not acquire the minimum required",
    "the cluster has no worker free",
    "start workers, or wait until its other jobs are done; --parallelism must not exceed its slots",
  ),
  (
    r"Downloading prism from",
    "Prism is still being fetched from the network",
    "use --runner=FnApiRunner, or give the path of prism with --prism_location",
  ),
)


def explain(said: str) -> tuple[str, str] | None:
  """Returns (cause, remedy) where the text of an engine's fault is a known one; None: it is not."""
  for pattern, cause, remedy in _KNOWN:
    if found := re.search(pattern, said):
      return cause.format(**found.groupdict()), remedy
  return None
