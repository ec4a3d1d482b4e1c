"""Accuracy on images that the model was not trained on, which comes first, beside that on all."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from beam_retrain.pipelines import evaluate
from beam_retrain.pipelines.reevaluate import command as reevaluate
from beam_retrain.trainer import task
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.example import replace_features
from beam_retrain.transforms.core.records.schema import SHA256, describe_bottleneck
from beam_retrain.transforms.core.records.tfrecord import frame, read_records
from beam_retrain.transforms.core.records.trained_on import TrainedOn
from beam_retrain.transforms.core.run.output_folder import complete_folder
from tests.helpers import read_json

OLD = Path(__file__).parents[1] / "fixtures" / "0.4"
NIGHT = "2026-03-01"


@pytest.fixture(params=["evaluate", "reevaluate"])
def run(request, tmp_path: Path) -> Callable[..., Path]:
  """Scores a folder by one command or the other; returns what it wrote."""

  def score(model: Path, data: Path, *flags: str, code: int = 0) -> Path:
    given = [f"--model={model}", f"--input={data}", *flags]
    if request.param == "evaluate":
      assert evaluate.run([*given, f"--output={tmp_path / 'evaluation'}"]) == code
      return tmp_path / "evaluation"
    assert reevaluate.run([*given, f"--history={tmp_path / 'nights'}", f"--date={NIGHT}"]) == code
    return tmp_path / "nights" / NIGHT

  return score


@pytest.fixture(scope="module")
def splits(made: Any) -> dict[str, bool]:
  """Key of each image -> whether the model was trained on it, by the records' files."""
  return {
    key: path.name.startswith("training")
    for path in sorted((made.bottlenecks / "records").glob("*.tfrecord"))
    for key in _keys(path)
  }


def _keys(path: Path) -> Iterator[str]:
  with path.open("rb") as file:
    for record in read_records(file, str(path)):
      yield describe_bottleneck(record).key


def _part(made: Any, folder: Path, keys: Sequence[str]) -> Path:
  for key in keys:
    (folder / key).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(made.data / key, folder / key)
  return folder


def _rows(folder: Path) -> list[dict[str, str]]:
  with (folder / "predictions.csv").open(newline="") as file:
    return list(csv.DictReader(file))


def test_of_all_images_those_not_trained_on_come_first(made, splits, run, capsys):
  folder = run(made.model, made.data, "--min_accuracy=0.999", "--min_label_recall=0.1", code=1)
  rows, metrics = _rows(folder), read_json(folder / "metrics.json")
  assert {row["file_name"]: row["trained_on"] for row in rows} == {
    key.replace("=cmd", "'=cmd"): str(trained) for key, trained in splits.items()
  }
  new = [row["prediction_accuracy"] == "True" for row in rows if row["trained_on"] == "False"]
  unseen, seen = metrics["unseen"], sum(splits.values())
  assert (metrics["total"], metrics["trained_on"], unseen["total"]) == (1797, seen, len(new))
  assert (unseen["correct"], unseen["accuracy"]) == (sum(new), sum(new) / len(new))
  assert unseen["accuracy"] < metrics["accuracy"]
  per_label = unseen["per_label"].values()
  assert (sum(row["total"] for row in per_label), sum(row["correct"] for row in per_label)) == (len(new), sum(new))

  gates = {name: metrics["gates"][name]["value"] for name in ("min_accuracy", "min_label_recall")}
  assert gates == {"min_accuracy": unseen["accuracy"], "min_label_recall": min(row["accuracy"] for row in per_label)}

  said = capsys.readouterr().out.splitlines()
  low, high = (100 * bound for bound in unseen["accuracy_interval_95"])
  rates = [f"{100 * figures['accuracy']:.2f} %" for figures in (metrics, unseen)]
  verdict = next(line for line in said if line.startswith("MISSED"))
  assert verdict.startswith(
    f"MISSED: min_accuracy 99.9 %: accuracy {rates[1]} on images not trained on"
    f" ({sum(new)} of {len(new)} right; 95 % interval {low:.1f} to {high:.1f}),"
    f" {rates[0]} on all 1,797 ({seen:,} trained on)"
  )
  if "night" not in metrics:
    accuracy = f"Accuracy {100 * unseen['accuracy']:.1f} % on images not trained on ({sum(new)} of {len(new)};"
    assert said[0].startswith(accuracy)
  assert f"; {rates[0]} on all 1,797, of which the model was trained on {seen:,}" in said[said.index(verdict) + 1]
  header = next(line for line in said if line.startswith("label "))
  assert header.split("f1")[1].split() == ["not", "trained", "on", "accuracy", "most", "confused", "with"]
  report = (folder / "report.html").read_text()
  assert "</strong> accuracy on images that the model was not trained on</p>" in report
  assert f"on all 1,797 images: the model was trained on {seen:,} of them." in report


