"""Cores and memory of this process: its machine's, or its container's limits."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ROOT = Path("/")
_MESSAGES = (
  "bad_alloc",
  "out of memory",
  "out_of_memory",
  "could not allocate",
  "failed to allocate",
  "oom when allocating",
)
_UNLIMITED = 1 << 60  # "no limit" is a number near 2**63 in version 1


def available_cores(root: Path = _ROOT) -> int:
  """Returns the number of cores that this process may keep busy.

  That is its CPU affinity, or the quota of its control groups if lower, rounded down, at least 1: threads beyond a
  quota would stand still for most of each period. `root` is the directory of `proc` and `sys`. Formats (`cgroups(7)`):
  version 2, `cpu.max`: "<microseconds or max> <period>"; version 1, `cpu.cfs_quota_us` (-1: none) and
  `cpu.cfs_period_us`.
  """
  try:
    allowed = len(os.sched_getaffinity(0))
  except AttributeError:  # not on every system
    allowed = os.cpu_count() or 1
  return max(1, int(min([allowed, *_quotas(root)])))


@dataclasses.dataclass(frozen=True)
class Threads:
  """Threads of a graph in each worker process.

  `given` by the user, or 0: the worker's cores, divided among its `processes` (0: one per core).
  """

  given: int = 0
  processes: int = 1

  @property
  def here(self) -> int:
    """This process's threads: its machine's processes share the cores."""
    if self.given:
      return self.given
    return max(1, available_cores() // self.processes) if self.processes else 1


def _quotas(root: Path) -> Iterator[float]:
  """Yields the CPU limit, in cores, of each limited control group."""
  for folder, version_2 in _groups_of("cpu", root):
    if version_2:
      quota, _, period = _read_text(folder / "cpu.max").partition(" ")
    else:
      quota, period = _read_text(folder / "cpu.cfs_quota_us"), _read_text(folder / "cpu.cfs_period_us")
    if quota.isdecimal() and period.isdecimal():  # a limit: neither "max", -1 nor a missing file
      yield int(quota) / int(period)


def available_memory(root: Path = _ROOT) -> int:
  """Returns the available memory in bytes, within any cgroup limit.

  Formats: `proc(5)`, `MemAvailable` in kB; `cgroups(7)`: version 2, `memory.max` and `memory.current`; version 1,
  `memory.limit_in_bytes` and `memory.usage_in_bytes`; `inactive_file` of `memory.stat` is used memory that can be
  reclaimed. 4 GB are assumed where none of them exists.
  """
  left = []
  if (available := _entry(root / "proc/meminfo", "MemAvailable:")) is not None:
    left.append(available << 10)
  for folder, version_2 in _groups_of("memory", root):
    limit = _read_number(folder / ("memory.max" if version_2 else "memory.limit_in_bytes"))
    used = _read_number(folder / ("memory.current" if version_2 else "memory.usage_in_bytes"))
    if limit is not None and used is not None and limit < _UNLIMITED:
      reclaimable = _entry(folder / "memory.stat", "inactive_file" if version_2 else "total_inactive_file") or 0
      left.append(max(0, min(limit, limit - used + reclaimable)))
  return min(left, default=4 << 30)


def _groups_of(controller: str, root: Path) -> Iterator[tuple[Path, bool]]:
  """Yields (directory, is version 2) of each control group above this process."""
  for line in _read_text(root / "proc/self/cgroup").splitlines():
    _, controllers, path = line.split(":", 2)
    version_2 = not controllers
    if version_2 or controller in controllers.split(","):
      # A group is also bound by its parents' limits. In a container the path may be the host's and not exist: then the
      # root is the container's own group.
      for group in (PurePosixPath(path), *PurePosixPath(path).parents):
        yield root / "sys/fs/cgroup" / ("" if version_2 else controller) / str(group).lstrip("/"), version_2


def _read_text(path: Path) -> str:
  """Returns a file's text; empty if it cannot be read."""
  try:
    return path.read_text().strip()
  except OSError:
    return ""


def _read_number(path: Path) -> int | None:
  """Returns the integer in a file; None if missing or `max`."""
  try:
    return int(_read_text(path))
  except ValueError:
    return None


def _entry(path: Path, name: str) -> int | None:
  for line in _read_text(path).splitlines():
    first, *rest = line.split()
    if first == name:
      return int(rest[0])
  return None


def peak_memory(of: int = resource.RUSAGE_SELF) -> int:
  """Returns the peak memory, bytes, of this process or a finished child."""
  peak = resource.getrusage(of).ru_maxrss
  return peak if sys.platform == "darwin" else peak << 10


def is_out_of_memory(error: BaseException) -> bool:
  """Returns whether an error means that memory ran out.

  Covers Python and TensorFlow; OpenVINO and Pillow, which have no class for it, by their messages.
  """
  if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
    return True
  return isinstance(error, (RuntimeError, OSError)) and any(words in str(error).lower() for words in _MESSAGES)


def one_blas_thread() -> contextlib.AbstractContextManager[object]:
  """Makes sums and products independent of the number of cores."""
  from threadpoolctl import threadpool_limits

  return threadpool_limits(limits=1, user_api="blas")
