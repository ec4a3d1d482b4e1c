"""The cores and the memory that a process may use: its own, and what its control groups allow, of both versions."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from beam_retrain.transforms.core.system import machine as machine_module
from beam_retrain.transforms.core.system.machine import Threads, available_cores, available_memory, peak_memory


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
  assert available_cores(tmp_path) == 8
  files = {"sys/fs/cgroup/cpu.max": "max 100000\n"}
  assert available_cores(machine(tmp_path / "max", "0::/\n", **files)) == 8


def test_where_the_system_has_no_affinity_it_is_all(tmp_path, monkeypatch):
  monkeypatch.delattr(os, "sched_getaffinity")
  monkeypatch.setattr(os, "cpu_count", lambda: 5)
  assert available_cores(tmp_path) == 5


def test_version_2_takes_the_smallest_of_the_groups_around(tmp_path):
  files = {
    "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
    "sys/fs/cgroup/a/cpu.max": "300000 100000\n",
    "sys/fs/cgroup/cpu.max": "600000 100000\n",
    "sys/fs/cgroup/other/cpu.max": "100000 100000\n",
  }
  assert available_cores(machine(tmp_path, "0::/a/b\n", **files)) == 3


def test_version_2_in_a_container_that_sees_the_hosts_path(tmp_path):
  files = {"sys/fs/cgroup/cpu.max": "200000 100000\n"}
  assert available_cores(machine(tmp_path, "0::/kubepods/pod1/c1\n", **files)) == 2


def test_version_1(tmp_path):
  cgroup = "5:memory:/box\n3:cpuset:/\n2:cpuacct,cpu:/box\n"
  files = {
    "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "250000\n",
    "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
  }
  assert available_cores(machine(tmp_path, cgroup, **files)) == 2


def test_a_part_of_a_core_is_one(tmp_path):
  files = {"sys/fs/cgroup/cpu.max": "50000 100000\n"}
  assert available_cores(machine(tmp_path, "0::/\n", **files)) == 1


@pytest.mark.parametrize(
  ("given", "processes", "threads"), [(0, 1, 8), (0, 2, 4), (0, 3, 2), (0, 16, 1), (0, 0, 1), (5, 2, 5), (5, 0, 5)]
)
def test_threads_of_all_processes_together_are_the_cores(given, processes, threads, monkeypatch):
  monkeypatch.setattr(machine_module, "available_cores", lambda: 8)
  assert Threads(given, processes).here == threads


_MEMINFO = "MemTotal:  9000 kB\nMemFree:  10 kB\nMemAvailable:   5000 kB\n"


def test_memory_is_what_the_machine_has_left(tmp_path):
  assert available_memory(machine(tmp_path, "0::/\n", **{"proc/meminfo": _MEMINFO})) == 5000 * 1024


@pytest.mark.parametrize(("limit", "given"), [("3000000", 1_000_000), ("1000", 0), ("max", 5000 * 1024)])
def test_memory_of_a_group_of_version_2(tmp_path, limit, given):
  files = {"sys/fs/cgroup/a/memory.max": limit, "sys/fs/cgroup/a/memory.current": "2000000\n"}
  assert available_memory(machine(tmp_path, "0::/a/b\n", **{"proc/meminfo": _MEMINFO}, **files)) == given


@pytest.mark.parametrize(("limit", "given"), [("3000000", 1_000_000), ("9223372036854771712", 5000 * 1024)])
def test_memory_of_a_group_of_version_1(tmp_path, limit, given):
  files = {
    "sys/fs/cgroup/memory/box/memory.limit_in_bytes": limit,
    "sys/fs/cgroup/memory/box/memory.usage_in_bytes": "2000000",
  }
  assert available_memory(machine(tmp_path, "4:memory:/box\n", **{"proc/meminfo": _MEMINFO}, **files)) == given


@pytest.mark.parametrize(("inactive", "given"), [(700_000, 1_700_000), (2_500_000, 3_000_000)])
def test_pages_of_files_that_are_only_kept_are_not_used(tmp_path, inactive, given):
  files = {
    "sys/fs/cgroup/memory.max": "3000000\n",
    "sys/fs/cgroup/memory.current": "2000000\n",
    "sys/fs/cgroup/memory.stat": f"anon 1\nfile 900000\ninactive_file {inactive}\nactive_file 200000\n",
  }
  assert available_memory(machine(tmp_path / "2", "0::/\n", **{"proc/meminfo": _MEMINFO}, **files)) == given
  files = {
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "3000000\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "2000000\n",
    "sys/fs/cgroup/memory/memory.stat": f"inactive_file 5\ntotal_inactive_file {inactive}\n",
  }
  assert available_memory(machine(tmp_path / "1", "4:memory:/\n", **{"proc/meminfo": _MEMINFO}, **files)) == given


def test_the_peak_is_in_bytes():
  held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
  resident = int(held.split()[1]) * 1024
  assert resident * 0.9 <= peak_memory() < 1 << 40


def test_the_peak_is_of_processes_that_have_ended_too():
  subprocess.run([sys.executable, "-c", "b'x' * 700_000_000"], check=True)
  assert 700_000_000 < peak_memory(resource.RUSAGE_CHILDREN) < 1 << 40
