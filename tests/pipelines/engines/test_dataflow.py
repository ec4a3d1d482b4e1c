"""Jobs for Dataflow, built whole and offline: what Beam would send is written to a folder, and looked at."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import DebugOptions, PipelineOptions, SetupOptions, WorkerOptions
from apache_beam.portability.api import beam_runner_api_pb2

from beam_retrain.pipelines import bottlenecks, convert, evaluate
from beam_retrain.pipelines.engines.dataflow import worker_memory_bytes
from beam_retrain.pipelines.models.execution import worker_processes
from beam_retrain.pipelines.options.request import parse_job
from beam_retrain.pipelines.reevaluate import command as reevaluate
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.argparse_internals import actions_of
from tests.helpers import ROOT

_DEPLOY = ROOT / "deploy" / "dataflow"
_IMAGE = "europe-west1-docker.pkg.dev/a-project/images/beam-retrain:0.4.0"
_CLOUD = ("--runner=DataflowRunner", "--project=a-project", "--region=europe-west1")
_TEMP = "--temp_location=gs://bucket/temp"

_UNPICKLE = """
import sys
from apache_beam import Pipeline
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
proto = beam_runner_api_pb2.Pipeline.FromString(open(sys.argv[1], "rb").read())
Pipeline.from_runner_api(proto, "FnApiRunner", PipelineOptions(flags=[]))
print("unpickled", len(proto.components.transforms))
"""


def _run(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
  environment = {**os.environ, "PYTHONPATH": str(ROOT)}
  return subprocess.run(
    [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
  )


def _template(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
  """Runs a command that leaves `job.json` and `pipeline.pb` in `folder`; nobody answers at that endpoint."""
  folder.mkdir(exist_ok=True)
  places = (f"--template_location={folder}/job.json", f"--staging_location={folder}", f"--temp_location={folder}")
  return _run(*words, *_CLOUD, *places, "--dataflow_endpoint=http://localhost:9", "--no_auth")


def _read(folder: Path) -> tuple[dict, beam_runner_api_pb2.Pipeline]:
  job = json.loads((folder / "job.json").read_text())
  return job["environment"], beam_runner_api_pb2.Pipeline.FromString((folder / "pipeline.pb").read_bytes())


@pytest.fixture(scope="module")
def embedding(tmp_path_factory, small_images, tiny_trunk) -> Path:
  """The job of `bottlenecks`, by the launcher of the Flex Template."""
  folder = tmp_path_factory.mktemp("embedding")
  launched = _template(
    folder,
    *(str(_DEPLOY / "launch.py"), "--command=bottlenecks", f"--input={small_images}", f"--trunk={tiny_trunk}"),
    *(f"--output={folder}/output", "--precision=float32", "--runtime=tensorflow", f"--sdk_container_image={_IMAGE}"),
  )
  assert launched.returncode == 0, launched.stderr
  assert "run it on Dataflow" in launched.stdout
  assert not (folder / "output" / "COMPLETED").exists()
  return folder


def test_the_job_has_every_stage(embedding):
  _, pipeline = _read(embedding)
  names = [transform.unique_name.split("/") for transform in pipeline.components.transforms.values()]
  assert "Plan" in {name[0] for name in names}
  steps = {name[1] for name in names if name[0] == "ComputeBottlenecks" and len(name) > 1}
  assert {"CheckSplits", "Work", "Analyze", "Audit", "Close", "MarkCompleted"} <= steps


def test_a_worker_is_one_process_of_two_threads_in_our_image(embedding):
  environment, pipeline = _read(embedding)
  (pool,) = environment["workerPools"]
  assert "no_use_multiple_sdk_containers" in environment["experiments"]
  assert "use_multiple_sdk_containers" not in environment["experiments"]
  assert pool["numThreadsPerWorker"] == 2
  assert [image["containerImage"] for image in pool["sdkHarnessContainerImages"]] == [_IMAGE]
  # One environment for all steps: another one would be another process, with a trunk of its own.
  (container,) = pipeline.components.environments.values()
  assert beam_runner_api_pb2.DockerPayload.FromString(container.payload).container_image == _IMAGE


def test_workers_are_asked_for_that_hold_the_trunk(embedding):
  _, pipeline = _read(embedding)
  (container,) = pipeline.components.environments.values()
  stored = sum(path.stat().st_size for path in (embedding / "output" / "trunk").rglob("*") if path.is_file())
  assert stored > 0
  assert dict(container.resource_hints) == {"beam:resources:min_ram_bytes:v1": str(_whole_gib(stored)).encode()}


def _whole_gib(model_bytes: int) -> int:
  return -(-worker_memory_bytes(model_bytes) // (1 << 30)) << 30


def test_memory_grows_with_the_trunk():
  assert worker_memory_bytes(0) == 2 << 30
  assert 2 << 30 < worker_memory_bytes(5_000_000) < 3 << 30
  assert worker_memory_bytes(1 << 30) == 10 << 30


def test_nothing_is_staged_that_the_image_has(embedding):
  environment, _ = _read(embedding)
  names = {package["name"] for package in environment["workerPools"][0].get("packages", [])}
  assert names <= {"submission_environment_dependencies.txt"}  # no package, and no pickled main session


def test_another_process_can_unpickle_every_step(embedding, tmp_path):
  read = _run("-c", _UNPICKLE, str(embedding / "pipeline.pb"), cwd=tmp_path)
  assert read.returncode == 0, read.stderr[-2_000:]
  assert int(read.stdout.split()[-1]) > 50


def test_without_an_image_the_package_is_staged(tmp_path, mnist_folder):
  source = tmp_path / "source"
  source.mkdir()
  for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(ROOT / name, source)
  for name in ("pipelines", "transforms", "trainer", "reporting"):
    shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
  words = ("-m", "beam_retrain.pipelines.convert", f"--input={mnist_folder}", f"--output={tmp_path}/output")
  built = _template(tmp_path / "job", *words, f"--setup_file={source}/setup.py")
  assert built.returncode == 0, built.stderr
  environment, pipeline = _read(tmp_path / "job")
  names = {package["name"] for package in environment["workerPools"][0]["packages"]}
  assert "workflow.tar.gz" in names
  assert "pickled_main_session" not in names
  stages = {transform.unique_name.split("/")[0] for transform in pipeline.components.transforms.values()}
  assert {"Plan", "Work", "Close", "SweepTree", "MarkCompleted"} <= stages


def test_a_dry_run_of_an_evaluation_builds_it(tmp_path, trained_model, small_images):
  words = (
    "-m",
    "beam_retrain.pipelines.evaluate",
    f"--model={trained_model}",
    f"--input={small_images}",
    f"--output={tmp_path}/o",
  )
  dry = _run(*words, *_CLOUD, _TEMP, "--dry_run=True")
  assert (dry.returncode, dry.stdout) == (0, "dry run: the job was built but not sent\n"), dry.stderr


def _parse(request, *words: str) -> PipelineOptions:
  return parse_job(request.make_parser(), [*words], check_engine=False)[1]


_CONVERT = ("--input=gs://bucket/idx", "--output=gs://bucket/images")


@pytest.mark.parametrize(
  ("words", "told"),
  [
    (("--region=r", _TEMP), "DataflowRunner needs --project: give"),
    (("--project=a-project", _TEMP), "DataflowRunner needs --region: give"),
    (("--project=a-project", "--region=r"), "DataflowRunner needs --temp_location: give"),
    (
      ("--project=a-project", "--region=r", "--temp_location=/tmp/t"),
      "--temp_location /tmp/t: Dataflow's workers",
    ),
    (("--project=a-project", "--region=r", "--temp_location=s3://b/t"), "--temp_location s3://b/t: Dataflow's workers"),
    (("--project=a-project", "--region=r", _TEMP, "--output=here"), "--output here: Dataflow's workers cannot read it"),
  ],
)
def test_what_is_missing_is_told_in_one_sentence(monkeypatch, words, told):
  monkeypatch.delenv("CLOUDSDK_COMPUTE_REGION", raising=False)
  monkeypatch.setenv("PATH", "/nowhere")  # a gcloud that knows a region
  with pytest.raises(InputError, match=re.escape(f"beam-retrain convert: {told}")) as raised:
    _parse(convert.ConvertRequest, *_CONVERT, "--runner=DataflowRunner", *words)
  assert "\n" not in str(raised.value)


def test_missing_packages_are_told():
  without = "import sys; sys.modules['google.cloud.dataflow_v1beta3'] = sys.modules['google.cloud.dataflow'] = None"
  code = f"{without}; from beam_retrain.pipelines.cli import main; sys.exit(main(sys.argv[1:]))"
  refused = _run("-c", code, "convert", *_CONVERT, *_CLOUD, _TEMP)
  assert refused.returncode == 2
  (told,) = refused.stderr.splitlines()
  assert told.startswith("beam-retrain convert: DataflowRunner needs packages that are not installed")
  assert told.endswith("pip install 'apache-beam[gcp]'.")


def test_the_exit_code_is_2():
  refused = _run("-m", "beam_retrain.pipelines.convert", *_CONVERT, "--runner=DataflowRunner")
  assert (refused.returncode, refused.stdout) == (2, "")
  assert refused.stderr == (
    "beam-retrain convert: DataflowRunner needs --project: give the id of your Google Cloud project.\n"
  )


@pytest.mark.parametrize("flag", ["--template_location=gs://bucket/job.json", "--dry_run=True"])
def test_a_command_of_several_jobs_cannot_be_built_only(flag):
  words = ("--model=gs://bucket/model", "--input=gs://bucket/images")
  with pytest.raises(InputError, match=f"{flag.split('=')[0]} works only with commands of a single job"):
    _parse(reevaluate.ReevaluateRequest, *words, "--history=gs://bucket/history", *_CLOUD, _TEMP, flag)


def test_an_evaluation_is_no_template():
  words = ("--model=gs://bucket/model", "--input=gs://bucket/images", "--output=gs://bucket/evaluation")
  with pytest.raises(InputError, match="--template_location works only with commands of a single job"):
    _parse(evaluate.EvaluateRequest, *words, *_CLOUD, _TEMP, "--template_location=gs://bucket/job.json")


def test_building_a_job_takes_no_finished_output_away(bottlenecks_folder, small_images, tiny_trunk):
  words = (f"--input={small_images}", f"--trunk={tiny_trunk}", f"--output={bottlenecks_folder}")
  refused = _run("-m", "beam_retrain.pipelines.bottlenecks", *words, *_CLOUD, _TEMP, "--dry_run=True")
  assert refused.returncode == 2
  assert "is finished, and building a job would delete it" in refused.stderr
  assert (bottlenecks_folder / "COMPLETED").exists()


def test_what_the_user_says_of_processes_and_threads_holds():
  ours = _parse(convert.ConvertRequest, *_CONVERT, *_CLOUD, _TEMP)
  assert worker_processes(ours) == 1
  assert ours.view_as(SetupOptions).save_main_session is False
  many = _parse(convert.ConvertRequest, *_CONVERT, *_CLOUD, _TEMP, "--experiments=use_multiple_sdk_containers")
  assert worker_processes(many) == 0
  assert many.view_as(DebugOptions).number_of_worker_harness_threads is None
  three = _parse(convert.ConvertRequest, *_CONVERT, *_CLOUD, _TEMP, "--number_of_worker_harness_threads=3")
  assert three.view_as(DebugOptions).number_of_worker_harness_threads == 3


def test_the_template_s_parameters_are_flags_of_its_commands():
  metadata = json.loads((_DEPLOY / "metadata.json").read_text())
  command, *others = metadata["parameters"]
  assert command["name"] == "command"
  assert not metadata["streaming"]
  requests = (bottlenecks.BottlenecksRequest, convert.ConvertRequest)
  known = [action.option_strings for request in requests for action in actions_of(request.make_parser())]
  for parameter in others:
    assert [f"--{parameter['name']}"] in known
    assert parameter["label"]
    assert parameter["helpText"]
  examples = {"command": "convert", "input": "gs://b/i", "output": "gs://b/o", "max_bad_fraction": "0.01"}
  for parameter in metadata["parameters"]:
    for pattern in parameter.get("regexes", []):
      if example := examples.get(parameter["name"]):
        assert re.search(pattern, example), pattern
        assert not re.search(pattern, "/local")


def test_the_commands_that_are_shown_are_understood():
  text = (_DEPLOY / "README.md").read_text().replace("\\\n", " ").replace("PROJECT", "a-project")
  (shown,) = re.findall(r"^beam-retrain convert (.*)$", text, re.MULTILINE)
  options = _parse(convert.ConvertRequest, *shlex.split(shown.replace("$IMAGE", _IMAGE)))
  assert options.view_as(WorkerOptions).sdk_container_image == _IMAGE
  (parameters,) = re.findall(r"--parameters=(\S+)", text)
  given = dict(parameter.split("=") for parameter in parameters.split(","))
  metadata = json.loads((_DEPLOY / "metadata.json").read_text())
  needed = {parameter["name"] for parameter in metadata["parameters"] if not parameter["isOptional"]}
  assert needed == given.keys() - {"sdk_container_image"}  # Beam's own, which every template has


def test_the_image_has_what_the_template_and_the_workers_start():
  text = (_DEPLOY / "Dockerfile").read_text()
  (launched,) = re.findall(r"^ENV FLEX_TEMPLATE_PYTHON_PY_FILE=(\S+)$", text, re.MULTILINE)
  assert f"COPY deploy/dataflow/launch.py {launched}" in text
  assert 'ENTRYPOINT ["/opt/apache/beam/boot"]' in text
  # The same Beam and Python on both sides: what is pickled by one is read by the other.
  pins = dict(line.split("==", 1) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
  assert f"apache/beam_python3.11_sdk:{pins['apache-beam']} " in text
  assert re.search(r"^FROM python:3\.11", text, re.MULTILINE)
  kept = (_DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
  assert {"!constraints.txt", "!deploy/dataflow/launch.py", "!setup.py", "!pipelines"} <= set(kept)
