"""Compares workers with this machine: hosts, versions, paths, clocks, memory."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from beam_retrain.pipelines.doctor.worker_report import UNKNOWN, Process
from beam_retrain.pipelines.engines.dataflow import worker_memory_bytes
from beam_retrain.pipelines.engines.findings import Finding, fine, minor_version, problem, warning
from beam_retrain.transforms.core.runtimes.variant import BFLOAT16, FLOAT32, ISA_LIMIT, WITH_BFLOAT16, kind_of

_GIB = 1 << 30
_CLOCK_SECS = 60  # clocks may differ by that much: S3 refuses one that is a quarter of an hour off


def count_processes(driver: Process, workers: Sequence[Process], expected: int, remedy: str) -> Finding:
  """Compares the number of worker processes with the expected one.

  Args:
    expected: number of processes that the flags ask for; 1 if they do not say.
    remedy: how to get more processes on this engine.
  """
  names = _names_of(workers)
  hosts = sorted({"this machine" if _host(worker) == _host(driver) else names[_host(worker)] for worker in workers})
  several = f"{len(hosts)} hosts: " if len(hosts) > 1 else ""
  counted = f"{_processes(len(workers))} on {several}{', '.join(hosts)}"
  if len(workers) == 1 and expected > 1:
    shared = ", which is the command's own" if workers[0] == driver else ""
    return warning("workers", f"{counted}{shared}, where {expected} were expected", remedy)
  return fine("workers", counted)


def _host(process: Process) -> tuple[str, str]:
  return process.host, process.place


def _names_of(workers: Iterable[Process]) -> dict[tuple[str, str], str]:
  """Returns the hosts' names, made different where several have the same."""
  hosts = {_host(worker) for worker in workers}
  count = Counter(name for name, _ in hosts)
  return {(name, place): name if count[name] == 1 else f"{name} ({place})" for name, place in hosts}


def _by_hosts(workers: Sequence[Process], value: Callable[[Process], Iterable[Any]]) -> list[tuple[Any, str]]:
  """Returns the values that `value` yields, each with its hosts' names."""
  names, found = _names_of(workers), defaultdict(set)
  for worker in workers:
    for each in value(worker):
      found[each].add(names[_host(worker)])
  return [(each, ", ".join(sorted(hosts))) for each, hosts in sorted(found.items())]


def compare_versions(driver: Process, workers: Sequence[Process]) -> list[Finding]:
  """Returns a problem for each package whose version differs in workers."""
  findings = []

  def others(worker: Process) -> Iterable[tuple[str, str]]:
    return (each for each in worker.versions.items() if not _is_compatible(*each, driver.versions[each[0]]))

  for (name, version), hosts in _by_hosts(workers, others):
    own = driver.versions[name]
    cause = f"the workers on {hosts} have {version or 'none'}, but the driver has {own}"
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
  findings = []
  for (path, reason), hosts in _by_hosts(workers, lambda worker: worker.unread.items()):
    findings.append(_unusable(paths[path], "read it", reason, hosts, remedy, "://" in path))
  unwritten = [worker for worker in workers if worker.unwritten and not worker.unread]
  for reason, hosts in _by_hosts(unwritten, lambda worker: [worker.unwritten]):
    findings.append(_unusable(output, "write there", reason, hosts, remedy, "://" in output))
  if findings:
    return findings
  for _, hosts in _by_hosts(missing, lambda worker: [output]):
    return [problem(output, f"this machine does not see what the worker on {hosts} wrote there", remedy)]
  did = "read and write" if output else "read"
  return [fine("paths", f"the workers {did} the same paths as this machine")] if paths else []


def _unusable(thing: str, what: str, reason: str, hosts: str, remedy: str, is_remote: bool) -> Finding:
  """Returns a problem; the reason of a bucket brings its own remedy."""
  cause, _, own = reason.removesuffix(".").rpartition(": ")
  if is_remote and cause:
    return problem(thing, f"the worker on {hosts} cannot {what} ({cause})", f"where that worker is started, {own}")
  return problem(thing, f"the worker on {hosts} cannot {what} ({reason})", remedy)


