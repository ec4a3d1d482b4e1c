"""Small whole jobs, and what must come out of them on any engine: what FnApiRunner with one worker writes.

A subclass says which flags its engine takes. What is compared, and how:

| file                                     | must be                                                               |
|------------------------------------------|-----------------------------------------------------------------------|
| info.json, metrics.json, predictions.csv | the same but for command, paths and times, as `verify --same` compares |
| trunk/saved_model.pb                     | the same operations and numbers: TensorFlow names functions anew      |
| trunk/trunk.json                         | the same but for the digest of the former                             |
| transform_fn/saved_model.pb              | a transform whose output differs by at most `TRANSFORM_TOLERANCE`;    |
|                                          | beyond five standard deviations by a fifth of that for each           |
| report.html, metrics.prom, fingerprint.pb | there: times, paths and random numbers                               |
| all others                               | the same, byte for byte                                               |

The transform is the one place where an engine shows. The mean and the variance of tensorflow-transform's z-score are
merged from those of batches, in float32, in whatever order the engine brings them: another order, another last digit.
"""

from __future__ import annotations

import functools
import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners import create_runner

from beam_retrain.pipelines import bottlenecks, convert, datasets, evaluate
from beam_retrain.pipelines.engines.runners import ENGINE_OPTIONS
from beam_retrain.trainer import task
from beam_retrain.transforms.core.log_file import LOG_FILE
from beam_retrain.transforms.core.records.schema import COMPLETED_FILE, REPORTS_FOLDER
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from beam_retrain.transforms.evaluation.classifier import SCORED_FOLDER
from beam_retrain.transforms.evaluation.output_diff import difference_of_graphs, difference_of_json, difference_of_rows
from tests.helpers import ROOT

ENGINES = "BEAM_RETRAIN_ENGINES"
# Of z-scores, which for most images are in -5..5: some 20 units in the last place of a float32.
TRANSFORM_TOLERANCE = 5e-5

needs_engines = pytest.mark.skipif(
  not os.environ.get(ENGINES),
  reason=f"{ENGINES} names no folder of engines: `make test-engines` makes one and sets it",
)

_BY_NAME = {
  "info.json": difference_of_json,
  "metrics.json": difference_of_json,
  "predictions.csv": difference_of_rows,
  "trunk/saved_model.pb": difference_of_graphs,
  "trunk/trunk.json": difference_of_json,
}
_THERE = ("report.html", "metrics.prom", "fingerprint.pb", "config.toml")
_TRANSFORM = "transform/transform_fn/saved_model.pb"


def engine_file(*names: str) -> Path:
  """Returns the path of a file that `make engines` brought."""
  path = Path(os.environ[ENGINES], *names)
  assert path.exists(), f"{path} is not there: run `make engines`"
  return path


class Outputs(NamedTuple):
  """Folders. Three shards each: two for training, one for testing."""

  images: Path
  bottlenecks: Path
  evaluation: Path
  reuse: Path


class Inputs(NamedTuple):
  """What the jobs read, the same on all engines.

  Attributes:
    idx: scikit-learn's 1,797 digits as IDX files.
    folders: as class folders of JPGs.
    bottlenecks: of all of them.
    model: trained on these.
  """

  idx: Path
  folders: Path
  bottlenecks: Path
  model: Path

  def convert(self, output: Path, flags: Sequence[str]) -> list[str]:
    return [f"--input={self.idx}", f"--output={output}", *flags]

  def embed(self, output: Path, flags: Sequence[str]) -> list[str]:
    return [f"--input={self.folders}", f"--output={output}", "--trunk=bundled", *flags]

  def evaluate(self, output: Path, flags: Sequence[str]) -> list[str]:
    return [f"--input={self.folders}", f"--output={output}", f"--model={self.model}", *flags]

  def reuse(self, output: Path, flags: Sequence[str]) -> list[str]:
    # The testing images of IDX files have other keys, but some are the same pixels: both found and missing ones.
    return [f"--reuse={self.bottlenecks}", *self.evaluate(output, flags)]


