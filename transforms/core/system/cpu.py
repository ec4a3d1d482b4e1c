"""How many processor cores this process may use, and how they are shared out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

from beam_retrain.transforms.core.system.cgroups import groups_of, read_text

_ROOT = Path("/")


def cores_given(root: Path = _ROOT) -> int:
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
    return max(1, cores_given() // self.processes) if self.processes else 1


def _quotas(root: Path) -> Iterator[float]:
  """Yields the limit, in cores, of each control group that this process is in, as far as it has one."""
  for folder, version_2 in groups_of("cpu", root):
    if version_2:
      quota, _, period = read_text(folder / "cpu.max").partition(" ")
    else:
      quota, period = read_text(folder / "cpu.cfs_quota_us"), read_text(folder / "cpu.cfs_period_us")
    if quota.isdecimal() and period.isdecimal():  # neither "max" nor -1, and there
      yield int(quota) / int(period)
