"""Compares workers with this machine: number, versions, paths, memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from beam_retrain.pipelines.doctor.worker_report import UNKNOWN, Process
from beam_retrain.pipelines.engines.dataflow import worker_memory_bytes
from beam_retrain.pipelines.engines.findings import Finding, fine, minor_version, problem, warning

_GIB = 1 << 30


def count_processes(driver: Process, workers: Sequence[Process], expected: int, remedy: str) -> Finding:
  """Compares the number of worker processes with the expected one.

  Args:
    expected: number of processes that the flags ask for; 1 if they do not say.
    remedy: how to get more processes on this engine.
  """
  hosts = sorted({worker.host for worker in workers})
  counted = f"{_processes(len(workers))} on {'this machine' if hosts == [driver.host] else ', '.join(hosts)}"
  if len(workers) == 1 and expected > 1:
    shared = ", which is the command's own" if workers[0] == driver else ""
    return warning("workers", f"{counted}{shared}, where {expected} were expected", remedy)
  return fine("workers", counted)


def compare_versions(driver: Process, workers: Sequence[Process]) -> list[Finding]:
  """Returns a problem for each package whose version differs in workers."""
  different: dict[tuple[str, str], set[str]] = {}  # (name, version) -> hosts
  for worker in workers:
    for name, version in worker.versions.items():
      if not _is_compatible(name, version, driver.versions[name]):
        different.setdefault((name, version), set()).add(worker.host)
  findings = []
  for (name, version), hosts in sorted(different.items()):
    own = driver.versions[name]
    cause = f"the workers on {', '.join(sorted(hosts))} have {version or 'none'}, but the driver has {own}"
    remedy = f"install {name}=={own} in the workers' Python, or in their image"
    if name == "Python":
      remedy = f"start the command with Python {minor_version(version)}, or the workers with {own}"
    findings.append(problem(name, cause, remedy))
  return findings or [fine("versions", "the same in the driver and the workers")]


def _is_compatible(name: str, version: str, own: str) -> bool:
  if name == "Python":  # pickles are compatible within a minor version
    return minor_version(version) == minor_version(own)
  return own in ("", version) or (bool(version) and UNKNOWN in (version, own))


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
  known = [worker for worker in workers if worker.memory_bytes]
  if not known:
    return []
  tightest = min(known, key=lambda worker: (worker.memory_bytes / counts[worker.host], worker))
  count, left = counts[tightest.host], tightest.memory_bytes
  with_trunk = f"{'and' if model_bytes is None else 'with'} the trunk {trunk}"
  room = f"{left / _GIB:.1f} GiB for {_processes(count)} of up to {need / _GIB:.1f} GiB {with_trunk}"
  if left < count * need:
    remedy = "start fewer worker processes on a machine, or give it more memory"
    return [warning("memory", f"{tightest.host} has left {room}", remedy)]
  return [fine("memory", room)]


def _processes(count: int) -> str:
  return f"{count} process{'es' if count > 1 else ''}"
