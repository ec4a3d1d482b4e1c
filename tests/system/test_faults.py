"""Processes of a cluster that are killed in the middle of a job: it ends with the same bytes, or it says that it has
failed, and the next one goes on from what is finished."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from beam_retrain.transforms.core.images.idx import encode_idx
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from deploy.engines.cluster import MARKER, processes_of
from tests.helpers import ROOT
from tests.system.cluster_suite import Running, embed_arguments, images, running, undisturbed
from tests.system.engine_suite import assert_same, engine_file, needs_engines

__all__ = ["images", "undisturbed"]  # fixtures

pytestmark = needs_engines

WORKER = "beam_retrain.pipelines.worker"
"""In the command line of a worker in Python."""
_BOUND_SECS = 240
_CONVERT = [sys.executable, "-m", "beam_retrain.pipelines.convert"]


class FaultSuite:
  """A subclass gives `engine`, and what is in the command line of the process that a worker in Python belongs to."""

  engine: str
  parent: str

  @pytest.fixture(scope="class")
  @classmethod
  def started(cls, tmp_path_factory) -> Iterator[Running]:
    with running(cls.engine, tmp_path_factory.mktemp("faults") / cls.engine) as found:
      yield found

  def test_a_worker_in_python_is_killed(self, started, images, undisturbed, tmp_path):
    ended = run_and_kill(started, images, undisturbed, tmp_path / "output", WORKER)
    assert ended.returncode == ExitCode.DONE, ended.stderr
    assert_same(tmp_path / "output", undisturbed)

  def test_the_process_of_the_engine_is_killed(self, started, images, undisturbed, tmp_path):
    ended = run_and_kill(started, images, undisturbed, tmp_path / "output", self.parent)
    assert ended.returncode == ExitCode.DONE, ended.stderr
    assert_same(tmp_path / "output", undisturbed)

  def test_a_worker_is_killed_while_images_are_written(self, started, tmp_path):
    """JPG files have names of their own, which a retry writes again."""
    idx, expected, output = tmp_path / "idx", tmp_path / "expected", tmp_path / "output"
    write_idx(idx)
    argv = [*_CONVERT, f"--input={idx}", "--formats=jpg,tfrecord"]
    subprocess.run([*argv, f"--output={expected}"], cwd=ROOT, capture_output=True, check=True)
    ended = kill_in([*argv, f"--output={output}", *started.flags], started, expected, output, WORKER)
    assert ended.returncode == ExitCode.DONE, ended.stderr
    assert_same(output, expected)

  def test_the_command_is_killed_and_run_again_while_its_job_still_works(self, started, images, undisturbed, tmp_path):
    output = tmp_path / "output"
    argv = command(images, output, started.flags)
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True) as job:
      try:
        wait_for_a_shard(job, output)
        job.kill()
        job.wait()
        assert len(finished_reports(output)) < len(finished_reports(undisturbed)), "it was killed too late"
        again = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=_BOUND_SECS)
      finally:
        os.killpg(job.pid, signal.SIGKILL)  # the job server outlives the command
    assert again.returncode == ExitCode.DONE, again.stderr
    assert_same(output, undisturbed)

  def test_without_retries_the_next_run_goes_on(self, images, undisturbed, tmp_path):
    output = tmp_path / "output"
    with running(self.engine, tmp_path / "cluster", "--retries=0") as started:
      ended = run_and_kill(started, images, undisturbed, output, WORKER)
      assert ended.returncode == ExitCode.FAILED
      said = [line for line in ended.stderr.splitlines() if line.startswith("beam-retrain: ")]
      assert len(said) == 1, ended.stderr
      assert said[0].startswith("beam-retrain: the job failed: ")
      assert "Traceback" not in ended.stderr
      assert not (output / "COMPLETED").exists()
      finished = {path: path.stat().st_mtime_ns for path in finished_reports(output)}
      assert finished
      again = subprocess.run(command(images, output, started.flags), cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == ExitCode.DONE, again.stderr
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert_same(output, undisturbed)


@needs_engines
class TestFlinkFaults(FaultSuite):
  engine = "flink"
  parent = "TaskManagerRunner"


@needs_engines
class TestSparkFaults(FaultSuite):
  engine = "spark"
  parent = "CoarseGrainedExecutorBackend"


def test_spark_in_its_job_server_fails_and_does_not_hang(images, undisturbed, tmp_path, monkeypatch):
  monkeypatch.setenv(MARKER, str(tmp_path))  # by which the job's processes are found
  boot = tmp_path / "worker"
  boot.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m beam_retrain.pipelines.worker "$@"\n')
  boot.chmod(0o700)
  flags = [
    *("--runner=SparkRunner", "--spark_master_url=local[2]", "--sdk_worker_parallelism=2"),
    *("--environment_type=PROCESS", f"--environment_config={json.dumps({'command': str(boot)})}"),
    *("--environment_cache_millis=60000", f"--spark_job_server_jar={engine_file('spark', 'job-server.jar')}"),
  ]
  ended = run_and_kill(Running(tmp_path, flags), images, undisturbed, tmp_path / "output", WORKER)
  assert ended.returncode == ExitCode.FAILED
  said = [line for line in ended.stderr.splitlines() if line.startswith("beam-retrain: ")]
  assert len(said) == 1, ended.stderr
  assert said[0].startswith("beam-retrain: the job failed: ")


def write_idx(folder: Path) -> None:
  """Writes MNIST's files, of noise: 40,000 and 4,000 images of 28 px."""
  folder.mkdir()
  rng = np.random.default_rng(7)
  for name, count in (("train", 40_000), ("t10k", 4_000)):
    pixels = rng.integers(0, 256, (count, 28, 28), np.uint8)
    (folder / f"{name}-images-idx3-ubyte").write_bytes(encode_idx(pixels))
    (folder / f"{name}-labels-idx1-ubyte").write_bytes(encode_idx((np.arange(count) % 10).astype(np.uint8)))


