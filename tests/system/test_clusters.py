"""Jobs on clusters: the same output, and each worker does its part. A cluster is a master, two workers and their
Python processes: see deploy/engines/cluster.py.

They are two of the engine suite's five: `bottlenecks`, on more images, and `evaluate`, on Flink as `reevaluate` has
it, in a night that is compared with another. What is new on a cluster is how work, side inputs and shuffles get to
other processes, and these have all of that; the others would spend their time on starting.
"""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from beam_retrain.pipelines import bottlenecks, evaluate
from beam_retrain.pipelines.reevaluate import command as reevaluate
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from deploy.engines.cluster import flink, spark
from tests.system.cluster_suite import Running, cluster, embed_arguments, images, running, undisturbed
from tests.system.engine_suite import ENGINES, ONE_WORKER, Inputs, assert_same, expected, inputs, needs_engines

__all__ = ["expected", "images", "inputs", "undisturbed"]  # fixtures


class ClusterSuite:
  """A subclass gives `engine`, and what its last job has sent from one task to another."""

  engine: str
  more: tuple[str, ...] = ()  # flags of the cluster

  @pytest.fixture(scope="class")
  @classmethod
  def started(cls, tmp_path_factory) -> Iterator[Running]:
    with running(cls.engine, tmp_path_factory.mktemp("cluster") / cls.engine, *cls.more) as found:
      yield found

  def exchanged_bytes(self, started: Running) -> int:
    raise NotImplementedError

  def test_each_worker_does_its_part_and_no_image_crosses_a_shuffle(self, started, images, undisturbed, tmp_path):
    output = tmp_path / "output"
    assert bottlenecks.run(embed_arguments(images, output, started.flags)) == ExitCode.DONE
    assert_same(output, undisturbed)
    # Of each: images that it read, decoded, ran through the trunk and wrote.
    workers = json.loads((output / "info.json").read_text())["execution"]["workers"]
    assert len(workers) == 2
    planned = json.loads((output / "stats.json").read_text())["inputs"]
    assert sum(worker["pictures"] for worker in workers.values()) == planned
    assert [worker["loads"] for worker in workers.values()] == [1, 1]
    encoded = sum(path.stat().st_size for path in images.rglob("*.png"))
    assert 0 < self.exchanged_bytes(started) < encoded / 2


@needs_engines
class TestFlinkCluster(ClusterSuite):
  engine = "flink"
  more = ("--job_server",)  # one for all jobs; those of Spark start their own

  def test_the_second_night_compared_with_the_first(self, started, inputs, tmp_path):
    data, here, there = tmp_path / "data", tmp_path / "here", tmp_path / "there"
    shutil.copytree(inputs.folders, data)
    assert reevaluate.run(_night(inputs, data, here, "2026-03-01", ONE_WORKER)) == ExitCode.DONE
    shutil.copytree(here, there)
    for name in ("COMPLETED", "info.json"):  # of `convert`, whose images are to be changed
      (data / name).unlink()
    for path in sorted(data.rglob("*.jpg"))[::20]:
      with Image.open(path) as image:
        ImageOps.invert(image).save(path)
    assert reevaluate.run(_night(inputs, data, here, "2026-03-02", ONE_WORKER)) == ExitCode.DONE
    assert reevaluate.run(_night(inputs, data, there, "2026-03-02", started.flags)) == ExitCode.DONE
    assert_same(there / "2026-03-02", here / "2026-03-02", has_same_inputs=False)
    assert len((there / "2026-03-02" / "regressed.csv").read_text().splitlines()) > 1

  def exchanged_bytes(self, started: Running) -> int:
    """Between any two of the job's tasks, in one process or not."""
    master = f"http://{started.flag('flink_master')}"
    last = max(_get(f"{master}/jobs/overview")["jobs"], key=lambda job: job["start-time"])
    vertices = _get(f"{master}/jobs/{last['jid']}")["vertices"]
    return sum(vertex["metrics"]["write-bytes"] for vertex in vertices)


