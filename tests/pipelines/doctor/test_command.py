"""`doctor` on this machine: a real job, whose workers are what they are; what is wrong with them was made so."""

from __future__ import annotations

import contextlib
import os
import pickletools
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.internal import pickler
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2

from beam_retrain.pipelines.cli import main
from beam_retrain.pipelines.doctor import probe_job
from beam_retrain.pipelines.doctor.command import describe_success
from beam_retrain.pipelines.doctor.probe_job import ProbeResult, build
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.core.errors import InputError
from tests.helpers import ROOT
from tests.system.test_bad_input import lay_out_idx

_TWO = ["--runner=FnApiRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
_LOCAL = ["--runner=FnApiRunner"]
# In workers alone: Python calls this before anything else.
_IN_WORKERS = """\
import sys
if any("sdk_worker_main" in argument for argument in sys.orig_argv):
"""


def examine(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, list[str]]:
  """Returns the exit code and the lines, without what differs from run to run; there is nothing else."""
  code = main(["doctor", *flags])
  out, err = capsys.readouterr()
  assert err == ""
  return code, [re.sub(r"[\d.]+ (s|GiB)\b", r"N \1", line) for line in out.splitlines()]


@pytest.fixture
def in_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
  """A folder on the workers' path, and on no other process's; `more.py` in it is run when one starts."""
  site, only = tmp_path / "site", tmp_path / "workers"
  site.mkdir()
  only.mkdir()
  (only / "more.py").write_text("")
  (site / "sitecustomize.py").write_text(f"{_IN_WORKERS}  sys.path.insert(0, {str(only)!r})\n  import more\n")
  monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")])))
  monkeypatch.chdir(only)  # what lies in the current folder, a checkout's egg-info for one, comes first on their path
  return only


def take_package_away(in_workers: Path) -> None:
  """From the workers: neither a folder of their path nor an editable installation leads to it."""
  (in_workers / "more.py").write_text(
    "import sys\n"
    f"sys.path[:] = [path for path in sys.path if path != {str(ROOT)!r}]\n"
    "sys.meta_path[:] = [one for one in sys.meta_path if getattr(one, '__name__', '') != '_EditableFinder']\n"
  )


@pytest.fixture
def of_this_process(tmp_path: Path) -> Iterator[str]:
  """A real folder, by a path that leads there in this process alone."""
  if sys.platform != "linux":
    pytest.skip("/proc/self/fd is Linux's")
  with contextlib.ExitStack() as stack:
    folder = os.open(tmp_path, os.O_RDONLY)
    stack.callback(os.close, folder)
    yield f"/proc/self/fd/{folder}"


def test_all_is_well_in_one_process(tmp_path, capsys):
  code, lines = examine(capsys, *_LOCAL, f"--output={tmp_path / 'not' / 'yet'}")
  assert code == 0
  driver, *others, memory = lines
  assert re.fullmatch(r"ok: driver: Python [\d.]+, apache-beam [\d.]+, tensorflow [\d.]+, .*beam-retrain \S+", driver)
  assert others == [
    "ok: engine: FnApiRunner did a tiny job in N s",
    "ok: workers: 1 process on this machine",
    "ok: versions: the same in the driver and the workers",
    "ok: paths: the workers read and write the same paths as this machine",
  ]
  assert re.search("memory: .*N GiB for 1 process of up to N GiB with the trunk bundled", memory)
  assert list(tmp_path.iterdir()) == []


def test_two_processes(tmp_path, capsys):
  (tmp_path / "trunk").mkdir()
  (tmp_path / "trunk" / "saved_model.pb").write_bytes(b"\x00\xff a trunk")
  code, lines = examine(capsys, *_TWO, f"--trunk={tmp_path / 'trunk'}", f"--input={tmp_path / 'trunk'}")
  assert code == 0
  assert "ok: workers: 2 processes on this machine" in lines
  assert "ok: paths: the workers read the same paths as this machine" in lines


def test_one_process_where_two_were_meant_is_a_warning(capsys):
  code, lines = examine(capsys, *_LOCAL, "--direct_num_workers=2")
  assert code == 0
  said = "warning: workers: 1 process on this machine, which is the command's own, where 2 were expected: add --"
  assert any(line.startswith(said) for line in lines)


def test_what_jobs_use_is_tried_where_no_runner_is_given(capsys):
  code, lines = examine(capsys)
  assert (code, lines[1:3]) == (
    0,
    [
      "ok: engine: a tiny job in this process, as jobs without --runner, took N s",
      "ok: workers: 1 process on this machine",
    ],
  )


def test_a_slow_machine_is_told_so():
  found = describe_success(ProbeResult([], "", 70.04, 1), PipelineOptions(flags=[]), 60)
  assert str(found) == (
    "warning: engine: slow: FnApiRunner did a tiny job in 70.0 s, not in 60 s: wait until this machine and the engine"
    " have less to do, or expect slow jobs."
  )


def test_a_job_that_waits_for_nobody_gets_more_time(monkeypatch):
  monkeypatch.setattr(probe_job, "_SLOW", 10_000)
  assert probe_job.run_probe([], {}, "", 0.1, lambda: True).reports
  with pytest.raises(TimeoutError):
    probe_job.run_probe([], {}, "", 0.1, lambda: False)


def test_a_clock_and_a_folder_of_temporary_files_of_workers(in_workers, capsys, tmp_path):
  (in_workers / "more.py").write_text(
    "import tempfile, time\nnow = time.time\ntime.time = lambda: now() + 4000\ntempfile.tempdir = '/nowhere'\n"
  )
  code, lines = examine(capsys, *_TWO, f"--output={tmp_path / 'output'}")
  assert code == 2
  said = [line for line in lines if not line.startswith("ok: ")]
  assert re.match(r"problem: temporary files: the worker on \S+ cannot write temporary files \(No such file", said[0])
  assert re.match(r"warning: clock: the one on \S+ is (3999|4000|4001) s\w* ahead of this machine's: set it", said[1])


def test_which_runner_direct_runner_is(capsys, monkeypatch, tmp_path):
  for name in ("https_proxy", "HTTPS_PROXY"):  # Prism is not fetched
    monkeypatch.setenv(name, "http://127.0.0.1:1")
  monkeypatch.setenv("HOME", str(tmp_path))
  code, lines = examine(capsys, "--runner=DirectRunner")
  assert code == 0
  (line,) = [line for line in lines if "DirectRunner" in line]
  assert line == (
    "warning: --runner=DirectRunner: on this machine it is FnApiRunner, after each job has looked for Prism without"
    " success: use --runner=FnApiRunner, which is the same on every machine."
  )


def test_workers_without_the_package(in_workers, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)  # else they find it in the current folder
  take_package_away(in_workers)
  code, lines = examine(capsys, *_TWO)
  assert code == 2
  problems = [line for line in lines if not line.startswith("ok: ")]
  assert len(problems) == 1
  assert re.match(r"problem: beam-retrain: the workers on \S+ have none, but the driver has \S+: install", problems[0])


def test_workers_with_other_versions(in_workers, capsys):
  for name, version in (("apache_beam", "2.62.0"), ("beam_retrain", "0.3.0")):
    (in_workers / f"{name}-{version}.dist-info").mkdir()
    (in_workers / f"{name}-{version}.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
  code, lines = examine(capsys, *_TWO)
  assert code == 2
  problems = [line for line in lines if line.startswith("problem: ")]
  assert [line.split(": ")[1] for line in problems] == ["apache-beam", "beam-retrain"]
  assert f"have 2.62.0, but the driver has {beam.version.__version__}: install apache-beam==" in problems[0]


def test_workers_that_do_not_see_the_folder(of_this_process, capsys):
  code, lines = examine(capsys, *_TWO, f"--output={of_this_process}/output")
  assert code == 2
  (line,) = [line for line in lines if line.startswith("problem: ")]
  assert re.match(rf"problem: --output {of_this_process}/output: the worker on \S+ cannot read it \(No such", line)
  assert os.listdir(of_this_process) == []


def test_a_job_says_so_too_where_workers_have_no_package(in_workers, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  take_package_away(in_workers)
  idx = lay_out_idx(tmp_path / "idx")
  assert main(["convert", f"--input={idx}", f"--output={tmp_path / 'output'}", *_TWO]) == 2
  out, err = capsys.readouterr()
  assert out == ""
  assert err.startswith(
    "beam-retrain: the workers do not have beam-retrain: install the same version of the package in the workers' "
  )
  assert err.count("\n") == 1


def test_a_job_says_so_too_where_workers_do_not_see_its_output(of_this_process, tmp_path, capsys):
  idx = lay_out_idx(tmp_path / "idx")
  assert main(["convert", f"--input={idx}", f"--output={of_this_process}/output", *_TWO]) == 2
  err = capsys.readouterr().err
  folder = f"{of_this_process}/output/records/.shards"
  assert re.fullmatch(rf"beam-retrain: the worker on \S+ does not see the folder {folder}: give paths .*\n", err)


def test_a_worker_that_does_not_see_the_model_says_so(tmp_path):
  with pytest.raises(InputError, match=r"does not see the folder .*/model: give paths on a shared disk"):
    ImageModelHandler(str(tmp_path / "model")).load_model()


def test_an_engine_that_does_not_answer(capsys):
  with socket.socket() as silent:
    silent.bind(("127.0.0.1", 0))
    silent.listen()
    address = f"127.0.0.1:{silent.getsockname()[1]}"
    started = time.monotonic()
    code, lines = examine(
      capsys, "--runner=PortableRunner", f"--job_endpoint={address}", "--environment_type=LOOPBACK", "--timeout_secs=2"
    )
  assert code == 2
  assert time.monotonic() - started < 60
  assert lines[1:] == [
    "problem: engine: PortableRunner did not do a tiny job within 2 seconds: find out what it waits for, usually"
    " workers, and cancel the tiny job there; or raise --timeout_secs."
  ]


def test_no_job_is_sent_to_an_engine_that_cannot_be_had(capsys):
  code, lines = examine(capsys, "--runner=FlinkRunner", "--flink_master=[local]", "--flink_job_server_jar=/nowhere.jar")
  assert code == 2
  assert lines[1].startswith("problem: ")
  assert not any("tiny job" in line for line in lines)


@pytest.mark.parametrize("trunk", ["/nowhere", "kears:InceptionV3"])
def test_a_trunk_that_is_none_is_wrong_usage(capsys, trunk):
  assert main(["doctor", f"--trunk={trunk}"]) == 2
  assert capsys.readouterr().err.startswith(
    f"beam-retrain: --trunk {trunk} is neither a folder nor a TF Hub handle: give "
  )


def test_what_workers_get_is_text_that_other_versions_of_python_understand():
  pipeline = beam.Pipeline(options=PipelineOptions(flags=_LOCAL))
  build(pipeline, {}, "")
  sent = [
    beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload).do_fn.payload
    for transform in pipeline.to_runner_api().components.transforms.values()
    if transform.spec.urn == common_urns.primitives.PAR_DO.urn
  ]
  assert len(sent) == 2
  for payload in sent:
    named = {str(argument) for _, argument, _ in pickletools.genops(unpacked(payload)) if argument is not None}
    assert not named & {"CodeType", "FunctionType", "_make_function", "_builtin_type"}
    assert not {name for name in named if name.startswith("beam_retrain")}


def unpacked(payload: bytes) -> bytes:
  """The pickle in what Beam's pickler wrote."""
  import base64
  import bz2
  import zlib

  data = base64.b64decode(payload)
  for unpack in (bz2.decompress, zlib.decompress):
    with contextlib.suppress(OSError, zlib.error):
      data = unpack(data)
  assert pickler.loads(payload)
  return data
