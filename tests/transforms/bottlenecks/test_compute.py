"""`ComputeBottlenecks` in a pipeline of one's own, beside what the command writes."""

from __future__ import annotations

import json
from pathlib import Path

import apache_beam as beam
import pytest

from beam_retrain.pipelines.bottlenecks import BottlenecksRequest, execute
from beam_retrain.transforms.bottlenecks.compute import ComputeBottlenecks
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.core.images.augment import Distortions
from beam_retrain.transforms.core.records.schema import TESTING, TRAINING
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.output_folder import find_faults
from beam_retrain.transforms.core.runtimes.trunk_info import TrunkInfo
from beam_retrain.transforms.sources.find import find_source

_PERCENTAGES = SplitPercentages(testing=30, validation=20)
_SAME = ("stats.json", "quarantine.csv", "leaks.csv")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, draw_digits) -> Path:
  folder = tmp_path_factory.mktemp("compute") / "images"
  draw_digits(folder, 400, lambda number, label: f"{label}/{number}.png")
  return folder


def _records(output: Path) -> dict[str, bytes]:
  return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*.tfrecord")}


def test_a_pipeline_of_ones_own_writes_what_the_command_does(images, made, tmp_path):
  request = BottlenecksRequest(
    input=str(images),
    output=str(tmp_path / "command"),
    trunk=str(made.data.parent / "trunk"),
    testing_percentage=30.0,
    validation_percentage=20.0,
    flip_left_right=True,
    distortion_copies=2,
  )
  assert execute(request) == 0
  info = json.loads((tmp_path / "command" / "info.json").read_text())
  source = find_source(str(images))
  compute = ComputeBottlenecks(
    ImageModelHandler(str(tmp_path / "command" / "trunk")),
    labels=source.labels,
    output=str(tmp_path / "own"),
    trunk=TrunkInfo.from_json(info["trunk"]),
    percentages=_PERCENTAGES,
    distortions=Distortions(flip_left_right=True, copies=2),
  )
  with beam.Pipeline(options=beam.options.pipeline_options.PipelineOptions(["--runner=FnApiRunner"])) as root:
    stats = root | "Plan" >> source.plan((TRAINING, TESTING), _PERCENTAGES) | compute
    _ = stats | beam.Map(lambda found: (tmp_path / "handed_on.json").write_text(found.to_json()))
  assert _records(tmp_path / "own") == _records(tmp_path / "command") != {}
  for name in _SAME:
    assert (tmp_path / "own" / name).read_bytes() == (tmp_path / "command" / name).read_bytes()
  assert json.loads((tmp_path / "handed_on.json").read_text()) == json.loads((tmp_path / "own/stats.json").read_text())
  assert (tmp_path / "own" / "transform" / "transform_fn" / "saved_model.pb").exists()
  assert not list(find_faults(str(tmp_path / "own"), with_data=True))


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"labels": []}, "at least one, each once"),
    ({"labels": ["a", "a"]}, "at least one, each once"),
    ({"max_bad_fraction": 1.5}, r"max_bad_fraction is 1.5, must be in 0\.\.1"),
  ],
)
def test_wrong_arguments_fail_where_they_are_given(change, words, tmp_path):
  arguments = {"labels": ["a", "b"], "output": str(tmp_path), "trunk": TrunkInfo("t", "0" * 64, 8, 4, "0" * 64)}
  with pytest.raises(ValueError, match=words):
    ComputeBottlenecks(ImageModelHandler("trunk"), **{**arguments, **change})
