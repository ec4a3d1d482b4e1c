"""Processor cores: how many this process may use, and how its machine's processes share them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ROOT = Path("/")


def available_cores(root: Path = _ROOT) -> int:
  """Returns the cores that this process may keep busy, at least 1: those that it may run on, and of them as many as the
  quotas of its control groups pay for, a part of one left out. A container's limit is such a quota, and threads beyond
  it would stand still for most of each period.

  Formats: `cgroups(7)`: version 2, `cpu.max`: "<microseconds or max> <period>"; version 1, `cpu.cfs_quota_us` (-1:
  none) and `cpu.cfs_period_us`. The limits of the groups around a group hold for it as well.

  Args:
    root: where `proc` and `sys` are.
  """
  try:
    allowed = len(os.sched_getaffinity(0))
  except AttributeError:  # not on every system
    allowed = os.cpu_count() or 1
  return max(1, int(min([allowed, *_quotas(root)])))


@dataclasses.dataclass(frozen=True)
class Threads:
  """How many threads a graph gets in each worker's process.

  Attributes:
    given: by the user; 0: the cores that the worker has, shared out to its processes.
    processes: how many of them run on one machine; 0: as many as it has cores.
  """

  given: int = 0
  processes: int = 1

  @property
  def here(self) -> int:
    """In the process that asks: all processes of its machine together have no more than the cores given."""
    if self.given:
      return self.given
    return max(1, available_cores() // self.processes) if self.processes else 1


def _quotas(root: Path) -> Iterator[float]:
  """Yields the limit, in cores, of each control group that this process is in, as far as it has one."""
  for folder, version_2 in groups_of("cpu", root):
    if version_2:
      quota, _, period = read_text(folder / "cpu.max").partition(" ")
    else:
      quota, period = read_text(folder / "cpu.cfs_quota_us"), read_text(folder / "cpu.cfs_period_us")
    if quota.isdecimal() and period.isdecimal():  # neither "max" nor -1, and there
      yield int(quota) / int(period)


def groups_of(controller: str, root: Path) -> Iterator[tuple[Path, bool]]:
  """Yields the folder of each group that may limit this process, and whether it is of version 2.

  Args:
    controller: `cpu` or `memory`.
    root: where `proc` and `sys` are.
  """
  for line in read_text(root / "proc/self/cgroup").splitlines():
    _, controllers, path = line.split(":", 2)
    version_2 = not controllers
    if version_2 or controller in controllers.split(","):
      # In a container the path may be the host's, and not be there: then the root is the container's own group.
      for group in (PurePosixPath(path), *PurePosixPath(path).parents):
        yield root / "sys/fs/cgroup" / ("" if version_2 else controller) / str(group).lstrip("/"), version_2


def read_text(path: Path) -> str:
  """Returns what a file says; nothing where it cannot be read."""
  try:
    return path.read_text().strip()
  except OSError:
    return ""


def read_number(path: Path) -> int | None:
  """Returns the whole number that a file says; None where it says `max`, or is not there."""
  try:
    return int(read_text(path))
  except ValueError:
    return None
