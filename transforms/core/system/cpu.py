"""CPU cores available to this process, and to the processes beside it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ROOT = Path("/")


def available_cores(root: Path = _ROOT) -> int:
  """Returns the number of cores that this process may keep busy.

  That is its CPU affinity, or the quota of its control groups if lower, rounded down, at least 1. Threads beyond a
  container's quota would stand still for most of each period. `root` is the directory of `proc` and `sys`.

  Formats (`cgroups(7)`): version 2, `cpu.max`: "<microseconds or max> <period>"; version 1, `cpu.cfs_quota_us` (-1:
  none) and `cpu.cfs_period_us`. A group is also bound by the limits of its parents.
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
  for folder, version_2 in groups_of("cpu", root):
    if version_2:
      quota, _, period = read_text(folder / "cpu.max").partition(" ")
    else:
      quota, period = read_text(folder / "cpu.cfs_quota_us"), read_text(folder / "cpu.cfs_period_us")
    if quota.isdecimal() and period.isdecimal():  # a limit: neither "max", -1 nor a missing file
      yield int(quota) / int(period)


def groups_of(controller: str, root: Path) -> Iterator[tuple[Path, bool]]:
  """Yields (directory, is version 2) of each control group above this process.

  `controller` is `cpu` or `memory`.
  """
  for line in read_text(root / "proc/self/cgroup").splitlines():
    _, controllers, path = line.split(":", 2)
    version_2 = not controllers
    if version_2 or controller in controllers.split(","):
      # In a container the path may be the host's and not exist: then the root is the container's own group.
      for group in (PurePosixPath(path), *PurePosixPath(path).parents):
        yield root / "sys/fs/cgroup" / ("" if version_2 else controller) / str(group).lstrip("/"), version_2


def read_text(path: Path) -> str:
  """Returns a file's text; empty if it cannot be read."""
  try:
    return path.read_text().strip()
  except OSError:
    return ""


def read_number(path: Path) -> int | None:
  """Returns the integer in a file; None if missing or `max`."""
  try:
    return int(read_text(path))
  except ValueError:
    return None
