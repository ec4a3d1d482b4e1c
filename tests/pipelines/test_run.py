"""The whole chain on real handwritten digits, as the quick start runs it."""

import itertools
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from beam_retrain.pipelines.bottlenecks import run as run_bottlenecks
from beam_retrain.pipelines.evaluate import EvaluateRequest
from beam_retrain.pipelines.run import RunRequest, run
from beam_retrain.pipelines.train import TrainRequest
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import TESTING
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.evaluation.output_diff import compare_outputs
from tests.helpers import read_json

_STAGES = ("convert", "bottlenecks", "train", "evaluate")


@pytest.fixture
def finished(quick_start, monkeypatch) -> tuple[Path, list[str]]:
  """The output, and what was typed for it in the folder that is the current one now."""
  monkeypatch.chdir(quick_start.folder)
  return quick_start.folder / "output" / "digits", ["--data=digits", "--trunk=bundled", "--output=output/digits"]


def completed(output: Path) -> dict[str, int]:
  return {stage: (output / stage / "COMPLETED").stat().st_mtime_ns for stage in _STAGES}


def test_digits_it_has_never_seen_are_told_apart(finished):
  output, _ = finished
  metrics = json.loads((output / "evaluate" / "metrics.json").read_text())
  assert metrics["total"] == 296
  assert metrics["accuracy"] >= 0.95
  assert (output / "train" / "retrained_labels.txt").read_text().splitlines() == [str(digit) for digit in range(10)]
  for name in ("predictions.csv", "per_label.csv", "confusion_matrix.csv"):
    assert (output / "evaluate" / name).read_text().count("\n") >= 11
  assert len(list((output / "convert" / "testing").rglob("*.jpg"))) == 296


def test_every_stage_passes_on_every_image(finished):
  output, _ = finished
  stats = [json.loads((output / stage / "stats.json").read_text()) for stage in ("convert", "bottlenecks")]
  assert stats[0]["splits"]["training"]["labels"] == stats[1]["splits"]["training"]["labels"]
  assert [entry["inputs"] for entry in stats] == [1797, 1797]
  assert [entry["quarantined"] for entry in stats] == [0, 0]


def test_what_is_finished_and_unchanged_is_kept(finished, capsys):
  output, arguments = finished
  before = completed(output)
  for cls in (TrainRequest, EvaluateRequest):
    folder = output / cls.command
    again = cls.parse([f"--config={folder / 'config.toml'}"]).to_argv()
    assert shlex.join(["beam-retrain", cls.command, *again]) == read_json(folder / "info.json")["command"]
  assert RunRequest.parse([f"--config={output / 'config.toml'}"]) == RunRequest.parse(arguments)
  more = ["--max_bad_fraction=0.5", "--direct_num_workers=1"]  # change nothing that comes out
  assert run([f"--config={output / 'config.toml'}", *more]) == 0
  after = completed(output)
  shown = capsys.readouterr().out
  for stage in ("convert", "bottlenecks", "train"):
    assert f"{stage}: finished and unchanged, kept" in shown
    assert after[stage] == before[stage]
  assert "accuracy" in shown


def test_what_is_damaged_is_made_again_and_all_else_is_kept(finished, tmp_path, capsys):
  output, arguments = finished
  whole = tmp_path / "whole"
  shutil.copytree(output, whole)
  for name in (
    "convert/testing/5/0.jpg",
    "bottlenecks/info.json",
    "bottlenecks/records/testing-00000-of-00001.tfrecord",
    "train/labels.txt",
    "train/saved_model/saved_model.pb",
  ):
    (output / name).write_bytes(b"")  # as after a power cut
  assert run(arguments) == 0
  told = capsys.readouterr().err
  for message in (
    "convert/testing/5/0.jpg has 0 bytes instead of",
    "bottlenecks/info.json has 0 bytes instead of",
    "train/labels.txt has 0 bytes instead of",
  ):
    assert message in told
  for stage in _STAGES[:3]:
    assert compare_outputs(str(whole / stage), str(output / stage), lambda number: None)[1] is None
  assert run(arguments) == 0
  assert "made again" not in capsys.readouterr().err


def test_what_has_changed_is_made_again_with_all_that_follows(finished, tmp_path, capsys):
  output, arguments = finished
  copy = tmp_path / "copy"
  shutil.copytree(output, copy)
  before = completed(copy)
  arguments = [*arguments[:2], f"--output={copy}"]
  # The files of the copy are others than those that the record of the original names.
  os.utime(copy / "data" / "t10k-labels-idx1-ubyte")
  assert run([*arguments, "--preset=retrain", "--training_steps=40"]) == 0
  assert "kept" not in capsys.readouterr().out
  after = completed(copy)
  assert all(after[stage] > before[stage] for stage in _STAGES)
  assert json.loads((copy / "train" / "info.json").read_text())["settings"]["preset"] == "retrain"


