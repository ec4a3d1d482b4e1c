"""The states of stages are those that 0.4 recorded in `run.json`: what it finished is kept."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from beam_retrain.pipelines.run import RunRequest
from beam_retrain.pipelines.stages import Chain
from beam_retrain.transforms.core.run.run_info import versions


def state_of(command: str, *words: str) -> str:
  """As 0.4 digested a stage's command line."""
  return hashlib.sha256(json.dumps([command, words, "after", versions()]).encode()).hexdigest()


@pytest.mark.parametrize("more", [[], ["--min_accuracy=0.5", "--max_bad_fraction=0.1", "--runner=FlinkRunner"]])
def test_stages_of_run(more):
  request = RunRequest.parse(["--data=digits", "--output=out/", *more])
  assert request.convert("out/data", 10).state("after") == state_of("convert", "--input=out/data", "--classes=10")
  bottlenecks = ("--input=out/convert", "--trunk=bundled")
  assert request.bottlenecks("out/convert").state("after") == state_of("bottlenecks", *bottlenecks)
  assert request.train().state("after") == state_of("train", "--input=out/bottlenecks")


def test_stages_of_run_with_every_flag():
  flags = ["--trunk=keras:InceptionV3", "--trunk_weights=w.h5", "--precision=int8", "--runtime=openvino"]
  request = RunRequest.parse([*flags, "--classes=3", "--preset=adam", "--output=/out"])
  assert request.convert("/data", 10).state("after") == state_of("convert", "--input=/data", "--classes=3")
  assert request.bottlenecks("/i").state("after") == state_of("bottlenecks", "--input=/i", *flags)
  assert request.train().state("after") == state_of("train", "--input=/out/bottlenecks", "--preset=adam")


def test_run_hands_on_how_images_are_split():
  request = RunRequest.parse(["--output=/out", "--testing_percentage=12.5", "--validation_percentage=20"])
  stage = request.bottlenecks("/i")
  assert (stage.request.testing_percentage, stage.request.validation_percentage) == (12.5, 20)
  words = ("--input=/i", "--trunk=bundled", "--testing_percentage=12.5", "--validation_percentage=20")
  assert stage.state("after") == state_of("bottlenecks", *words)


def test_a_killed_run_s_temporary_state_is_swept_and_other_files_stay(tmp_path):
  (tmp_path / "run.json.tmp-0123").write_text("{")
  (tmp_path / "notes.tmp-0123").write_text("mine")
  Chain(tmp_path, "run.json")
  assert os.listdir(tmp_path) == ["notes.tmp-0123"]