def command(images: Path, output: Path, flags: Sequence[str]) -> list[str]:
  return [sys.executable, "-m", "beam_retrain.pipelines.bottlenecks", *embed_arguments(images, output, flags)]


def finished_reports(output: Path) -> list[Path]:
  return sorted((output / "records" / ".shards").glob("*.json"))


def run_and_kill(
  started: Running, images: Path, undisturbed: Path, output: Path, victim: str
) -> subprocess.CompletedProcess[str]:
  return kill_in(command(images, output, started.flags), started, undisturbed, output, victim)


def kill_in(
  argv: Sequence[str], started: Running, undisturbed: Path, output: Path, victim: str
) -> subprocess.CompletedProcess[str]:
  """Runs a job, and kills one of the cluster's processes when the first shard is finished, and not all are.

  Args:
    argv: the job.
    started: the cluster.
    undisturbed: an output of the same job.
    output: the job's output.
    victim: what is in the command line of what is killed.
  """
  with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
    try:
      wait_for_a_shard(job, output)
      os.kill(next(pid for pid in processes_of(started.folder) if victim in command_line(pid)), signal.SIGKILL)
      assert len(finished_reports(output)) < len(finished_reports(undisturbed)), "it was killed too late"
      stdout, stderr = job.communicate(timeout=_BOUND_SECS)
    finally:
      job.kill()
  return subprocess.CompletedProcess(argv, job.returncode, stdout, stderr)


def wait_for_a_shard(job: subprocess.Popen, output: Path) -> None:
  deadline = time.monotonic() + _BOUND_SECS
  while not finished_reports(output):
    assert job.poll() is None, job.communicate()
    assert time.monotonic() < deadline, "no shard was finished"
    time.sleep(0.02)


def command_line(pid: int) -> str:
  return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
