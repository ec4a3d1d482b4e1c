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
from beam_retrain.pipelines.doctor.command import check_memory, check_paths, compare_versions, count_processes
from beam_retrain.pipelines.doctor.probe_job import build
from beam_retrain.pipelines.doctor.worker_report import Process
from beam_retrain.pipelines.engines.dataflow import worker_memory_bytes
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
  code, lines = examine(capsys, *_TWO, f"--trunk={tmp_path / 'trunk'}")
  assert code == 0
  assert "ok: workers: 2 processes on this machine" in lines
  assert "ok: paths: the workers read the same paths as this machine" in lines


def test_one_process_where_two_were_meant_is_a_warning(capsys):
  code, lines = examine(capsys, *_LOCAL, "--direct_num_workers=2")
  assert code == 0
  said = "warning: workers: 1 process on this machine, which is the command's own, where 2 were expected: add --"
  assert any(line.startswith(said) for line in lines)


def test_which_runner_direct_runner_is(capsys, monkeypatch, tmp_path):
  for name in ("https_proxy", "HTTPS_PROXY"):  # Prism is not fetched
    monkeypatch.setenv(name, "http://127.0.0.1:1")
  monkeypatch.setenv("HOME", str(tmp_path))
  code, lines = examine(capsys, "--runner=DirectRunner")
  assert code == 0
  (line,) = [line for line in lines if "DirectRunner" in line]
  assert line == (
    "warning: --runner=DirectRunner: on this machine it is FnApiRunner, after each job has looked for Prism in vain:"
    " use --runner=FnApiRunner, which is the same on every machine."
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
      capsys, "--runner=PortableRunner", f"--job_endpoint={address}", "--environment_type=LOOPBACK", "--timeout_secs=6"
    )
  assert code == 2
  assert time.monotonic() - started < 60
  assert lines[1:] == [
    "problem: engine: PortableRunner did not do a tiny job within 6 seconds: find out what it waits for, usually"
    " workers, and cancel the tiny job there; or raise --timeout_secs."
  ]


def test_no_job_is_sent_to_an_engine_that_cannot_be_had(capsys):
  code, lines = examine(capsys, "--runner=FlinkRunner", "--flink_master=[local]", "--flink_job_server_jar=/nowhere.jar")
  assert code == 2
  assert lines[1].startswith("problem: ")
  assert not any("tiny job" in line for line in lines)


