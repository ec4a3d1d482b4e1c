"""A bucket that cannot be reached is told at once, in one sentence. See also test_object_store.py."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines import cli
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from beam_retrain.transforms.core.run.next_steps import say_next
from beam_retrain.transforms.core.system.extras import install_command
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.transfer import place_of
from tests.helpers import ROOT
from tests.object_stores import NO_GOOGLE

_NOBODY = {
  "AWS_CONFIG_FILE": os.devnull,
  "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
  "AWS_EC2_METADATA_DISABLED": "true",
}
_SOMEBODY = {**_NOBODY, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.fixture
def silent() -> Iterator[str]:
  """The address of a server that takes connections, and never answers."""
  with socket.create_server(("127.0.0.1", 0)) as server:
    yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed(silent) -> str:
  """An address where nobody listens."""
  with socket.create_server(("127.0.0.1", 0)) as server:
    return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def told(monkeypatch, capfd):
  """Runs a command that must end in one sentence, and soon; returns the sentence."""

  def run(environment: dict[str, str], *argv: str) -> str:
    with monkeypatch.context() as patch:
      for name in os.environ:
        if name.startswith(("AWS_", "GOOGLE_")):
          patch.delenv(name)
      for name, value in environment.items():
        patch.setenv(name, value)
      began = time.monotonic()
      with pytest.raises(InputError) as caught:
        cli.dispatch(argv)
      assert time.monotonic() - began < 120
    assert capfd.readouterr() == ("", "")
    return str(caught.value)

  return run


def test_s3_that_does_not_answer(told, closed, silent, tmp_path):
  for address, command in ((closed, "convert"), (silent, "convert"), (closed, "train")):
    said = told(_SOMEBODY, command, "--input=s3://b/a", f"--output={tmp_path}", f"--s3_endpoint_url={address}")
    cause = f"{address} does not answer: check --s3_endpoint_url and the network."
    assert said == f"s3://b/a cannot be reached: {cause}"


@pytest.mark.parametrize("more", [("evaluate", "--output=o"), ("reevaluate", "--history=n")])
def test_a_model_on_s3_that_does_not_answer(told, closed, tmp_path, monkeypatch, more):
  monkeypatch.chdir(tmp_path)
  said = told(_SOMEBODY, more[0], "--model=s3://b/m", "--input=i", more[1], f"--s3_endpoint_url={closed}")
  assert said.startswith(f"s3://b/m cannot be reached: {closed} does not answer: ")


def test_the_command_line_prints_the_sentence_alone(closed, tmp_path):
  ended = subprocess.run(
    [
      *(
        sys.executable,
        "-m",
        "beam_retrain.pipelines.cli",
        "evaluate",
        "--model=s3://b/m",
        "--input=s3://b/i",
        "--output=s3://b/o",
      ),
      f"--s3_endpoint_url={closed}",
    ],
    cwd=ROOT,
    env={**os.environ, **_SOMEBODY},
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert (ended.returncode, ended.stdout) == (ExitCode.FAILED, "")
  assert ended.stderr.startswith(f"beam-retrain: s3://b/o cannot be reached: {closed} does not answer: ")
  assert ended.stderr.count("\n") == 1


def test_s3_without_its_packages(tmp_path):
  code = """
import sys
from importlib.machinery import PathFinder
class WithoutBoto(PathFinder):
  @classmethod
  def find_spec(cls, name, path=None, target=None):
    return None if name in ("boto3", "botocore") else super().find_spec(name, path, target)
sys.meta_path[:] = [WithoutBoto if finder is PathFinder else finder for finder in sys.meta_path]
from beam_retrain.pipelines import cli
for command, output in (("reevaluate", "history"), ("evaluate", "output")):
  sys.argv[1:] = [command, "--model=s3://b/m", "--input=s3://b/i", f"--{output}=o"]
  print(int(cli.main()))
