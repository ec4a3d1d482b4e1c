"""The same jobs, the same output, on every engine that runs on one machine: `make engines` brings them.

They are held against FnApiRunner with one process, which writes what the default runner does:
tests/pipelines/test_verify_same.py.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator

import apache_beam as beam
import pytest

from beam_retrain.pipelines.cli import main
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from tests.pipelines.engines.test_jars import write_jar
from tests.system.engine_suite import (
  ONE_WORKER,
  EngineSuite,
  JobServerSuite,
  engine_file,
  expected,
  inputs,
  needs_engines,
  run_doctor,
)

__all__ = ["expected", "inputs"]  # fixtures

pytestmark = [
  needs_engines,
  # How Beam's worker threads in this process end when an engine hangs up on them, after each stage of a good job too.
  pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

# A job server that lives for seconds is done before the better compiler pays: a third less of the processors' time.
_SHORT_LIVED = "--job_server_jvm_properties=-XX:TieredStopAtLevel=1"


class TestFnApiRunnerWithTwoProcesses(EngineSuite):
  @pytest.fixture(scope="class")
  @classmethod
  def flags(cls):
    return [*ONE_WORKER, "--direct_running_mode=multi_processing", "--direct_num_workers=2"]


class TestPrism(EngineSuite):
  @pytest.fixture(scope="class")
  @classmethod
  def flags(cls):
    # Of Beam's own version, and no other.
    prism = engine_file(f"prism-v{beam.version.__version__}", "prism")
    return ["--runner=PrismRunner", f"--prism_location={prism}"]


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
  """HOST:PORT of a Flink cluster's JobManager, which has no workers."""
  folder = tmp_path_factory.mktemp("master")
  with socket.socket() as rpc, socket.socket() as rest:
    for one in (rpc, rest):
      one.bind(("127.0.0.1", 0))
    rpc_port, rest_port = (one.getsockname()[1] for one in (rpc, rest))
  (folder / "flink-conf.yaml").write_text(
    f"jobmanager.rpc.address: 127.0.0.1\njobmanager.rpc.port: {rpc_port}\njobmanager.bind-host: 127.0.0.1\n"
    f"rest.address: 127.0.0.1\nrest.bind-address: 127.0.0.1\nrest.port: {rest_port}\n"
    f"io.tmp.dirs: {folder}\nblob.storage.directory: {folder}\nclassloader.resolve-order: parent-first\n"
  )
  opened = [f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in ("lang", "net", "io", "nio", "util", "time")]
  main_class = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
  path = str(engine_file("flink", "job-server.jar"))
  command = [
    "java",
    "-Xmx512m",
    *opened,
    "-cp",
    path,
    main_class,
    "--configDir",
    str(folder),
    "--executionMode",
    "cluster",
  ]
  with (folder / "log").open("wb") as log:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
  try:
    address = f"127.0.0.1:{rest_port}"
    deadline = time.monotonic() + 90
    while True:
      with contextlib.suppress(OSError):
        urllib.request.urlopen(f"http://{address}/config", timeout=5).close()
        break
      has_failed = process.poll() is not None or time.monotonic() > deadline
      assert not has_failed, (folder / "log").read_text()[-3_000:]
      time.sleep(0.5)
    yield address
  finally:
    process.kill()
    process.wait()


class TestFlink(JobServerSuite):
  runner = "FlinkRunner"

  @pytest.fixture(scope="class")
  @classmethod
  def flags(cls):
    jar = engine_file("flink", "job-server.jar")
    flags = ["--runner=FlinkRunner", "--flink_master=[local]", f"--flink_job_server_jar={jar}", "--parallelism=2"]
    return [*flags, _SHORT_LIVED]

  def test_a_job_server_of_another_line_is_refused(self, flags, master, tmp_path, capsys):
    jar = write_jar(tmp_path / "other.jar", version="1.20.1")
    argv = [f"--flink_master={master}", f"--flink_job_server_jar={jar}", "--environment_type=LOOPBACK"]
    assert (
      main(["convert", "--input=a", f"--output={tmp_path / 'b'}", "--runner=FlinkRunner", *argv]) == ExitCode.FAILED
    )
    cause = (
      "the cluster is Flink 1.19, but the job server is for Flink 1.20: give the job server for the cluster's version"
    )
    assert capsys.readouterr().err.startswith(f"beam-retrain convert: --flink_master={master}: {cause}")

  def test_doctor_does_not_wait_for_a_cluster_without_workers(self, flags, master):
    code, lines = run_doctor(*flags, f"--flink_master={master}", "--environment_type=LOOPBACK", "--timeout_secs=20")
    assert code == ExitCode.FAILED
    late = "problem: engine: FlinkRunner did not do a tiny job within 20 seconds"
    assert lines[1].startswith(late)
    assert f": look at http://{master}: if slots are missing, start workers; else raise --timeout_secs." in lines[1]
    with urllib.request.urlopen(f"http://{master}/jobs/overview") as answer:
      states = {job["state"] for job in json.load(answer)["jobs"]}
    # A busy machine may not have sent it in that time.
    assert states == ({"CANCELED"} if "; it was cancelled there: " in lines[1] else set())


class TestSpark(JobServerSuite):
  runner = "SparkRunner"

  @pytest.fixture(scope="class")
  @classmethod
  def flags(cls):
    jar = engine_file("spark", "job-server.jar")
    return ["--runner=SparkRunner", "--spark_master_url=local[2]", f"--spark_job_server_jar={jar}", _SHORT_LIVED]