@pytest.mark.parametrize("run", ["evaluate"], indirect=True)
def test_where_all_were_trained_on_the_first_line_says_so(made, splits, run, tmp_path, capsys):
  data = _part(made, tmp_path / "data", [key for key in splits if splits[key]][:200])
  folder = run(made.model, data, "--min_accuracy=0.5")
  metrics = read_json(folder / "metrics.json")
  assert metrics["trained_on"] == metrics["total"] > 50
  assert metrics["unseen"] | {"per_label": {}} == {
    **{"total": 0, "correct": 0, "accuracy": None, "accuracy_interval_95": None, "per_label": {}}
  }
  assert ", all of which the model was trained on" in capsys.readouterr().out
  assert metrics["gates"]["min_accuracy"]["value"] == metrics["accuracy"]
  assert "The model was trained on all of these images." in (folder / "report.html").read_text()


@pytest.mark.parametrize("run", ["evaluate"], indirect=True)
def test_where_none_was_trained_on_there_is_one_figure(made, run, capsys):
  folder = run(made.model, made.data, "--split=testing")
  metrics = read_json(folder / "metrics.json")
  assert metrics["trained_on"] == 0
  assert metrics["unseen"]["accuracy"] == metrics["accuracy"]
  assert ", none of which the model was trained on" in capsys.readouterr().out


def test_a_model_of_0_4_cannot_know(run, capsys):
  folder = run(OLD / "model", OLD / "pictures")
  metrics = read_json(folder / "metrics.json")
  assert not {"trained_on", "unseen"} & metrics.keys()
  assert "trained_on" not in _rows(folder)[0]
  said = capsys.readouterr().out.splitlines()
  assert any(line.endswith("model does not say what it was trained on: train it again to know") for line in said)
  assert "It is not known which of these images the model was trained on." in (folder / "report.html").read_text()


def test_a_candidate_has_a_digest_of_its_own(made, tmp_path, capsys):
  """The same heads, of which one says nothing of its training images."""
  shutil.copytree(made.model, tmp_path / "candidate")
  (tmp_path / "candidate" / "trained_on.bin").unlink()
  complete_folder(str(tmp_path / "candidate"))
  flags = [f"--model={made.model}", f"--candidate={tmp_path / 'candidate'}", f"--input={made.data}"]
  assert reevaluate.run([*flags, f"--history={tmp_path / 'nights'}", f"--date={NIGHT}"]) == 0
  metrics = read_json(tmp_path / "nights" / NIGHT / "metrics.json")
  assert metrics["trained_on"] > 1_000
  assert "trained_on" not in metrics["candidate"]
  first = capsys.readouterr().out.splitlines()[0]
  assert " on all 1,797 (" in first
  assert "; candidate: accuracy " in first
  assert "; unknown how many trained on)" in first