def test_class_folders_need_no_conversion_and_gates_decide_the_exit_code(finished, tmp_path, capsys):
  output, _ = finished
  arguments = [f"--data={output / 'convert' / 'training'}", "--trunk=bundled"]
  trained = ["--preset=retrain", "--training_steps=40", "--min_accuracy=1.0"]
  gate = [*trained, f"--output={tmp_path / 'out'}", "--label_errors"]
  assert run([*arguments, *gate]) == 1
  shown = capsys.readouterr().out
  assert "missed" in shown
  assert "likely wrong: see" in shown  # judged by the bottlenecks that are there
  assert not (tmp_path / "out" / "convert").exists()
  metrics = json.loads((tmp_path / "out" / "evaluate" / "metrics.json").read_text())
  # Of class folders without splits, those images are tested that were set aside: about a tenth.
  assert 100 <= metrics["total"] <= 200


def test_a_bad_image_stops_the_chain_with_3_until_it_is_accepted_for_all_stages(finished, tmp_path):
  output, _ = finished
  data = tmp_path / "data"
  for label in ("1", "3", "7"):
    shutil.copytree(output / "convert" / "training" / label, data / label)
  # Of the testing images, a tenth, it is ten times the share that it is of all.
  names = (f"3/empty-{number}.jpg" for number in itertools.count())
  (data / next(name for name in names if SplitPercentages().split_of(name) == TESTING)).write_bytes(b"")
  arguments = [f"--data={data}", "--trunk=bundled", f"--output={tmp_path / 'out'}"]
  assert run(arguments) == 3
  assert not (tmp_path / "out" / "train").exists()
  assert run([*arguments, "--max_bad_fraction=0.003"]) == 0
  assert "EMPTY" in (tmp_path / "out" / "bottlenecks" / "quarantine.csv").read_text()
  report = (tmp_path / "out" / "evaluate" / "report.html").read_text()
  assert re.search("<code>beam-retrain run --data=.* --max_bad_fraction=0.003</code>", report)  # as it was typed


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    (["--preset=retrain", "--epochs=3"], "--epochs belongs to --preset lbfgs"),
    (["--testing_percentage=120"], "testing 120 % and validation 10 % leave nothing to train on"),
    (["--trunk=no_such"], "--trunk no_such is neither a folder nor a TF Hub handle"),
    (["--trunk=keras:inception_v3"], "keras.applications has no 'inception_v3': try keras:InceptionV3"),
    (["--trunk=keras:Resnet50"], "keras.applications has no 'Resnet50': try keras:ResNet50"),
    (["--trunk=bundled", "--trunk_weights=w.h5"], "not for bundled: give --trunk keras:InceptionV3 with it, or leave"),
    (["--trunk=keras:InceptionV3", "--trunk_weights=none.h5"], "--trunk_weights none.h5: no such file"),
  ],
)
def test_what_a_later_stage_refuses_is_said_before_the_first(flags, said, small_images, tmp_path, capsys):
  with pytest.raises(InputError, match=said):
    run([f"--data={small_images}", f"--output={tmp_path / 'out'}", *flags])
  assert capsys.readouterr().out == ""
  assert not (tmp_path / "out").exists()


def test_an_output_among_the_images_is_refused_and_leaves_nothing_there(small_images, tmp_path):
  photos = shutil.copytree(small_images, tmp_path / "photos")
  before = sorted(photos.rglob("*"))
  for output in (photos, photos / "out"):
    with pytest.raises(InputError, match=f"{output} overlaps with --data {photos}: give a folder of its own"):
      run([f"--data={photos}", f"--output={output}"])
    assert sorted(photos.rglob("*")) == before


def test_images_that_cannot_be_used_are_refused_before_a_stage_is_announced(tmp_path, capsys):
  (tmp_path / "empty").mkdir()
  with pytest.raises(InputError, match="empty"):
    run([f"--data={tmp_path / 'empty'}", f"--output={tmp_path / 'out'}"])
  assert capsys.readouterr().out == ""


def test_after_one_moved_image_only_new_ones_go_through_the_trunk(finished, tmp_path, capsys):
  digits, _ = finished
  data, output = tmp_path / "data", tmp_path / "out"
  for label in ("3", "5"):
    (data / label).mkdir(parents=True)
    for image in sorted((digits / "convert" / "training" / label).iterdir())[:60]:
      shutil.copy(image, data / label)
  arguments = [f"--data={data}", "--trunk=bundled", f"--output={output}"]
  assert run(arguments) == 0
  min((data / "3").iterdir()).rename(data / "5" / "moved.jpg")
  shutil.copy(digits / "convert" / "testing" / "5" / "0.jpg", data / "5" / "new.jpg")
  assert run(arguments) == 0
  shown = capsys.readouterr().out
  assert f"120 of 121 bottlenecks reused from {output}/bottlenecks, 1 computed" in shown
  # Whatever names the output names the folder that it is in now.
  assert f"images through the trunk bundled, into {output}/bottlenecks\n" in shown
  for name in ("info.json", "config.toml"):
    assert "bottlenecks.next" not in (output / "bottlenecks" / name).read_text()
  assert run_bottlenecks([f"--config={output / 'bottlenecks' / 'config.toml'}"]) == 0
  assert sorted(os.listdir(output)) == ["bottlenecks", "config.toml", "evaluate", "run.json", "train"]