"""
  command = [sys.executable, "-c", code]
  environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
  ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
  needs = f"s3://b/m needs packages that are not installed: {install_command('aws')}."
  assert ended.stderr == f"beam-retrain: {needs}\n" * 2
  assert ended.stdout.split() == [str(ExitCode.FAILED)] * 2


def test_s3_without_credentials(told, closed, tmp_path):
  said = told(_NOBODY, "convert", "--input=s3://b/a", f"--output={tmp_path}", f"--s3_endpoint_url={closed}")
  assert said == (
    "s3://b/a cannot be read without credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile."
  )


def test_what_is_no_address_or_no_bucket(told, closed, tmp_path):
  for path, endpoint in (("s3://b/a", "nowhere"), ("s3://B*/a", closed), ("s3:///a", closed)):
    said = told(_SOMEBODY, "bottlenecks", f"--input={path}", f"--output={tmp_path}", f"--s3_endpoint_url={endpoint}")
    assert said.startswith(f"{path} cannot be reached (")
    assert said.endswith("): check the path and the --s3_ options.")


def test_google_that_does_not_answer(told, closed, silent, tmp_path):
  for address in (closed, silent):
    environment = {**NO_GOOGLE, "STORAGE_EMULATOR_HOST": address}
    said = told(environment, "evaluate", f"--model={tmp_path}", "--input=gs://b/a", "--output=gs://b/o")
    assert said == "gs://b/o cannot be reached: Google Cloud Storage does not answer: check the network."


def test_doctor_says_it_of_google_s_too(closed, tmp_path):
  command = [sys.executable, "-m", "beam_retrain.pipelines.cli", "doctor", "--output=gs://b/o"]
  environment = {**os.environ, **NO_GOOGLE, "STORAGE_EMULATOR_HOST": closed, "PYTHONPATH": str(ROOT.parent)}
  ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
  assert ended.returncode == ExitCode.FAILED
  said = (
    "problem: --output gs://b/o: gs://b cannot be reached: Google Cloud Storage does not answer: check the network."
  )
  assert said in ended.stdout.splitlines()


def test_the_next_command_reads_the_same_server(capsys):
  flags = ["--s3_endpoint_url=http://h", "--s3_disable_ssl", "--s3_secret_access_key=abc"]
  files.use_options(PipelineOptions(flags=flags))
  try:
    say_next("train", "--input", "s3://b/o", "--s3_disable_ssl")
    say_next("train", "--input", "/o")
  finally:
    files.use_options()
  say_next("train", "--input", "s3://b/o")
  remote, local, after = (line.partition(" train ")[2] for line in capsys.readouterr().out.splitlines())
  assert remote == "--input s3://b/o --s3_disable_ssl --s3_endpoint_url=http://h"
  assert local == "--input /o"
  assert after == "--input s3://b/o"


def test_commands_that_read_local_files_only_say_so(told):
  assert "s3://b/m is remote, but predict reads local files only" in told({}, "predict", "--model=s3://b/m", "1.png")
  for flag in ("model", "evaluation", "history"):
    flags = {"model": "/m", flag: "s3://b/x"}
    said = told({}, "serve", *(f"--{name}={value}" for name, value in flags.items()))
    assert said == "s3://b/x is remote, but serve reads local files only: give a local copy."
  assert "argument --output: gs://b/o is remote, where" in told({}, "run", "--output=gs://b/o", "--runner=FnApiRunner")
  argv = ("--input=/b", "--output=/o", "--preset=retrain", "--summaries_dir=s3://b/logs")
  assert "--summaries_dir s3://b/logs is not a path on a local disk" in told({}, "train", *argv)
  argv = ("--input=s3://b/b", "--output=s3://b/o", "--tflite_output_file=a.tflite")
  assert "--tflite_output_file needs a local --output" in told({}, "train", *argv)
  argv = ("--input=s3://b/b", "--output=/o", "--tflite_output_file=s3://b/a.tflite")
  assert "only --input and --output may be remote" in told({}, "train", *argv)
  assert "--rnds" in told({}, "train", "--input=s3://b/b", "--output=s3://b/o", "--rnds=9")


def test_no_object_is_brought_to_another_place():
  assert place_of("s3://b/trunk/prepared/card.json", "s3://b/trunk", "/cache") == "/cache/prepared/card.json"
  for name in ("../card.json", "a/../../card.json", "/etc/passwd", "a//b", "./a"):
    with pytest.raises(InputError, match="cannot be downloaded"):
      place_of(f"s3://b/trunk/{name}", "s3://b/trunk", "/cache")
