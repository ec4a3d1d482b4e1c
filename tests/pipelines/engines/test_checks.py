"""An engine that cannot be had is refused before any work, in one sentence with the remedy."""

from __future__ import annotations

import functools
import http.server
import re
import socket
import sys
import threading

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.cli import main
from beam_retrain.pipelines.engines.checks import check_engine
from beam_retrain.pipelines.engines.runners import environment_of, is_embedded
from beam_retrain.pipelines.options.engine import check_paths
from tests.pipelines.engines.test_jars import write_jar

_JAVA = f"--job_server_java_launcher={sys.executable}"  # some program that is there; nothing is started here
_SPARK_CLASS = "org.apache.beam.runners.spark.SparkJobServerDriver"


@pytest.fixture(scope="module")
def closed_port() -> int:
  with socket.socket() as one:
    one.bind(("127.0.0.1", 0))
    return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def somebody_else(tmp_path_factory):
  """The port of a web server that has no pages."""
  handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path_factory.mktemp("empty"))
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


@pytest.fixture
def flink(tmp_path) -> list[str]:
  jar = write_jar(tmp_path / "flink.jar", version="1.19.0")
  return ["--runner=FlinkRunner", f"--flink_job_server_jar={jar}", _JAVA]


@pytest.fixture
def spark(tmp_path) -> list[str]:
  jar = write_jar(tmp_path / "spark.jar", main_class=_SPARK_CLASS)
  return ["--runner=SparkRunner", f"--spark_job_server_jar={jar}", _JAVA]


def said_of(*flags: str) -> list[str]:
  return [str(finding) for finding in check_engine(PipelineOptions(flags=list(flags)))]


@pytest.mark.parametrize("runner", ["FnApiRunner", "DirectRunner", "PrismRunner", "DataflowRunner"])
def test_there_is_nothing_to_say_of_these(runner):
  assert said_of(f"--runner={runner}") == []


def test_an_engine_that_can_be_had_is_not_refused(flink, spark):
  assert said_of(*flink, "--flink_master=[local]") == []
  assert said_of(*spark, "--spark_master_url=local[2]") == []
  with socket.socket() as master:
    master.bind(("127.0.0.1", 0))
    master.listen()
    address = f"127.0.0.1:{master.getsockname()[1]}"
    loopback = "--environment_type=LOOPBACK"
    assert said_of(*spark, f"--spark_master_url=spark://nobody.invalid:1,{address}", loopback) == []
    assert said_of("--runner=PortableRunner", f"--job_endpoint={address}", loopback) == []


def test_a_dead_worker_of_spark_is_warned_of_unless_its_executor_is_excluded(spark):
  with socket.socket() as master:
    master.bind(("127.0.0.1", 0))
    master.listen()
    address = f"--spark_master_url=spark://127.0.0.1:{master.getsockname()[1]}"
    cached = [*spark, address, "--environment_type=LOOPBACK", "--environment_cache_millis=60000"]
    (said,) = said_of(*cached)
    assert said.startswith("warning: --environment_cache_millis=60000: Spark retries a failed task with the cached ")
    (remedy,) = re.findall(r"add (\S+),", said)
    assert said_of(*cached, remedy) == []


def test_without_java(flink):
  (said,) = said_of(*flink, "--flink_master=[local]", "--job_server_java_launcher=/nowhere/java")
  assert said == (
    "problem: Java: the job server needs it, and /nowhere/java does not exist: install Java 17, or give its path with"
    " --job_server_java_launcher."
  )


def test_jars_that_are_not_the_engine_s(tmp_path):
  damaged, moved = (
    tmp_path / "damaged.jar",
    write_jar(tmp_path / "moved.jar", libraries=("lib/flink-runtime-1.19.0.jar",)),
  )
  damaged.write_bytes(b"PK")
  for jar, cause in (
    (tmp_path / "none.jar", "No such file or directory"),
    (damaged, "File is not a zip file"),
    (write_jar(tmp_path / "spark.jar", main_class=_SPARK_CLASS), f"its main class is {_SPARK_CLASS}"),
    (moved, "the jars that it names are not next to it, in its `lib/`"),
  ):
    (said,) = said_of("--runner=FlinkRunner", "--flink_master=[local]", _JAVA, f"--flink_job_server_jar={jar}")
    told = f"problem: --flink_job_server_jar={jar}: it is not a job server of this engine ({cause}): give the path of "
    assert said.startswith(told)


