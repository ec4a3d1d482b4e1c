"""The states of stages are those that 0.4 recorded in `run.json`: what it finished is kept."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from beam_retrain.pipelines.convert import ConvertRequest
from beam_retrain.pipelines.evaluate import EvaluateRequest
from beam_retrain.pipelines.requests.bottlenecks import BottlenecksRequest
from beam_retrain.pipelines.run import RunRequest
from beam_retrain.pipelines.stages import Chain
from beam_retrain.pipelines.train import TrainRequest
from beam_retrain.transforms.core.run.argparse_internals import flags_of
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
  request = RunRequest.parse([*flags, "--classes=3", "--preset=retrain", "--output=/out"])
  assert request.convert("/data", 10).state("after") == state_of("convert", "--input=/data", "--classes=3")
  assert request.bottlenecks("/i").state("after") == state_of("bottlenecks", "--input=/i", *flags)
  assert request.train().state("after") == state_of("train", "--input=/out/bottlenecks", "--preset=retrain")


def test_run_hands_on_how_images_are_split():
  request = RunRequest.parse(["--output=/out", "--testing_percentage=12.5", "--validation_percentage=20"])
  stage = request.bottlenecks("/i")
  assert (stage.request.testing_percentage, stage.request.validation_percentage) == (12.5, 20)
  words = ("--input=/i", "--trunk=bundled", "--testing_percentage=12.5", "--validation_percentage=20")
  assert stage.state("after") == state_of("bottlenecks", *words)


DECIDED = {
  "bottlenecks": {"--input", "--retry_from"},  # a run that is started again repeats what was repaired
  "train": {"--input", "--assert_accuracy_at_least"},  # --min_accuracy
  "evaluate": {"--model", "--input"},
  "convert": {"--input"},
}


@pytest.mark.parametrize("stage", [ConvertRequest, BottlenecksRequest, TrainRequest, EvaluateRequest])
def test_run_takes_every_flag_of_its_stages_but_those_that_it_decides(stage):
  assert {*flags_of(stage.make_parser())} - {*flags_of(RunRequest.make_parser())} == DECIDED[stage.command]


def test_each_stage_is_given_its_flags():
  flags = ["--max_pixels=900", "--batch_size=16", "--train_batch_size=7", "--rounds=3", "--learning_rate=0.1"]
  flags += ["--flip_left_right", "--random_crop=5", "--reuse=a", "--reuse=b", "--min_accuracy=0.5", "--split=all"]
  request = RunRequest.parse(["--output=/out", *flags, "--min_label_recall=0.4", "--formats=png,tfrecord", "--l2=0"])
  convert, bottlenecks, train, evaluate = (
    vars(stage.request)
    for stage in (request.convert("/data", 10), request.bottlenecks("/i"), request.train(), request.evaluate("/i"))
  )
  assert convert["formats"] == ("png", "tfrecord")
  assert convert["max_pixels"] == bottlenecks["max_pixels"] == evaluate["max_pixels"] == 900
  assert bottlenecks["batch_size"] == evaluate["batch_size"] == 16
  assert (bottlenecks["flip_left_right"], bottlenecks["random_crop"], bottlenecks["reuse"]) == (True, 5, ("a", "b"))
  assert (train["batch_size"], train["epochs"], train["learning_rate"], train["l2"]) == (7, 3, 0.1, 0)
  assert (evaluate["split"], evaluate["reuse"]) == ("all", ())
  assert evaluate["gates"] == (("min_accuracy", 0.5), ("min_label_recall", 0.4))


@pytest.mark.parametrize(("flag", "stage"), [("--max_pixels=9", "bottlenecks"), ("--seed=3", "train")])
def test_what_decides_an_output_is_in_its_state_and_what_does_not_is_not(flag, stage):
  def states(*flags: str) -> dict[str, str]:
    request = RunRequest.parse(["--output=/out", *flags])
    return {each.command: each.state("") for each in (request.bottlenecks("/i"), request.train())}

  before, after = states(), states(flag)
  assert [name for name in before if before[name] != after[name]] == [stage]
  assert states("--trunk_threads=1", "--reuse=a", "--max_bad_fraction=0.5", "--min_accuracy=0.1") == before


def test_a_killed_run_s_temporary_state_is_swept_and_other_files_stay(tmp_path):
  (tmp_path / "run.json.tmp-0123").write_text("{")
  (tmp_path / "notes.tmp-0123").write_text("mine")
  Chain(tmp_path, "run.json", "beam-retrain run")
  assert os.listdir(tmp_path) == ["notes.tmp-0123"]
