"""The evaluation job on real handwritten digits, with a model that the real stages made."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_retrain.pipelines import evaluate
from beam_retrain.pipelines.models.trained import Model, choose_splits
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics.label_stats import LabelCounts, Outcome, add, extract, per_label_csv
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.sources.find import find_source
from tests.helpers import without_list

TWO_PROCESSES = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]


def _evaluate(made: Any, data: Path, output: Path, *flags: str) -> int:
  return evaluate.run([f"--model={made.model}", f"--input={data}", f"--output={output}", *flags])


def _predictions(folder: Path) -> list[dict[str, str]]:
  with (folder / "predictions.csv").open(newline="") as file:
    return list(csv.DictReader(file))


def _without_time(folder: Path) -> list[dict[str, str]]:
  return [{name: cell for name, cell in row.items() if name != "Execution time"} for row in _predictions(folder)]


def _metrics(folder: Path) -> dict:
  return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def whole(made: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
  """All images evaluated in one process: two shards."""
  output = tmp_path_factory.mktemp("whole") / "evaluation"
  assert _evaluate(made, made.data, output) == 0
  return output


def test_names_are_compared_and_most_are_right(made: Any, whole: Path) -> None:
  rows = _predictions(whole)
  assert len(rows) == 1797
  assert {row["actual_digit"] for row in rows} == {name.replace("=cmd", "'=cmd") for name in made.names}
  for row in rows:
    assert row["file_name"].split("/")[0] == row["actual_digit"]
    assert row["prediction_accuracy"] == str(row["actual_digit"] == row["predicted_digit"])
    assert row["split"] == "all"
  right = sum(row["prediction_accuracy"] == "True" for row in rows)
  assert right > 0.85 * 1797
  metrics = _metrics(whole)
  assert (metrics["total"], metrics["correct"], metrics["accuracy"]) == (1797, right, right / 1797)
  assert metrics["quarantined"] == {"total": 0, "reasons": {}}
  assert metrics["gates"]["min_accuracy"]["state"] == "none set"
  assert 0 < metrics["log_loss"] < 2
  assert metrics["accuracy"] < metrics["top_3_accuracy"] <= 1
  assert metrics["mean_confidence_wrong"] < metrics["mean_confidence_right"]


def test_the_folder_is_finished_and_holds_nothing_else(whole: Path) -> None:
  assert sorted(path.name for path in whole.iterdir()) == [
    "COMPLETED",
    "config.toml",
    "confusion_matrix.csv",
    "info.json",
    "labels.txt",
    "metrics.json",
    "per_label.csv",
    "predictions.csv",
    "quarantine.csv",
    "report.html",
    "stats.json",
    "suspicious_labels.csv",
  ]
  stats = json.loads((whole / "stats.json").read_text())
  assert stats["splits"]["all"]["shards"] == 2
  assert (stats["inputs"], stats["outputs"]) == (1797, 1797)


def test_one_process_two_processes_and_the_twin_say_the_same(made: Any, whole: Path, tmp_path: Path) -> None:
  output = tmp_path / "two"
  assert _evaluate(made, made.data, output, *TWO_PROCESSES) == 0
  for name in ("per_label.csv", "confusion_matrix.csv", "stats.json", "quarantine.csv"):
    assert (output / name).read_bytes() == (whole / name).read_bytes(), name
  ours, theirs = _metrics(output), _metrics(whole)
  for folder, metrics in ((output, ours), (whole, theirs)):
    of_predictions = hashlib.sha256((folder / "predictions.csv").read_bytes()).hexdigest()
    assert metrics.pop("predictions_sha256") == of_predictions
  assert ours == theirs
  assert _without_time(output) == _without_time(whole)
  times = {row["Execution time"] for folder in (output, whole) for row in _predictions(folder)}
  assert len(times) == 2  # one per file, and the two runs did not start in the same second

  labels = (made.model / "labels.txt").read_text().splitlines()
  escaped = {"'=cmd": "=cmd"}
  counts = LabelCounts()
  for row in _predictions(whole):
    actual, predicted = (escaped.get(row[name], row[name]) for name in ("actual_digit", "predicted_digit"))
    add(counts, Outcome(actual, predicted), row["trained_on"] == "True")
  assert per_label_csv(extract(counts, labels)).encode() == (whole / "per_label.csv").read_bytes()


def test_stored_bottlenecks_give_what_the_images_give(made: Any, tmp_path: Path, capsys) -> None:
  assert _evaluate(made, made.data, tmp_path / "images", "--split=testing") == 0
  assert _evaluate(made, made.bottlenecks, tmp_path / "stored") == 0
  assert "the testing images of" in capsys.readouterr().out
  images, stored = _predictions(tmp_path / "images"), _predictions(tmp_path / "stored")
  assert 450 < len(images) < 630  # the 30 % that the model was not trained on
  for name in ("file_name", "actual_digit", "predicted_digit", "sha256", "split"):
    assert [row[name] for row in stored] == [row[name] for row in images], name
  confidences = [np.array([float(row["confidence"]) for row in rows]) for rows in (images, stored)]
  np.testing.assert_allclose(*confidences, atol=2e-3)  # percent; the batches differ
  assert (tmp_path / "images/per_label.csv").read_bytes() == (tmp_path / "stored/per_label.csv").read_bytes()


def test_all_of_the_stored_bottlenecks(made: Any, whole: Path, tmp_path: Path) -> None:
  assert _evaluate(made, made.bottlenecks, tmp_path / "stored", "--split=all", "--batch_size=100") == 0
  assert {row["split"] for row in _predictions(tmp_path / "stored")} == {"training", "testing"}
  assert (tmp_path / "stored/per_label.csv").read_bytes() == (whole / "per_label.csv").read_bytes()


def test_bad_files_are_named_and_a_run_goes_on_with_what_is_finished(made: Any, tmp_path: Path, capsys) -> None:
  data = tmp_path / "data"
  shutil.copytree(made.data, data)
  good = (data / "ant/1.png").read_bytes()
  (data / "ant/empty.png").write_bytes(b"")
  (data / "ant/truncated.png").write_bytes(good[: len(good) // 2])
  (data / "bee/=1+1.png").write_bytes(b"not an image")
  output, parts = tmp_path / "evaluation", tmp_path / "evaluation" / ".parts"

  assert _evaluate(made, data, output) == 3
  out, error = capsys.readouterr()
  assert out.splitlines()[1].startswith("UNFINISHED: 3 of 1,800 inputs are bad; ")
  assert "3 of 1800 inputs are bad" in error
  with (output / "quarantine.csv").open(newline="") as file:
    quarantined = {row["file_name"]: (row["reason"], row["split"]) for row in csv.DictReader(file)}
  assert quarantined == {
    "ant/empty.png": ("EMPTY", "all"),
    "ant/truncated.png": ("TRUNCATED", "all"),
    "bee/=1+1.png": ("NOT_AN_IMAGE", "all"),
  }
  assert len(_predictions(output)) == 1797
  metrics = _metrics(output)
  assert metrics["bad_inputs"] == {"quarantined": 3, "inputs": 1800, "allowed": 0.0, "too_many": True}
  assert metrics["quarantined"] == {"total": 3, "reasons": {"EMPTY": 1, "NOT_AN_IMAGE": 1, "TRUNCATED": 1}}
  assert not (output / "COMPLETED").exists()

  # As a killed run leaves it: one shard begun, one finished. This one gets a mark, to see that it is not worked again.
  begun, finished = parts / "all-00001-of-00002.csv", parts / "all-00000-of-00002.csv"
  begun.rename(f"{begun}.tmp-1")
  (parts / ".shards" / f"{begun.name}.json").unlink()
  first, *others = finished.read_bytes().splitlines(keepends=True)
  marked = b"".join([first.replace(b",True,", b",Mark,").replace(b",False,", b",Mark,"), *others])
  finished.write_bytes(marked)
  report_path = parts / ".shards" / f"{finished.name}.json"
  report = json.loads(report_path.read_text())
  report_path.write_text(json.dumps({**report, "sha256": hashlib.sha256(marked).hexdigest()}))
  before = _without_time(output)
  (output / "predictions.csv").unlink()

  assert _evaluate(made, data, output, "--max_bad_fraction=0.01") == 0
  assert "3 of 1800 inputs left out" in capsys.readouterr().out
  assert _without_time(output) == [{**before[0], "prediction_accuracy": "Mark"}, *before[1:]]
  sha256 = hashlib.sha256((output / "predictions.csv").read_bytes()).hexdigest()
  bad = {"quarantined": 3, "inputs": 1800, "allowed": 0.01, "too_many": False}
  assert _metrics(output) == {**metrics, "predictions_sha256": sha256, "bad_inputs": bad}
  assert (output / "COMPLETED").exists()
  assert not parts.exists()


def test_a_file_name_that_is_a_formula_is_escaped(made: Any, tmp_path: Path) -> None:
  for number, label in enumerate(("=cmd", "ant")):
    folder = tmp_path / "data" / label
    folder.mkdir(parents=True)
    shutil.copy(made.data / label / ("1.png" if label == "ant" else "2.png"), folder / f"@{number}.png")
  assert _evaluate(made, tmp_path / "data", tmp_path / "evaluation") == 0
  assert [row["file_name"] for row in _predictions(tmp_path / "evaluation")] == ["'=cmd/@0.png", "ant/@1.png"]
  # Labels that no image has are there nevertheless.
  assert _metrics(tmp_path / "evaluation")["per_label"]["yak"]["accuracy"] is None


@pytest.mark.parametrize(("least", "code", "state"), [("0.5", 0, "passed"), ("0.999", 1, "missed")])
def test_the_gate_decides_the_exit_code(made: Any, tmp_path: Path, least: str, code: int, state: str, capsys) -> None:
  output = tmp_path / "evaluation"
  assert _evaluate(made, made.bottlenecks, output, f"--min_accuracy={least}") == code
  gate = _metrics(output)["gates"]["min_accuracy"]
  assert (gate["state"], gate["threshold"], gate["value"]) == (state, float(least), _metrics(output)["accuracy"])
  assert (output / "COMPLETED").exists()
  lines = capsys.readouterr().out.splitlines()
  assert re.fullmatch(r"Accuracy \d\d\.\d % \(\d\d\d of \d\d\d; 95 % interval \d\d\.\d to \d\d\.\d\)", lines[0])
  assert re.match(rf"{state.upper()}: .*accuracy \d\d\.\d\d % \(\d\d\d of \d\d\d right; 95 % interval ", lines[1])
  assert any(line.startswith(f"gate min_accuracy {100 * float(least):g} %: {state}") for line in lines)
  assert lines[-1] == f"report: {output}/report.html"  # stored bottlenecks name no image to predict


def test_auto_takes_the_testing_folder_where_there_is_one(made: Any, draw_digits: Callable, tmp_path: Path) -> None:
  draw_digits(
    tmp_path / "data", 60, lambda number, label: f"{('training', 'testing')[number % 2]}/{label}/{number}.png"
  )
  assert _evaluate(made, tmp_path / "data", tmp_path / "evaluation") == 0
  rows = _predictions(tmp_path / "evaluation")
  assert sorted(int(Path(row["file_name"]).stem) for row in rows) == list(range(1, 60, 2))
  assert {row["split"] for row in rows} == {"testing"}

  shutil.rmtree(tmp_path / "data/testing")
  with pytest.raises(InputError, match="has no folder testing with class folders"):
    _evaluate(made, tmp_path / "data", tmp_path / "evaluation")
  assert (tmp_path / "evaluation/COMPLETED").exists()  # told before the earlier output was touched

  for folder in (tmp_path / "data/training").iterdir():
    (tmp_path / "data/testing" / folder.name).mkdir(parents=True)
  with pytest.raises(InputError, match="no images of the split testing: give another --input or --split"):
    _evaluate(made, tmp_path / "data", tmp_path / "evaluation")
  assert not (tmp_path / "evaluation/COMPLETED").exists()


def test_a_label_that_the_model_lacks_is_refused_before_the_output_is_touched(
  made: Any, draw_digits: Callable, tmp_path: Path
) -> None:
  draw_digits(tmp_path / "data", 30, lambda number, label: f"{label}/{number}.png")
  (tmp_path / "data/yeti").mkdir()
  with pytest.raises(InputError, match=r"labels differ: .* has 'yeti', the model in .* knows '=cmd', 'ant'"):
    _evaluate(made, tmp_path / "data", tmp_path / "evaluation")
  assert not (tmp_path / "evaluation").exists()


def test_bottlenecks_of_another_trunk_are_refused(made: Any, tmp_path: Path) -> None:
  other = tmp_path / "bottlenecks"
  shutil.copytree(made.bottlenecks, other)
  info = json.loads((other / "info.json").read_text())
  info["trunk"]["fingerprint"] = "0" * 64
  (other / "info.json").write_text(json.dumps(info))
  without_list(other)
  with pytest.raises(InputError, match=r"of another trunk \(.*, 000000000000\) than the model"):
    _evaluate(made, other, tmp_path / "evaluation")


def test_an_unfinished_model_is_refused(made: Any, tmp_path: Path) -> None:
  model = tmp_path / "model"
  shutil.copytree(made.model, model)
  (model / "COMPLETED").unlink()
  with pytest.raises(InputError, match="is not finished"):
    evaluate.run([f"--model={model}", f"--input={made.data}", f"--output={tmp_path / 'evaluation'}"])


@pytest.mark.parametrize(
  ("flag", "sentence"),
  [
    ("--batch_size=0", "--batch_size: 0 is not at least 1"),
    ("--min_accuracy=98", "98 is not between 0 and 1"),
    ("--min_acuracy=0.9", "the nearest flag is --min_accuracy"),
    ("--split=validation", "invalid choice: 'validation'"),
    ("--model=", "^--model is empty: give a folder[.]$"),
    ("--input=", "^--input is empty: give a folder[.]$"),
    ("--output=", "^--output is empty: give a folder[.]$"),
    ("--reuse=", "^--reuse is empty: give a folder[.]$"),
    ("--manifest=", "^--manifest is empty: give a file[.]$"),
  ],
)
def test_wrong_flags(made: Any, tmp_path: Path, flag: str, sentence: str) -> None:
  with pytest.raises(InputError, match=sentence):
    _evaluate(made, made.data, tmp_path / "evaluation", flag)


def test_split_testing_of_plain_folders_is_what_was_set_aside(made: Any) -> None:
  splits, percentages = choose_splits(find_source(str(made.data)), "testing", SplitPercentages(testing=30.0))
  assert splits == ("testing",)
  assert percentages is not None
  assert percentages.testing == 30.0


def test_split_testing_is_refused_where_the_model_s_own_images_said_which_are_for_testing(made: Any) -> None:
  model = Model(str(made.model))
  assert model.info.has_splits is False
  choose_splits(find_source(str(made.data)), "testing", model.percentages, [model])
  model.info = dataclasses.replace(model.info, has_splits=True)
  with pytest.raises(InputError, match="was trained on: give the images with their splits, or"):
    choose_splits(find_source(str(made.data)), "testing", model.percentages, [model])
  assert choose_splits(find_source(str(made.data)), "all", model.percentages, [model]) == (("all",), None)


def test_a_confusion_matrix_has_a_line_per_label(made: Any, whole: Path) -> None:
  text = (whole / "metrics.json").read_text()
  first, second, *_ = _metrics(whole)["confusion_matrix"]
  assert f'\n  "confusion_matrix": [\n    {json.dumps(first)},\n    {json.dumps(second)},\n' in text
  assert text.startswith('{\n  "splits": [\n    "all"\n  ],\n')


@pytest.mark.parametrize("file", ["head.npz", "labels.txt", "saved_model/saved_model.pb"])
def test_a_model_s_fingerprint_is_of_all_that_is_read_of_it(made: Any, tmp_path: Path, file: str) -> None:
  folder = without_list(Path(shutil.copytree(made.model, tmp_path / "model")))
  model, original = Model(str(folder)), Model(str(made.model)).fingerprint
  assert model.fingerprint == original
  (folder / file).write_bytes((folder / file).read_bytes() + b"x")
  del model.fingerprint  # which is kept
  assert model.fingerprint != original


def test_the_report_shows_the_images_that_were_wrong(made: Any, whole: Path) -> None:
  report = (whole / "report.html").read_text()
  wrong = [row for row in _predictions(whole) if row["prediction_accuracy"] == "False"]
  assert 10 < len(wrong) < 300
  assert all(row["file_name"] in report for row in wrong[:5])
  assert report.count("data:image/png;base64,") >= 10
  assert all(f'<h2 id="{section}">' in report for section in ("map", "training"))
  assert report.count("<circle") + report.count("<path ") >= 1_000
  with (whole / "suspicious_labels.csv").open(newline="") as file:
    suspicious = list(csv.DictReader(file))
  expected = [row for row in wrong if float(row["confidence"]) >= 95]
  expected.sort(key=lambda row: (-float(row["confidence"]), row["file_name"]))
  assert [row["file_name"] for row in suspicious] == [row["file_name"] for row in expected]
  assert _metrics(whole)["suspicious_labels"] == {"threshold": 0.95, "pictures": len(expected)}


def test_a_recall_gate_names_the_labels_that_miss_it(made: Any, tmp_path: Path, capsys) -> None:
  assert _evaluate(made, made.bottlenecks, tmp_path / "evaluation", "--min_label_recall=0.999") == 1
  gate = _metrics(tmp_path / "evaluation")["gates"]["min_label_recall"]
  recalls = {label: row["recall"] for label, row in _metrics(tmp_path / "evaluation")["per_label"].items()}
  assert gate["failing"] == [label for label, recall in recalls.items() if recall < 0.999]
  assert gate["value"] == min(recalls.values())
  assert "\nMISSED: min_label_recall 99.9 %: recall of " in capsys.readouterr().out


def test_reused_bottlenecks_give_the_same_and_are_kept(made: Any, whole: Path, tmp_path: Path) -> None:
  first, second = tmp_path / "first", tmp_path / "second"
  assert _evaluate(made, made.data, first, f"--reuse={made.bottlenecks}") == 0
  assert (first / "per_label.csv").read_bytes() == (whole / "per_label.csv").read_bytes()
  (store,) = (first / "bottlenecks").iterdir()
  assert json.loads((store / "stats.json").read_text())["bottlenecks"] == {"computed": 0, "reused": 1797}
  assert _evaluate(made, made.data, second, f"--reuse={first}") == 0
  assert _without_time(second) == _without_time(first)
  assert not (store / ".fresh").exists()


def test_bottlenecks_are_not_reused_for_bottlenecks(made: Any, tmp_path: Path) -> None:
  with pytest.raises(InputError, match="--reuse applies to images"):
    _evaluate(made, made.bottlenecks, tmp_path / "evaluation", f"--reuse={made.bottlenecks}")


def test_a_model_without_a_head_is_told_before_the_output_is_touched(made: Any, tmp_path: Path) -> None:
  model = without_list(Path(shutil.copytree(made.model, tmp_path / "model")))
  (model / "head.npz").unlink()
  flags = [f"--model={model}", f"--input={made.data}", f"--reuse={made.bottlenecks}"]
  sentence = r"has no head\.npz, which `beam-retrain train` writes since 0\.2\.0: train again\.$"
  with pytest.raises(InputError, match=sentence):
    evaluate.run([*flags, f"--output={tmp_path / 'evaluation'}"])
  assert not (tmp_path / "evaluation").exists()


def test_slices(made: Any, tmp_path: Path) -> None:
  manifest = tmp_path / "manifest.csv"
  names = sorted(path.relative_to(made.data).as_posix() for path in made.data.rglob("*.png"))
  writers = {name: ("ann", "bob")[number % 3 == 0] for number, name in enumerate(names)}
  lines = [f"{name},{writer}\n" for name, writer in writers.items()]
  manifest.write_text("".join(["file_name,writer\n", *lines]))
  assert _evaluate(made, made.data, tmp_path / "evaluation", f"--manifest={manifest}") == 0
  found = _metrics(tmp_path / "evaluation")["slices"]["writer"]
  right = {
    row["file_name"].replace("'", ""): row["prediction_accuracy"] == "True"
    for row in _predictions(tmp_path / "evaluation")
  }
  for writer in ("ann", "bob"):
    of_writer = [right[name] for name, whose in writers.items() if whose == writer]
    assert (found[writer]["pictures"], found[writer]["correct"]) == (len(of_writer), sum(of_writer))
  assert (tmp_path / "evaluation/slices.csv").exists()


def test_small_slices_are_told_together(made: Any, tmp_path: Path) -> None:
  manifest = tmp_path / "manifest.csv"
  names = sorted(path.relative_to(made.data).as_posix() for path in made.data.rglob("*.png"))
  lines = [f"{name},{number % 1000}\n" for number, name in enumerate(names[:1500])]
  manifest.write_text("".join(["file_name,device\n", *lines]))
  assert _evaluate(made, made.data, tmp_path / "evaluation", f"--manifest={manifest}") == 0
  beside = _metrics(tmp_path / "evaluation")["slices_beside"]["device"]
  assert (beside["small"]["slices"], beside["small"]["pictures"]) == (1000, 1500)
  assert beside["unlisted"]["pictures"] == 297