def test_a_job_server_that_can_neither_be_found_nor_fetched(tmp_path, monkeypatch, closed_port):
  monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{closed_port}")  # no network
  cached = [
    "--runner=FlinkRunner",
    "--flink_master=[local]",
    "--flink_version=1.19",
    _JAVA,
    f"--jar_cache_dir={tmp_path}",
  ]
  (said,) = said_of(*cached)
  name = said.split()[3]
  assert name.startswith("beam-runners-flink-1.19-job-server-")
  assert said.startswith(
    f"problem: job server: {name} is not in {tmp_path} and cannot be downloaded from Maven Central ("
  )
  (tmp_path / name).write_bytes(b"")
  assert said_of(*cached) == []


def test_masters_that_do_not_answer(flink, spark, closed_port, somebody_else):
  environment = "--environment_type=LOOPBACK"
  for flags, thing, cause in (
    (
      [*flink, f"--flink_master=127.0.0.1:{closed_port}"],
      "--flink_master",
      "no JobManager of Flink answers there (Connection refused): start the cluster, or give HOST:PORT",
    ),
    (
      [*flink, f"--flink_master=127.0.0.1:{somebody_else}"],
      "--flink_master",
      "no JobManager of Flink answers there (HTTP Error 404: File not found): start the cluster",
    ),
    ([*spark, f"--spark_master_url=spark://127.0.0.1:{closed_port}"], "--spark_master_url", "nothing answers there"),
    (
      [*spark, "--spark_master_url=127.0.0.1:7077"],
      "--spark_master_url",
      "it is not a Spark master: give spark://HOST:PORT",
    ),
    (
      ["--runner=PortableRunner", f"--job_endpoint=127.0.0.1:{closed_port}"],
      "--job_endpoint",
      "nothing answers there (Connection refused): start the job server",
    ),
    (["--runner=PortableRunner", "--job_endpoint=localhost:x"], "--job_endpoint", "it is not HOST:PORT"),
    (["--runner=PortableRunner"], "--runner=PortableRunner", "it needs a job server: give its HOST:PORT"),
    (
      ["--runner=PrismRunner", "--prism_location=/nowhere/prism"],
      "--prism_location",
      "does not exist: give the path",
    ),
  ):
    (said,) = said_of(*flags, environment)
    assert said.startswith(f"problem: {thing}")
    assert cause in said


@pytest.mark.parametrize(
  ("flags", "cause"),
  [
    (["--environment_type=EXTERNAL"], "the workers' address is missing: give the HOST:PORT of a worker pool"),
    (["--environment_type=PROCESS"], "the command that starts a worker is missing: give --environment_config="),
    (["--environment_type=PROCESS", "--environment_config=boot.sh"], "boot.sh is not a JSON object"),
    (
      ["--environment_type=PROCESS", '--environment_config={"command": "/nowhere/boot"}'],
      "/nowhere/boot does not exist",
    ),
    (
      ["--environment_type=PROCESS", "--environment_options=process_command=/nowhere/boot"],
      "/nowhere/boot does not exist",
    ),
    (
      ["--environment_type=DOCKER"],
      "workers would run in Beam's own image, which does not contain beam-retrain: give an image",
    ),
  ],
)
def test_workers_that_cannot_be_or_have_no_package(flink, flags, cause):
  (said,) = said_of(*flink, "--flink_master=[local]", *flags)
  assert said.startswith("problem: --environment_")
  assert cause in said


def test_workers_of_a_cluster_are_containers_unless_something_else_is_said(flink, tmp_path, closed_port):
  cluster = [*flink, f"--flink_master=127.0.0.1:{closed_port}"]
  assert any("does not contain beam-retrain" in line for line in said_of(*cluster))
  for given in (
    "--environment_config=image",
    "--setup_file=./setup.py",
    "--environment_options=docker_container_image=a",
  ):
    assert len(said_of(*cluster, given)) == 1  # the master alone
  for flags, kind in ((cluster, "DOCKER"), ([*flink, "--environment_type=beam:env:process:v1"], "PROCESS")):
    assert environment_of(PipelineOptions(flags=flags)) == kind
  assert is_embedded(PipelineOptions(flags=flink))
  assert not is_embedded(PipelineOptions(flags=cluster))