@needs_engines
class TestSparkCluster(ClusterSuite):
  engine = "spark"

  @pytest.fixture(scope="class")
  @classmethod
  def started(cls, tmp_path_factory) -> Iterator[Running]:
    events = tmp_path_factory.mktemp("events")
    properties = {"spark.eventLog.enabled": "true", "spark.eventLog.dir": f"file://{events}"}
    more = [f"--job_server_jvm_properties=-D{name}={value}" for name, value in properties.items()]
    with running(cls.engine, tmp_path_factory.mktemp("cluster") / cls.engine) as found:
      yield found._replace(flags=[*found.flags, *more])

  def test_evaluate(self, started, inputs, expected, tmp_path):
    assert evaluate.run(inputs.evaluate(tmp_path / "output", started.flags)) == ExitCode.DONE
    assert_same(tmp_path / "output", expected.evaluation)

  def exchanged_bytes(self, started: Running) -> int:
    """Written to Spark's shuffle files."""
    events = Path(next(flag for flag in started.flags if "eventLog.dir" in flag).partition("file://")[2])
    log = max(events.iterdir(), key=lambda path: path.stat().st_mtime)
    ended = (event for event in map(json.loads, log.open()) if event["Event"] == "SparkListenerTaskEnd")
    return sum(event["Task Metrics"]["Shuffle Write Metrics"]["Shuffle Bytes Written"] for event in ended)


def _night(inputs: Inputs, data: Path, history: Path, date: str, flags: list[str]) -> list[str]:
  return [f"--model={inputs.model}", f"--input={data}", f"--history={history}", f"--date={date}", *flags]


def _get(url: str) -> dict:
  with urllib.request.urlopen(url, timeout=10) as answer:
    return json.load(answer)


@needs_engines
def test_of_a_cluster_of_which_a_part_does_not_come_up_nothing_stays(tmp_path, monkeypatch):
  monkeypatch.setenv("SPARK_WORKER_PORT", "none")  # of this the workers die, and the master lives on
  engines, folder = Path(os.environ[ENGINES]), tmp_path / "cluster"
  try:
    ended = cluster("start", "spark", engines, folder)
    assert "NumberFormatException" in ended.stderr
    assert ended.stderr.endswith("ended with exit code 1; the last lines of the logs are above.\n")
    assert ended.returncode == 2
    assert cluster("status", "spark", engines, folder).stdout == f"{folder}: not running\n"
  finally:
    cluster("stop", "spark", engines, folder)


@pytest.mark.parametrize("make", [flink, spark])
def test_as_many_workers_as_are_asked_for(make, tmp_path):
  made = make(tmp_path, tmp_path, retries=3, workers=3)
  assert sorted(made.processes) == ["master", "worker0", "worker1", "worker2"]
  assert made.workers_in({"taskmanagers": 3, "aliveworkers": 3}) == 3
  if make is flink:
    assert "--parallelism=3" in made.flags
    assert made.job_server[-1] == f"--flink-master={made.flags[1].partition('=')[2]}"
    assert "taskmanager.numberOfTaskSlots: 3\n" in (tmp_path / "conf" / "flink-conf.yaml").read_text()


@pytest.mark.parametrize("engine", ["flink", "spark"])
def test_without_jars_it_says_how_to_get_them(engine, tmp_path):
  ended = cluster("start", engine, tmp_path, tmp_path / "cluster")
  assert ended.stderr == f"cluster.py: {tmp_path / engine / 'job-server.jar'} does not exist: run `make engines`.\n"
  assert ended.returncode == 2
  assert not (tmp_path / "cluster").exists()


def test_a_cluster_that_does_not_come_up_says_why(tmp_path):
  (tmp_path / "flink").mkdir()
  (tmp_path / "flink" / "job-server.jar").touch()
  ended = cluster("start", "flink", tmp_path, tmp_path / "cluster")
  assert "ClassNotFoundException" in ended.stderr
  assert ended.stderr.endswith("ended with exit code 1; the last lines of the logs are above.\n")
  assert ended.returncode == 2
