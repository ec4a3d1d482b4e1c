"""The same jobs, the same output, on clusters: a master, two workers and their Python processes. See cluster.py."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine_suite import ENGINES, EngineSuite, engine_file, expected, inputs

__all__ = ["expected", "inputs"]  # fixtures

CLUSTER = Path(__file__).parents[1] / "deploy" / "engines" / "cluster.py"
needs_engines = pytest.mark.skipif(
  not os.environ.get(ENGINES),
  reason=f"{ENGINES} names no folder of engines: `make test-engines` makes one and sets it",
)


def cluster(action: str, engine: str, engines: Path, folder: Path) -> subprocess.CompletedProcess[str]:
  command = [sys.executable, str(CLUSTER), action, engine, f"--engines={engines}", f"--folder={folder}"]
  return subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)


class ClusterSuite(EngineSuite):
  """A subclass gives `engine`."""

  engine: str

  @pytest.fixture(scope="class")
  @classmethod
  def flags(cls, tmp_path_factory) -> Iterator[list[str]]:
    engines = engine_file(cls.engine).parent
    folder = tmp_path_factory.mktemp("cluster") / cls.engine
    started = cluster("start", cls.engine, engines, folder)
    assert started.returncode == 0, started.stderr
    try:
      yield shlex.split(started.stdout)
    finally:
      stopped = cluster("stop", cls.engine, engines, folder)
      assert stopped.returncode == 0, stopped.stderr
      assert cluster("status", cls.engine, engines, folder).stdout == f"{folder}: not running\n"


@needs_engines
class TestFlinkCluster(ClusterSuite):
  engine = "flink"


@needs_engines
class TestSparkCluster(ClusterSuite):
  engine = "spark"


@pytest.mark.parametrize("engine", ["flink", "spark"])
def test_without_jars_it_says_how_to_get_them(engine, tmp_path):
  ended = cluster("start", engine, tmp_path, tmp_path / "cluster")
  assert ended.stderr == f"cluster.py: {tmp_path / engine / 'job-server.jar'} is not there: run `make engines`.\n"
  assert ended.returncode == 2
  assert not (tmp_path / "cluster").exists()


def test_a_cluster_that_does_not_come_up_says_why_and_leaves_nothing(tmp_path):
  (tmp_path / "flink" / "lib").mkdir(parents=True)
  (tmp_path / "flink" / "job-server.jar").touch()
  ended = cluster("start", "flink", tmp_path, tmp_path / "cluster")
  assert "ClassNotFoundException" in ended.stderr
  assert ended.stderr.endswith("ended with exit code 1; the last lines of the logs are above.\n")
  assert ended.returncode == 2
  assert cluster("status", "flink", tmp_path, tmp_path / "cluster").stdout.endswith(": not running\n")
