"""The cores that a process may use: its affinity, and the quotas of its control groups, of both versions."""

import os
from pathlib import Path

import pytest

from transforms.core import cores
from transforms.core.cores import Threads, cores_given


def machine(folder: Path, cgroup: str, **files: str) -> Path:
  """Writes what `proc` and `sys` would show, path -> text."""
  for name, text in {"proc/self/cgroup": cgroup, **files}.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
  return folder


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def test_without_a_quota_it_is_what_the_process_may_run_on(tmp_path):
  assert cores_given(tmp_path) == 8
  files = {"sys/fs/cgroup/cpu.max": "max 100000\n"}
  assert cores_given(machine(tmp_path / "max", "0::/\n", **files)) == 8


def test_where_the_system_has_no_affinity_it_is_all(tmp_path, monkeypatch):
  monkeypatch.delattr(os, "sched_getaffinity")
  monkeypatch.setattr(os, "cpu_count", lambda: 5)
  assert cores_given(tmp_path) == 5


def test_version_2_takes_the_smallest_of_the_groups_around(tmp_path):
  files = {
    "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
    "sys/fs/cgroup/a/cpu.max": "300000 100000\n",
    "sys/fs/cgroup/cpu.max": "600000 100000\n",
    "sys/fs/cgroup/other/cpu.max": "100000 100000\n",
  }
  assert cores_given(machine(tmp_path, "0::/a/b\n", **files)) == 3


def test_version_2_in_a_container_that_sees_the_hosts_path(tmp_path):
  files = {"sys/fs/cgroup/cpu.max": "200000 100000\n"}
  assert cores_given(machine(tmp_path, "0::/kubepods/pod1/c1\n", **files)) == 2


def test_version_1(tmp_path):
  cgroup = "5:memory:/box\n3:cpuset:/\n2:cpuacct,cpu:/box\n"
  files = {
    "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "250000\n",
    "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
  }
  assert cores_given(machine(tmp_path, cgroup, **files)) == 2


def test_a_part_of_a_core_is_one(tmp_path):
  files = {"sys/fs/cgroup/cpu.max": "50000 100000\n"}
  assert cores_given(machine(tmp_path, "0::/\n", **files)) == 1


@pytest.mark.parametrize(
  ("given", "processes", "threads"), [(0, 1, 8), (0, 2, 4), (0, 3, 2), (0, 16, 1), (0, 0, 1), (5, 2, 5), (5, 0, 5)]
)
def test_threads_of_all_processes_together_are_the_cores(given, processes, threads, monkeypatch):
  monkeypatch.setattr(cores, "cores_given", lambda: 8)
  assert Threads(given, processes).here == threads