ONE_WORKER = ["--runner=FnApiRunner"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
  work = tmp_path_factory.mktemp("inputs")
  found = Inputs(work / "idx", work / "folders", work / "bottlenecks", work / "model")
  datasets.digits(str(found.idx))
  assert convert.run(found.convert(found.folders, ["--formats=jpg", *ONE_WORKER])) == ExitCode.DONE
  assert bottlenecks.run(found.embed(found.bottlenecks, ONE_WORKER)) == ExitCode.DONE
  assert task.run([f"--input={found.bottlenecks}", f"--output={found.model}", "--rounds=9"]) == ExitCode.DONE
  return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, inputs: Inputs) -> Outputs:
  """What FnApiRunner with one worker writes."""
  work = tmp_path_factory.mktemp("expected")
  found = Outputs(work / "pictures", inputs.bottlenecks, work / "evaluation", work / "reuse")
  assert convert.run(inputs.convert(found.images, ONE_WORKER)) == ExitCode.DONE
  assert evaluate.run(inputs.evaluate(found.evaluation, ONE_WORKER)) == ExitCode.DONE
  assert evaluate.run(inputs.reuse(found.reuse, ONE_WORKER)) == ExitCode.DONE
  return found


class EngineSuite:
  """A subclass gives `flags`."""

  @pytest.fixture(scope="class")
  @classmethod
  def flags(cls) -> list[str]:
    raise NotImplementedError

  def test_convert(self, flags, inputs, expected, tmp_path):
    ended = run_command(*inputs.convert(tmp_path / "output", flags))
    assert (ended.returncode, said(ended)) == (ExitCode.DONE, "")
    assert_same(tmp_path / "output", expected.images)

  def test_bottlenecks(self, flags, inputs, expected, tmp_path):
    assert bottlenecks.run(inputs.embed(tmp_path / "output", flags)) == ExitCode.DONE
    assert_same(tmp_path / "output", expected.bottlenecks)

  def test_evaluate(self, flags, inputs, expected, tmp_path):
    assert evaluate.run(inputs.evaluate(tmp_path / "output", flags)) == ExitCode.DONE
    assert_same(tmp_path / "output", expected.evaluation)

  def test_evaluate_with_reuse(self, flags, inputs, expected, tmp_path):
    assert evaluate.run(inputs.reuse(tmp_path / "output", flags)) == ExitCode.DONE
    assert_same(tmp_path / "output", expected.reuse)

  def test_what_a_worker_refuses_is_one_sentence(self, flags, inputs, tmp_path):
    (tmp_path / "idx").mkdir()
    for path in inputs.idx.iterdir():
      (tmp_path / "idx" / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    images = tmp_path / "idx" / "train-images-idx3-ubyte.gz"
    images.write_bytes(images.read_bytes()[:-9])
    ended = run_command(f"--input={tmp_path / 'idx'}", f"--output={tmp_path / 'output'}", *flags)
    assert re.fullmatch(f"beam-retrain: {images}: byte .* get the file again\\.\n", said(ended)), ended.stderr
    assert ended.returncode == ExitCode.FAILED
    assert not (tmp_path / "output" / "COMPLETED").exists()


def run_command(*argv: str) -> subprocess.CompletedProcess[str]:
  """`convert` as a user starts it: a process of its own, at whose end the engine is stopped."""
  command = [sys.executable, "-m", "beam_retrain.pipelines.convert", *argv]
  return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


class JobServerSuite(EngineSuite):
  """A subclass of an engine in Java gives `runner`, too."""

  runner: str

  def test_the_options_that_are_let_through_are_the_job_server_s(self, flags):
    handle = create_runner(self.runner).create_job_service(PipelineOptions(flags=flags))
    request = beam_job_api_pb2.DescribePipelineOptionsRequest()
    kinds = {option.name: option.type for option in handle.job_service.DescribePipelineOptions(request).options}
    switches, valued = ENGINE_OPTIONS[self.runner]
    switch = beam_job_api_pb2.PipelineOptionType.BOOLEAN
    assert {name: kinds.get(name) == switch for name in switches} == dict.fromkeys(switches, True)
    assert {name for name in valued if kinds.get(name, switch) == switch} == set()

  def test_doctor(self, flags, tmp_path):
    code, lines = run_doctor(*flags, f"--output={tmp_path / 'output'}")
    assert code == ExitCode.DONE, lines
    assert [line for line in lines if not line.startswith(("ok: driver", "ok: memory", "warning: memory"))] == [
      f"ok: engine: {self.runner} did a tiny job in N s",
      "warning: workers: 1 process on this machine, which is the command's own, where 2 were expected: add"
      " --experiments=use_loopback_process_worker=true --sdk_worker_parallelism=2.",
      "ok: versions: the same in the driver and the workers",
      "ok: paths: the workers read and write the same paths as this machine",
    ]

  def test_what_doctor_advises_gives_two_processes(self, flags):
    more = ["--experiments=use_loopback_process_worker=true", "--sdk_worker_parallelism=2"]
    for _ in range(4):  # an engine may give both halves of so small a job to one of its two processes
      code, lines = run_doctor(*flags, *more)
      assert code == ExitCode.DONE, lines
      if "ok: workers: 2 processes on this machine" in lines:
        return
    pytest.fail("\n".join(lines))


def run_doctor(*flags: str) -> tuple[int, list[str]]:
  """Returns the exit code and the lines, without the seconds."""
  command = [sys.executable, "-m", "beam_retrain.pipelines.doctor", "--timeout_secs=150", *flags]
  path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
  ended = subprocess.run(
    command,
    cwd=ROOT,
    env={**os.environ, "PATH": path},
    capture_output=True,
    text=True,
    check=False,
  )
  assert ended.stderr == ""
  return ended.returncode, [re.sub(r"[\d.]+ s$", "N s", line) for line in ended.stdout.splitlines()]


def said(ended: subprocess.CompletedProcess[str]) -> str:
  """Returns what a command wrote on standard error, but for how far it was every 15 seconds."""
  return "".join(line for line in ended.stderr.splitlines(keepends=True) if not line.startswith("convert: "))


def assert_same(output: Path, expected: Path, has_same_inputs: bool = True) -> None:
  """See the table above; of other inputs, as they lie elsewhere, the reports of the shards have other digests."""
  names = _names(output)
  assert names == _names(expected)
  assert "COMPLETED" in names
  for name in names:
    path, other = output / name, expected / name
    if path.name in _THERE or path.read_bytes() == other.read_bytes():
      continue
    if not has_same_inputs and path.parent.name == REPORTS_FOLDER:
      continue
    if path.name == COMPLETED_FILE:  # the digests of some files differ as these files do
      assert _listed(path) == _listed(other)
      continue
    if name == _TRANSFORM:
      transformed, other = _transformed(output), _transformed(expected)
      allowed = TRANSFORM_TOLERANCE * np.maximum(1, np.abs(other) / 5)
      np.testing.assert_array_less(np.abs(transformed - other), allowed)
      continue
    compare: Callable = _BY_NAME.get(name, _other_bytes)
    with path.open("rb") as file, other.open("rb") as expected_file:
      difference = compare(file, expected_file, name, lambda _: None)
    assert difference is None, f"{name}: {difference}"


def _listed(completed: Path) -> list[str]:
  names = [json.loads(line)[0] for line in completed.read_text().splitlines()[1:-1]]
  return [name for name in names if not _is_local(name)]


def _is_local(name: str) -> bool:
  """Whether a file is of what nights on local disks alone keep for the next one."""
  return SCORED_FOLDER in name.split("/")


def _other_bytes(*_) -> str:
  return "other bytes"


def _names(folder: Path) -> list[str]:
  paths = (path for path in folder.rglob("*") if path.is_file() and path.name != LOG_FILE)
  return sorted(name for path in paths if not _is_local(name := path.relative_to(folder).as_posix()))


@functools.cache
def _transformed(folder: Path) -> np.ndarray:
  """float32 [1501 or so, D]: the training bottlenecks as the folder's own transform leaves them."""
  from beam_retrain.trainer.fit.data import load_transform
  from beam_retrain.transforms.core.records.schema import decode_bottleneck
  from beam_retrain.transforms.core.records.tfrecord import read_records

  vectors = []
  for path in sorted((folder / "records").glob("training-*")):
    with path.open("rb") as file:
      vectors += [decode_bottleneck(record).vector for record in read_records(file, path.name)]
  labels = (folder / "labels.txt").read_text().splitlines()
  return load_transform(str(folder / "transform"), labels, len(vectors[0]))(np.stack(vectors)).numpy()
