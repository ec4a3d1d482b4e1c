"""What beam-retrain 0.4 left on disk is still of use: read, reused, compared with, gone on with.

tests/fixtures/0.4 was written by 0.4; its README.md says how, and what is expected of each folder. A test gets a copy
with the same layout. Where an absolute path is part of what was asked for (a killed run goes on only where it was), the
copy is at the path at which 0.4 worked.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_retrain.pipelines.cli import main

_FIXTURES = Path(__file__).parents[1] / "fixtures" / "0.4"
_ROOT = Path("/tmp/beam-retrain-0.4")  # where 0.4 worked
_TIME = 1_600_000_000  # of all pictures, IDX files and of the trunk, as they were then
_GIVEN = ("pictures", "pictures_2", "pictures_bad", "idx", "idx_large", "trunk")
# The kind of trunk that any machine computes alike.
_EXACT = ("--precision=float32", "--runtime=tensorflow")
_FINISHED = (
  *("convert", "bottlenecks", "distorted", "model", "evaluation", "evaluation_reuse"),
  *("history/2026-01-01", "history/2026-01-02"),
  *("retrain/bottlenecks/beam_retrain/bottlenecks", "retrain/bottlenecks/beam_retrain/train"),
  *("retrain/bottlenecks/beam_retrain/evaluate", "labelled"),
)


def lay_out(root: Path) -> Path:
  """Copies all fixtures to a folder that is there and empty."""
  shutil.copytree(_FIXTURES, root, dirs_exist_ok=True)
  for name in _GIVEN:
    for path in [root / name, *(root / name).rglob("*")]:
      os.utime(path, (_TIME, _TIME))
  return root


@pytest.fixture
def old(tmp_path: Path) -> Path:
  """A copy of all fixtures, anywhere."""
  root = tmp_path / "0.4"
  root.mkdir()
  return lay_out(root)


@pytest.fixture
def in_place() -> Iterator[Path]:
  """A copy of all fixtures where 0.4 made them."""
  try:
    _ROOT.mkdir()  # fails where it is, or is somebody else's
  except FileExistsError:
    pytest.skip(f"{_ROOT} is there: remove it, or wait for the tests that use it")
  try:
    yield lay_out(_ROOT)
  finally:
    shutil.rmtree(_ROOT)


def run(*argv: object, code: int = 0) -> None:
  assert main([str(argument) for argument in argv]) == code


def same(first: Path, second: Path, capsys: pytest.CaptureFixture[str]) -> None:
  capsys.readouterr()
  found = main(["verify", "--same", str(first), str(second)])
  said = capsys.readouterr()
  assert found == 0, said.out + said.err


def stats(folder: Path) -> dict:
  found: dict = json.loads((folder / "stats.json").read_text())
  return found


def metrics(folder: Path) -> dict:
  found: dict = json.loads((folder / "metrics.json").read_text())
  return found


def rows(path: Path) -> list[dict[str, str]]:
  with path.open(newline="") as file:
    return list(csv.DictReader(file))


def close(text: str, other: str) -> bool:
  """Whether two cells are the same, or numbers that differ by rounding on another processor."""
  try:
    number, expected = float(text.rstrip("%")), float(other.rstrip("%"))
  except ValueError:
    return text == other
  return abs(number - expected) <= 1e-3 * max(1.0, abs(expected))


def check_predictions(new: Path, before: Path) -> None:
  """Checks that two predictions.csv say the same of the same pictures."""
  found, expected = rows(new / "predictions.csv"), rows(before / "predictions.csv")
  assert len(found) == len(expected) > 0
  for row, other in zip(found, expected, strict=True):
    assert row.keys() - {"trained_on"} == other.keys() - {"trained_on"}  # which later versions know of more folders
    assert all(close(row[name], other[name]) for name in other if name != "Execution time"), (row, other)


# --- each folder is read, and made again the same ---------------------------------------------------------------------


@pytest.mark.parametrize("name", _FINISHED)
def test_finished_folders_are_taken_for_finished(name, old, capsys):
  same(old / name, old / name, capsys)


def test_convert_writes_the_same(old, capsys):
  run("convert", f"--input={old}/idx", f"--output={old}/new", "--classes=3")
  same(old / "convert", old / "new", capsys)
  pictures = sorted(path.relative_to(old / "convert") for path in (old / "convert").rglob("*.jpg"))
  assert len(pictures) == 48
  for path in pictures:
    assert (old / "new" / path).read_bytes() == (old / "convert" / path).read_bytes()


def test_pictures_and_records_of_convert_are_an_input(old):
  given = (f"--input={old}/convert", f"--trunk={old}/trunk", "--validation_percentage=50")
  run("bottlenecks", *given, f"--output={old}/new", *_EXACT)
  counted = stats(old / "new")["splits"]
  assert {split: counts["outputs"] for split, counts in counted.items()} == {"training": 36, "testing": 12}


@pytest.mark.parametrize(
  ("name", "flags"),
  [
    ("bottlenecks", ()),
    ("distorted", ("--flip_left_right", "--random_brightness=20", "--distortion_copies=1")),
  ],
)
def test_bottlenecks_are_the_same(name, flags, old, capsys):
  given = (f"--input={old}/pictures", f"--trunk={old}/trunk", "--testing_percentage=30")
  run("bottlenecks", *given, f"--output={old}/new", *flags, *_EXACT)
  same(old / name, old / "new", capsys)
  for path in sorted((old / name / "records").glob("*.tfrecord")):
    assert path.read_bytes() == (old / "new" / "records" / path.name).read_bytes()


def test_a_trunk_in_an_old_folder_is_a_trunk(old):
  given = (f"--input={old}/pictures", f"--trunk={old}/bottlenecks/trunk", "--testing_percentage=30")
  run("bottlenecks", *given, f"--output={old}/new", *_EXACT)
  for path in sorted((old / "bottlenecks" / "records").glob("*.tfrecord")):
    assert path.read_bytes() == (old / "new" / "records" / path.name).read_bytes()


# --- bottlenecks are reused ------------------------------------------------------------------------------------------


def test_stored_bottlenecks_are_reused(old):
  given = (f"--input={old}/pictures_2", f"--trunk={old}/trunk", "--testing_percentage=30")
  run("bottlenecks", *given, f"--reuse={old}/bottlenecks", f"--output={old}/new", *_EXACT)
  # Of each label twelve pictures: one is gone, one was edited, two are new.
  assert stats(old / "new")["bottlenecks"] == {"computed": 9, "reused": 30}
  assert stats(old / "new")["outputs"] == 39


def test_variants_are_reused(old):
  given = (f"--input={old}/pictures", f"--trunk={old}/trunk", "--testing_percentage=30")
  distort = ("--flip_left_right", "--random_brightness=20", "--distortion_copies=1")
  run("bottlenecks", *given, *distort, f"--reuse={old}/distorted", f"--output={old}/new", *_EXACT)
  assert stats(old / "new")["bottlenecks"]["computed"] == 0
  for folder in ("records", "variants"):
    for path in sorted((old / "distorted" / folder).glob("*.tfrecord")):
      assert path.read_bytes() == (old / "new" / folder / path.name).read_bytes()


@pytest.mark.parametrize("store", ["bottlenecks", "evaluation_reuse", "history/2026-01-02"])
def test_evaluate_reuses_each_kind_of_store(store, old):
  given = (f"--model={old}/model", f"--input={old}/pictures_2")
  run("evaluate", *given, f"--reuse={old}/{store}", f"--output={old}/new")
  (kept,) = (old / "new" / "bottlenecks").iterdir()
  computed = 9 if store == "bottlenecks" else 0
  assert stats(kept)["bottlenecks"] == {"computed": computed, "reused": 39 - computed}
  check_predictions(old / "new", old / "evaluation_reuse")


def test_what_was_left_out_is_done_again(in_place):
  shutil.copyfile(in_place / "pictures" / "ant" / "1.jpg", in_place / "pictures_bad" / "ant" / "broken.png")
  flags = (f"--retry_from={in_place}/bottlenecks_bad", f"--output={in_place}/new")
  run("bottlenecks", *flags)
  assert stats(in_place / "new")["bottlenecks"]["reused"] >= 18
  assert stats(in_place / "new")["outputs"] == 19


# --- the model -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bottlenecks", "distorted"])
def test_stored_bottlenecks_are_trained_on(name, old):
  run("train", f"--input={old}/{name}", f"--output={old}/new", "--rounds=20")
  found, before = (metrics(old / folder) for folder in ("new", "model"))
  assert found.keys() == {*before, "label_counts"}
  # Trained by another optimizer since, with a stronger penalty: of so few images it is less sure.
  assert found["testing_accuracy"] >= before["testing_accuracy"]
  if name == "bottlenecks":
    assert found["validation_loss"] < 0.5


def test_an_old_model_predicts_the_same(old, capsys, monkeypatch):
  monkeypatch.chdir(old)
  capsys.readouterr()
  for name, flags in (("txt", ()), ("csv", ("--top=3", "--format=csv")), ("json", ("--top=2", "--format=json"))):
    run("predict", "--model=model", *flags, "pictures")
    found, expected = capsys.readouterr().out, (old / "predict" / f"predicted.{name}").read_text()
    check_same_words(found, expected, name)


def check_same_words(found: str, expected: str, name: str) -> None:
  if name == "txt":
    cells, others = ([line.split() for line in text.splitlines()] for text in (found, expected))
  elif name == "csv":
    cells, others = (list(csv.reader(io.StringIO(text))) for text in (found, expected))
  else:
    cells, others = ([[*map(str, flat(json.loads(line)))] for line in text.splitlines()] for text in (found, expected))
  assert len(cells) == len(others) > 0
  for row, other in zip(cells, others, strict=True):
    assert len(row) == len(other)
    assert all(map(close, row, other)), (row, other)


def flat(value: object) -> Iterator[object]:
  if isinstance(value, dict):
    for name, inner in value.items():
      yield name
      yield from flat(inner)
  elif isinstance(value, list):
    for inner in value:
      yield from flat(inner)
  else:
    yield value


def test_an_old_model_evaluates_the_same(old):
  run("evaluate", f"--model={old}/model", f"--input={old}/pictures", f"--output={old}/new")
  check_predictions(old / "new", old / "evaluation")
  for name in ("per_label.csv", "confusion_matrix.csv"):
    assert (old / "new" / name).read_bytes() == (old / "evaluation" / name).read_bytes()
  assert metrics(old / "new").keys() == metrics(old / "evaluation").keys()


def test_an_old_model_evaluates_old_bottlenecks(old):
  given = (f"--model={old}/model", f"--input={old}/bottlenecks", "--split=all")
  run("evaluate", *given, f"--output={old}/new")
  assert metrics(old / "new")["total"] == 36


def test_all_ways_to_the_scores_of_an_old_model_agree(old):
  run("verify", f"--model={old}/model", f"--input={old}/pictures")


def test_an_old_frozen_graph_labels_the_same(old):
  graph = (f"--graph={old}/retrain/retrained_graph.pb", f"--labels={old}/retrain/retrained_labels.txt")
  layers = ("--input_layer=Placeholder", "--output_layer=final_result")
  folder = (f"--directory_name={old}/pictures", "--process_mode=2", f"--output={old}/new")
  run("label_image", *graph, *layers, *folder)
  found, expected = (rows(old / name / "digit_prediction_file.csv") for name in ("new", "labelled"))
  assert len(found) == len(expected) == 36
  for row, other in zip(found, expected, strict=True):
    assert row["file_name"].removeprefix(str(old)) == other["file_name"].removeprefix(str(_ROOT))
    for name in ("actual_digit", "predicted_digit", "confidence", "prediction_accuracy"):
      assert close(row[name], other[name]), (row, other)


# --- nights ----------------------------------------------------------------------------------------------------------


def test_a_third_night_is_compared_with_the_second(old):
  night = (f"--model={old}/model", f"--input={old}/pictures_2", f"--history={old}/history", "--max_drop=0")
  run("reevaluate", *night, "--date=2026-01-03")
  found = metrics(old / "history" / "2026-01-03")
  assert found["bottlenecks"] == {"computed": 0, "reused": 39}
  assert Path(found["comparison"]["baseline"]).name == "2026-01-02"
  for name in ("regressed.csv", "fixed.csv", "new.csv", "gone.csv"):
    assert rows(old / "history" / "2026-01-03" / name) == []
  check_predictions(old / "history" / "2026-01-03", old / "history" / "2026-01-02")


def test_an_old_night_is_replaced_by_the_same(old):
  before = old / "before"
  shutil.copytree(old / "history" / "2026-01-02", before)
  night = (f"--model={old}/model", f"--input={old}/pictures_2", f"--history={old}/history", "--min_accuracy=0.5")
  run("reevaluate", *night, "--date=2026-01-02")
  again = old / "history" / "2026-01-02"
  check_predictions(again, before)
  for name in ("regressed.csv", "fixed.csv", "new.csv", "gone.csv"):
    found, expected = rows(again / name), rows(before / name)
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
      assert all(close(row[column], other[column]) for column in other)
  assert len(rows(again / "new.csv")) == 6
  assert len(rows(again / "gone.csv")) == 3


def test_an_old_evaluation_is_a_baseline(old):
  night = (f"--model={old}/model", f"--input={old}/pictures_2", f"--history={old}/nights", "--date=2026-01-02")
  run("reevaluate", *night, f"--baseline={old}/evaluation")
  assert len(rows(old / "nights" / "2026-01-02" / "new.csv")) == 6


# --- what was killed goes on ------------------------------------------------------------------------------------------


def test_finished_shards_of_a_killed_run_are_kept(in_place, capsys):
  folder = in_place / "killed" / "bottlenecks"
  finished = sorted((folder / "records").glob("*.tfrecord"))
  assert len(finished) == 1
  assert not (folder / "COMPLETED").exists()
  kept = {path: (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) for path in finished}
  given = (f"--input={in_place}/idx_large", f"--trunk={in_place}/trunk", "--validation_percentage=40", *_EXACT)
  run("bottlenecks", *given, f"--output={folder}")
  assert {path: (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) for path in finished} == kept
  # Of 1,170 pictures the 120 of the finished shard do not go through the trunk again.
  workers = json.loads((folder / "info.json").read_text())["execution"]["workers"]
  assert sum(worker["pictures"] for worker in workers.values()) == 1_050
  assert stats(folder)["inputs"] == 1_170
  run("bottlenecks", *given, f"--output={in_place}/whole")
  same(folder, in_place / "whole", capsys)
  assert not [path for path in folder.rglob("*") if ".tmp" in path.name]


def test_a_killed_training_of_the_default_of_its_time_is_begun_anew(in_place, capsys):
  run("train", f"--input={in_place}/bottlenecks", f"--output={in_place}/new")
  capsys.readouterr()
  run("train", f"--input={in_place}/bottlenecks", f"--output={in_place}/killed/model")
  assert "epoch 1/" in capsys.readouterr().out
  for name in ("head.npz", "metrics.json"):
    assert (in_place / "killed/model" / name).read_bytes() == (in_place / "new" / name).read_bytes()


# --- the commands that run others ------------------------------------------------------------------------------------


def test_retrain_reuses_its_bottlenecks(in_place):
  work = in_place / "retrain" / "bottlenecks" / "beam_retrain"
  before = in_place / "before"
  shutil.copytree(work, before)
  outputs = (
    f"--bottleneck_dir={in_place}/retrain/bottlenecks",
    f"--summaries_dir={in_place}/retrain/summaries",
    f"--checkpoint_path={in_place}/retrain/checkpoints/head",
    f"--output_graph={in_place}/retrain/retrained_graph.pb",
    f"--output_labels={in_place}/retrain/retrained_labels.txt",
  )
  given = (f"--image_dir={in_place}/pictures", f"--tfhub_module={in_place}/trunk", "--testing_percentage=30")
  run("retrain", *given, "--how_many_training_steps=60", *outputs, *_EXACT)
  # Kept whole by the same versions, assembled from what is there by others: the trunk does not run.
  was_kept = (work / "bottlenecks/info.json").read_bytes() == (before / "bottlenecks/info.json").read_bytes()
  assert was_kept or stats(work / "bottlenecks")["bottlenecks"] == {"computed": 0, "reused": 36}
  for path in sorted((before / "bottlenecks" / "records").glob("*.tfrecord")):
    assert path.read_bytes() == (work / "bottlenecks" / "records" / path.name).read_bytes()
  check_predictions(work / "evaluate", before / "evaluate")