def test_a_drop_is_that_on_images_not_trained_on(made, splits, tmp_path, capsys):
  """Some images of either kind are turned into others between two nights, which is noticed where it matters."""
  data = tmp_path / "data"
  shutil.copytree(made.data, data)
  flags = [f"--model={made.model}", f"--input={data}", f"--history={tmp_path / 'nights'}"]
  assert reevaluate.run([*flags, "--date=2026-03-01"]) == 0
  unseen = sum(not trained for trained in splits.values())
  gone = [key for key, trained in splits.items() if not trained and key.startswith("bee/")]
  for key in gone:  # another digit, also one that it was not trained on
    other = next(one for one, trained in splits.items() if not trained and one.startswith("cow/"))
    shutil.copyfile(made.data / other, data / key)
  assert reevaluate.run([*flags, "--date=2026-03-02", "--max_drop=0.05"]) == 1
  comparison = read_json(tmp_path / "nights" / "2026-03-02" / "metrics.json")["comparison"]
  assert (comparison["paired"], comparison["unseen_paired"]) == (1797, unseen)
  lost = comparison["unseen_baseline_correct"] - comparison["unseen_correct"]
  assert comparison["drop"] == lost / unseen > 0.05 > lost / 1797
  assert f"MISSED: max_drop 5 %: accuracy on the {unseen} images not trained on " in capsys.readouterr().out


def test_the_bytes_decide_not_the_names(made, splits, tmp_path):
  """A training image under another name is known, and an edited one is not."""
  key = next(key for key, trained in splits.items() if trained)
  label = key.split("/")[0]
  (tmp_path / "data" / label).mkdir(parents=True)
  data = (made.data / key).read_bytes()
  (tmp_path / "data" / label / "renamed.png").write_bytes(data)
  (tmp_path / "data" / label / "edited.png").write_bytes(data + b"\n")
  flags = [f"--model={made.model}", f"--input={tmp_path / 'data'}", f"--output={tmp_path / 'out'}"]
  assert evaluate.run(flags) == 0
  found = {Path(row["file_name"]).name: row["trained_on"] for row in _rows(tmp_path / "out")}
  assert found == {"renamed.png": "True", "edited.png": "False"}


def test_stored_bottlenecks_know_their_images(made, splits, tmp_path):
  flags = [f"--model={made.model}", f"--input={made.bottlenecks}", "--split=all"]
  assert evaluate.run([*flags, f"--output={tmp_path / 'out'}"]) == 0
  assert read_json(tmp_path / "out" / "metrics.json")["trained_on"] == sum(splits.values())


def test_bottlenecks_without_the_images_digests(made, tmp_path, capsys):
  stored = tmp_path / "bottlenecks"
  shutil.copytree(made.bottlenecks, stored)
  for path in (stored / "records").glob("*.tfrecord"):
    with path.open("rb") as file:
      records = [replace_features(record, {SHA256: ""}) for record in read_records(file, str(path))]
    path.write_bytes(b"".join(map(frame, records)))
  complete_folder(str(stored))
  flags = [f"--model={made.model}", f"--input={stored}", "--split=all"]
  assert evaluate.run([*flags, f"--output={tmp_path / 'out'}"]) == 0
  assert "trained_on" not in read_json(tmp_path / "out" / "metrics.json")
  said = capsys.readouterr().out.splitlines()
  assert f"bottlenecks in {stored} have no SHA-256: make them again to know" in said

  assert task.run([f"--input={stored}", f"--output={tmp_path / 'model'}", "--rounds=1"]) == 0
  assert not (tmp_path / "model" / "trained_on.bin").exists()


def test_the_digest_is_of_training_and_validation_images(made, splits):
  data = (made.model / "trained_on.bin").read_bytes()
  digest = TrainedOn.decode(data, "trained_on.bin")
  assert (digest.width, len(digest.starts)) == (8, sum(splits.values()))
  assert read_json(made.model / "metrics.json")["validation_images"] > 0


def test_a_damaged_digest_is_told_before_the_output_is_touched(made, tmp_path):
  shutil.copytree(made.model, tmp_path / "model")
  path = tmp_path / "model" / "trained_on.bin"
  path.write_bytes(path.read_bytes()[:100])
  complete_folder(str(tmp_path / "model"))  # as if it had been written so
  flags = [f"--model={tmp_path / 'model'}", f"--input={made.data}", f"--output={tmp_path / 'out'}"]
  with pytest.raises(InputError, match=r"trained_on\.bin is damaged: run `beam-retrain train` again\."):
    evaluate.run(flags)
  assert not (tmp_path / "out").exists()