def check_scratch(workers: Sequence[Process], model_bytes: int | None) -> list[Finding]:
  """Checks that temporary files, and the trunk among them, have room."""
  remedy = "make room there, or set TMPDIR in the environment of the workers"
  need = model_bytes or 0

  def fault(worker: Process) -> list[str]:
    if worker.scratch:
      return [f"cannot write temporary files ({worker.scratch})"]
    if worker.scratch_bytes < need:
      return [f"has no room for the trunk: {worker.scratch_bytes / _GIB:.1f} of {need / _GIB:.1f} GiB"]
    return []

  return [
    problem("temporary files", f"the worker on {hosts} {what}", remedy) for what, hosts in _by_hosts(workers, fault)
  ]


def check_processors(driver: Process, workers: Sequence[Process]) -> list[Finding]:
  """Warns of workers whose results would differ, which a job refuses."""
  known = [worker for worker in workers if worker.instructions]
  remedy = "give the job --precision float32, or it may be refused"
  for precision, cure in ((FLOAT32, f"start all with {ISA_LIMIT}=AVX2, or use hosts of one kind"), (BFLOAT16, remedy)):
    kinds = _by_hosts(known, functools.partial(_kind, precision))
    if len(kinds) > 1:
      found = "; ".join(f"{kind.partition('-')[2]} on {hosts}" for kind, hosts in kinds)
      return [warning("processors", f"the workers differ ({found})", cure)]
  lacking = [worker for worker in known if worker.instructions not in WITH_BFLOAT16]
  if lacking and driver.instructions in WITH_BFLOAT16:
    return [warning("processors", "this machine has bfloat16, and the workers have not", remedy)]
  return []


def _kind(precision: str, worker: Process) -> list[str]:
  return [kind_of(precision, worker.instructions)]


def check_clocks(ahead_secs: Mapping[Process, float]) -> list[Finding]:
  """Compares the workers' clocks with this machine's.

  `ahead_secs` is by how much each is ahead.
  """
  workers = [worker for worker, secs in ahead_secs.items() if abs(secs) > _CLOCK_SECS]

  def differs(worker: Process) -> list[str]:
    secs = round(ahead_secs[worker])
    return [f"{abs(secs)} seconds {'ahead of' if secs > 0 else 'behind'}"]

  remedy = "set it, best by NTP: object stores refuse requests of a clock that is wrong"
  return [
    warning("clock", f"the one on {hosts} is {by} this machine's", remedy) for by, hosts in _by_hosts(workers, differs)
  ]


def check_memory(workers: Sequence[Process], model_bytes: int | None, trunk: str) -> list[Finding]:
  """Checks each process's memory for the trunk on the tightest machine.

  Args:
    model_bytes: size of the stored trunk; None if unknown.
  """
  need = worker_memory_bytes(model_bytes or 0)
  counts, names = Counter(map(_host, workers)), _names_of(workers)
  known = [worker for worker in workers if worker.memory_bytes]
  if not known:
    return []
  tightest = min(known, key=lambda worker: (worker.memory_bytes / counts[_host(worker)], worker))
  count, left = counts[_host(tightest)], tightest.memory_bytes
  with_trunk = f"{'and' if model_bytes is None else 'with'} the trunk {trunk}"
  room = f"{left / _GIB:.1f} GiB for {_processes(count)} of up to {need / _GIB:.1f} GiB {with_trunk}"
  if left < count * need:
    remedy = "start fewer worker processes on a machine, or give it more memory"
    return [warning("memory", f"{names[_host(tightest)]} has left {room}", remedy)]
  return [fine("memory", room)]


def _processes(count: int) -> str:
  return f"{count} process{'es' if count > 1 else ''}"
