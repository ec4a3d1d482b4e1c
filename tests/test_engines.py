"""The same jobs, the same output, on every engine that runs on one machine: `make engines` brings them."""

from __future__ import annotations

import os

import apache_beam as beam
import pytest

from tests.engine_suite import ENGINES, ONE_WORKER, EngineSuite, JobServerSuite, engine_file, expected, inputs

__all__ = ["expected", "inputs"]  # fixtures

pytestmark = [
  pytest.mark.skipif(
    not os.environ.get(ENGINES),
    reason=f"{ENGINES} names no folder of engines: `make test-engines` makes one and sets it",
  ),
  # How Beam's worker threads in this process end when an engine hangs up on them, after each stage of a good job too.
  pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

# A job server that lives for seconds is done before the better compiler pays: a third less of the processors' time.
_SHORT_LIVED = "--job_server_jvm_properties=-XX:TieredStopAtLevel=1"


class TestFnApiRunner(EngineSuite):
  """A second time, with nothing changed: what differs here is no engine's doing."""

  @pytest.fixture(scope="class")
  @classmethod
  def flags(cls):
    return ONE_WORKER


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


class TestFlink(JobServerSuite):
  runner = "FlinkRunner"

  @pytest.fixture(scope="class")
  @classmethod
  def flags(cls):
    jar = engine_file("flink", "job-server.jar")
    flags = ["--runner=FlinkRunner", "--flink_master=[local]", f"--flink_job_server_jar={jar}", "--parallelism=2"]
    return [*flags, _SHORT_LIVED]


class TestSpark(JobServerSuite):
  runner = "SparkRunner"

  @pytest.fixture(scope="class")
  @classmethod
  def flags(cls):
    jar = engine_file("spark", "job-server.jar")
    return ["--runner=SparkRunner", "--spark_master_url=local[2]", f"--spark_job_server_jar={jar}", _SHORT_LIVED]