def test_a_trunk_that_is_none_is_wrong_usage(capsys):
  assert main(["doctor", "--trunk=/nowhere"]) == 2
  assert capsys.readouterr().err.startswith(
    "beam-retrain: --trunk /nowhere is neither a folder nor a TF Hub handle: give "
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


_VERSIONS = {
  "Python": "3.11.2",
  "apache-beam": "2.77.0",
  "tensorflow": "2.21.0",
  "openvino": "",
  "beam-retrain": "0.4.0",
}
_GIB = 1 << 30


def process(host: str = "here", pid: int = 1, **more) -> Process:
  versions = {**_VERSIONS, **more.pop("versions", {})}
  return Process(host, pid, versions, **more)


_DRIVER = process()


def test_its_process_is_what_tells_a_report_apart():
  assert (
    len({Process("a", 3, {"Python": "3.11.2"}, 5), Process("a", 3, {}, 6), Process("a", 4, {}), Process("b", 3, {})})
    == 3
  )


@pytest.mark.parametrize(
  ("workers", "said"),
  [
    ([process(pid=2)], "ok: workers: 1 process on this machine"),
    ([process("a"), process("a", 2), process("b")], "ok: workers: 3 processes on a, b"),
  ],
)
def test_processes_are_counted(workers, said):
  assert str(count_processes(_DRIVER, workers, 1, "")) == said
  assert count_processes(_DRIVER, workers, len(workers), "").severity == "ok"


def test_one_process_for_several_is_a_warning():
  found = count_processes(_DRIVER, [process("a")], 2, "add more")
  assert str(found) == "warning: workers: 1 process on a, where 2 were expected: add more."
  assert "1 process on this machine, which is the command's own, where 4" in str(
    count_processes(_DRIVER, [_DRIVER], 4, "add more")
  )


def test_the_same_versions_are_told_in_a_line():
  patched = process("a", versions={"Python": "3.11.9", "openvino": "2026.4"})  # the driver does without OpenVINO
  (found,) = compare_versions(_DRIVER, [_DRIVER, patched])
  assert str(found) == "ok: versions: the same in the driver and the workers"


@pytest.mark.parametrize(
  ("name", "other", "cause", "remedy"),
  [
    (
      "Python",
      "3.12.1",
      "have 3.12.1, but the driver has 3.11.2",
      "start the command with Python 3.12, or the workers",
    ),
    ("apache-beam", "2.62.0", "have 2.62.0, but the driver has 2.77.0", "install apache-beam==2.77.0 in the workers'"),
    ("tensorflow", "", "have none, but the driver has 2.21.0", "install tensorflow==2.21.0"),
    ("beam-retrain", "0.3.0", "have 0.3.0, but the driver has 0.4.0", "install beam-retrain==0.4.0"),
    ("beam-retrain", "", "have none, but the driver has 0.4.0", "install beam-retrain==0.4.0"),
  ],
)
def test_another_version_is_a_problem_that_names_the_machines(name, other, cause, remedy):
  workers = [process("c"), *(process(host, versions={name: other}) for host in ("b", "a"))]
  (found,) = compare_versions(_DRIVER, workers)
  assert (found.severity, found.thing) == ("problem", name)
  assert found.cause == f"the workers on a, b {cause}"
  assert found.remedy.startswith(remedy)


def test_a_package_of_no_known_version_is_not_held_against_anybody():
  assert compare_versions(_DRIVER, [process("a", versions={"beam-retrain": "unknown"})])[0].severity == "ok"
  assert compare_versions(process(versions={"beam-retrain": "unknown"}), [_DRIVER])[0].severity == "ok"
  from_source = process(versions={"beam-retrain": "unknown"})
  assert compare_versions(from_source, [process("a", versions={"beam-retrain": ""})])[0].severity == "problem"


_NAMED = {"/t/saved_model.pb": "--trunk /t", "/o/x/driver": "--output /o/y"}
_OUTPUT = "--output /o/y"


def test_paths_that_all_see_are_told_in_a_line():
  workers = [process("a"), process("b")]
  (found,) = check_paths(workers, _NAMED, _OUTPUT, [])
  assert str(found) == "ok: paths: the workers read and write the same paths as this machine"
  assert "the workers read the same" in str(check_paths(workers, {"/t/saved_model.pb": "--trunk /t"}, "", [])[0])
  assert check_paths(workers, {}, "", []) == []


@pytest.mark.parametrize(
  ("worker", "is_missing", "said"),
  [
    (
      process("a", unread={"/t/saved_model.pb": "No such file or directory"}),
      False,
      "--trunk /t: the worker on a cannot read it (No such file or directory): give a path",
    ),
    (
      process("a", unread={"/o/x/driver": "another file is there"}),
      False,
      "--output /o/y: the worker on a cannot read it",
    ),
    (
      process("a", unwritten="Permission denied"),
      False,
      "--output /o/y: the worker on a cannot write there (Permission denied): give a path",
    ),
    (process("a"), True, "--output /o/y: this machine does not see what the worker on a wrote there: give a path"),
  ],
)
def test_a_path_that_is_not_seen_alike_is_a_problem(worker, is_missing, said):
  (found,) = check_paths([process("b"), worker], _NAMED, _OUTPUT, [worker] if is_missing else [])
  assert found.severity == "problem"
  assert found.sentence.startswith(said)


def test_memory_is_shared_by_the_processes_of_a_machine():
  large = 1 << 30
  assert worker_memory_bytes(large) == 10 * _GIB
  roomy = [process("a", pid, memory_bytes=40 * _GIB) for pid in (1, 2)]
  (found,) = check_memory(roomy, large, "big")
  assert str(found) == "ok: memory: 40.0 GiB for 2 processes of up to 10.0 GiB with the trunk big"
  full = [*roomy, *(process("b", pid, memory_bytes=(19 + pid) * _GIB) for pid in (0, 1, 2))]
  (found,) = check_memory(full, large, "big")
  assert found.severity == "warning"
  assert found.sentence.startswith("memory: b has left 19.0 GiB for 3 processes of up to 10.0 GiB with the trunk big: ")


def test_memory_that_nobody_knows_is_not_told():
  assert check_memory([process("a")], 5, "bundled") == []
  assert "2.0 GiB and the trunk inception_v3" in str(
    check_memory([process("a", memory_bytes=8)], None, "inception_v3")[0]
  )
