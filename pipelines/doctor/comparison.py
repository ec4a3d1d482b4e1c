"""Compares the reports of the driver and the workers."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from beam_retrain.pipelines.engines.findings import Finding, fine, problem, warning, worker_memory_bytes

_GIB = 1 << 30
_PYTHON = "Python"
UNKNOWN = "unknown"
"""Version of a package that can be imported but is not installed."""


@dataclasses.dataclass(frozen=True, order=True)
class Process:
  """A report of a worker's Python process, or of the driver.

  Attributes:
    versions: name -> version; empty if not installed.
    memory_bytes: available to all such processes of its machine; 0 if unknown.
    unread: path -> why it could not be read.
    unwritten: why it could not write into the given folder, or "".
  """

  host: str
  pid: int
  versions: Mapping[str, str] = dataclasses.field(compare=False)
  memory_bytes: int = dataclasses.field(default=0, compare=False)
  unread: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False)
  unwritten: str = dataclasses.field(default="", compare=False)

  @classmethod
  def from_json(cls, values: Mapping[str, Any]) -> Process:
    return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls) if field.name in values})


def describe_driver(driver: Process) -> Finding:
  return fine("driver", ", ".join(f"{name} {version}" for name, version in driver.versions.items() if version))


def count_processes(driver: Process, workers: Sequence[Process], expected: int, remedy: str) -> Finding:
  """Compares the number of worker processes with the expected one.

  Args:
    workers: not empty.
    expected: number of processes that the flags ask for; 1 if they do not say.
    remedy: how to get more processes on this engine.
  """
  hosts = Counter(worker.host for worker in workers)
  where = "this machine" if set(hosts) == {driver.host} else ", ".join(sorted(hosts))
  counted = f"{_processes(len(workers))} on {where}"
  if len(workers) == 1 and expected > 1:
    shared = ", which is the command's own" if workers[0] == driver else ""
    return warning("workers", f"{counted}{shared}, where {expected} were expected", remedy)
  return fine("workers", counted)


def compare_versions(driver: Process, workers: Sequence[Process]) -> list[Finding]:
  """Returns a problem for each package whose version differs in workers."""
  findings = []
  for name, own in driver.versions.items():
    others = {worker.versions.get(name, "") for worker in workers} if own else set()
    for other in sorted(version for version in others if not _is_compatible(name, version, own)):
      hosts = sorted({worker.host for worker in workers if worker.versions.get(name, "") == other})
      cause = f"the workers on {', '.join(hosts)} have {other or 'none'}, but the driver has {own}"
      remedy = f"install {name}=={own} in the workers' Python, or in their image"
      if name == _PYTHON:
        remedy = f"start the command with Python {'.'.join(other.split('.')[:2])}, or the workers with {own}"
      findings.append(problem(name, cause, remedy))
  return findings or [fine("versions", "the same in the driver and the workers")]


def _is_compatible(name: str, version: str, own: str) -> bool:
  if name == _PYTHON:  # pickles are compatible within a minor version
    return version.split(".")[:2] == own.split(".")[:2]
  return version == own or (bool(version) and UNKNOWN in (version, own))


def check_paths(
  workers: Sequence[Process], paths: Mapping[str, str], output: str, missing: Sequence[Process]
) -> list[Finding]:
  """Checks that workers read and write the driver's paths.

  Args:
    paths: path that they should read -> the user's flag; may be empty.
    output: the flag of the folder that they should write to, or "".
    missing: workers that claim to have written, but whose file the driver does not find.
  """
  remedy = "give a path that is the same for all workers and this machine, on a shared disk or in a bucket"
  for worker in workers:
    for path, reason in worker.unread.items():
      return [problem(paths[path], f"the worker on {worker.host} cannot read it ({reason})", remedy)]
    if worker.unwritten:
      return [problem(output, f"the worker on {worker.host} cannot write there ({worker.unwritten})", remedy)]
  for worker in missing:
    return [problem(output, f"this machine does not see what the worker on {worker.host} wrote there", remedy)]
  did = "read and write" if output else "read"
  return [fine("paths", f"the workers {did} the same paths as this machine")] if paths else []


def check_memory(workers: Sequence[Process], model_bytes: int | None, trunk: str) -> list[Finding]:
  """Checks each process's memory for the trunk on the tightest machine.

  Args:
    model_bytes: size of the stored trunk; None if unknown.
  """
  need = worker_memory_bytes(model_bytes or 0)
  counts = Counter(worker.host for worker in workers)
  left: dict[str, int] = {}
  for worker in workers:
    if worker.memory_bytes:
      left[worker.host] = min(worker.memory_bytes, left.get(worker.host, worker.memory_bytes))
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