def test_loopback_to_other_machines_is_doubtful(flink):
  found = list(
    check_engine(PipelineOptions(flags=[*flink, "--flink_master=a.invalid:1", "--environment_type=LOOPBACK"]))
  )
  assert [finding.severity for finding in found] == ["problem", "warning"]
  assert "cannot reach this process" in str(found[1])


def test_worker_processes_of_loopback_need_a_python_on_path(flink, tmp_path, monkeypatch):
  flags = [*flink, "--flink_master=[local]", "--experiments=use_loopback_process_worker=true"]
  monkeypatch.setenv("PATH", str(tmp_path))
  (said,) = said_of(*flags)
  assert "workers are started with python, which is not on PATH: put " in said
  python = tmp_path / "python"
  python.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')  # without the packages
  python.chmod(0o700)
  monkeypatch.chdir(tmp_path)
  (said,) = said_of(*flags)
  assert f"workers are started with {python}, which does not have both Beam and beam-retrain: put " in said
  monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
  python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
  assert said_of(*flags) == []


def test_the_workers_command_is_asked_whether_it_has_the_package(flink, tmp_path):
  boot = tmp_path / "worker"
  flags = [*flink, "--environment_type=PROCESS", f'--environment_config={{"command": "{boot}"}}']
  embedded = [*flags, "--flink_master=[local]"]
  said_lines = {}
  for options in ("-S -E", "-E"):  # -S: without the packages
    boot.write_text(f'#!/bin/sh\nexec {sys.executable} {options} -m beam_retrain.pipelines.worker "$@"\n')
    boot.chmod(0o700)
    said_lines[options] = said_of(*embedded)
  assert said_lines == {
    "-S -E": [
      f"problem: --environment_type=PROCESS: {boot} does not start a worker (No module named 'beam_retrain'): install"
      " beam-retrain in its Python."
    ],
    "-E": [],
  }
  # What is no Python of ours says nothing of it: Beam's own boot program, or one that another machine has.
  boot.write_text("#!/bin/sh\necho Usage of boot: >&2; exit 2\n")
  assert said_of(*embedded) == []
  boot.unlink()
  assert "does not exist" in said_of(*embedded)[0]
  assert len(said_of(*flags, "--flink_master=a.invalid:1")) == 1  # the master alone


@pytest.mark.parametrize(
  "command",
  [
    ["convert", "--input=a", "--output=b"],
    ["bottlenecks", "--input=a", "--output=b"],
    ["evaluate", "--model=m", "--input=a", "--output=b"],
    ["reevaluate", "--model=m", "--input=a", "--history=h"],
    ["run", "--data=digits", "--output=b"],
    ["retrain", "--image_dir=a"],
    ["label_image", "--graph=g", "--labels=l", "--directory_name=a", "--process_mode=2"],
  ],
)
def test_each_job_command_refuses_it_before_its_work(command, closed_port, flink, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  before = sorted(tmp_path.iterdir())
  master = f"--flink_master=127.0.0.1:{closed_port}"
  assert main([*command, *flink, master, "--environment_type=LOOPBACK"]) == 2
  said = capsys.readouterr().err
  told = f"beam-retrain {command[0]}: {master}: no JobManager of Flink answers there (Connection refused): start"
  assert said.startswith(told)
  assert said.count("\n") == 1
  assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
  ("flags", "is_warned"),
  [
    (["--runner=FlinkRunner", "--flink_master=flink.example:8081"], True),
    (["--runner=SparkRunner", "--spark_master_url=spark://spark.example:7077"], True),
    (["--runner=PortableRunner", "--job_endpoint=jobs.example:8099"], True),
    (["--runner=FlinkRunner", "--flink_master=localhost:8081"], False),
    (["--runner=FlinkRunner", "--flink_master=[local]"], False),
    (["--runner=SparkRunner", "--spark_master_url=local[2]"], False),
    (["--runner=FnApiRunner"], False),
  ],
)
def test_local_paths_of_workers_on_other_machines_get_a_warning(flags, is_warned, capsys):
  check_paths(PipelineOptions(flags=flags), "/here/images", None, ["/here/earlier"])
  told = capsys.readouterr().err
  if not is_warned:
    assert told == ""
  else:
    assert told.startswith(
      "beam-retrain: warning: /here/images, /here/earlier: local to this machine, but the workers of "
    )
    assert told.count("\n") == 1
    assert "a bucket (s3://, gs://)" in told
