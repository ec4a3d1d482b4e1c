"""`beam-retrain export`: what each format holds is what the folders hold, read back by the formats' own readers."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from beam_retrain import Model, load_bottlenecks
from beam_retrain.pipelines import evaluate
from beam_retrain.pipelines.cli import main
from beam_retrain.pipelines.export import tables
from beam_retrain.pipelines.export.command import run
from beam_retrain.transforms.core.errors import InputError
from tests.helpers import file_contents, read_csv, read_json

_OLD = Path(__file__).parents[2] / "fixtures" / "0.4"


@pytest.fixture(scope="module")
def finished(made, tmp_path_factory) -> Path:
  """A folder like that of `run`, whose evaluation has mistakes."""
  folder = tmp_path_factory.mktemp("export") / "run"
  folder.mkdir()
  (folder / "bottlenecks").symlink_to(made.bottlenecks)
  flags = [f"--model={made.model}", f"--input={made.bottlenecks}"]
  assert evaluate.run([*flags, f"--output={folder / 'evaluate'}", "--split=all"]) == 0
  return folder


@pytest.fixture(scope="module")
def exported(finished) -> dict[str, Path]:
  """Format -> what is written in it."""
  folders = {name: finished.parent / name for name in ("parquet", "npz", "csv")}
  for name, folder in folders.items():
    assert run([f"--input={finished}", f"--output={folder}", f"--format={name}"]) == 0
  return folders


@pytest.fixture(scope="module")
def stored(finished):
  return load_bottlenecks(finished)


@pytest.fixture(scope="module")
def predictions(finished) -> list[dict[str, str]]:
  with (finished / "evaluate" / "predictions.csv").open(newline="") as file:
    return list(csv.DictReader(file))


def test_parquet_by_pyarrow(exported, stored, predictions, finished):
  table = pq.read_table(exported["parquet"] / "bottlenecks.parquet")
  assert table.column_names == ["key", "label", "split", "sha256", "vector"]
  vectors = np.stack(table["vector"].to_numpy())
  assert vectors.dtype == np.float32
  np.testing.assert_array_equal(vectors, stored.vectors)
  assert table["key"].to_pylist() == stored.keys.tolist()
  assert table["label"].to_pylist() == stored.labels.tolist()
  rows = pq.read_table(exported["parquet"] / "predictions.parquet").to_pylist()
  assert len(rows) == len(predictions)
  for row, expected in zip(rows, predictions, strict=True):
    assert row["key"] == expected["file_name"].removeprefix("'")  # escaped for spreadsheets alone
    assert row["correct"] is (expected["prediction_accuracy"] == "True")
    assert f"{100 * row['confidence']:.4f}" == expected["confidence"]
    assert str(row["trained_on"]) == expected["trained_on"]
  metrics = read_json(finished / "evaluate" / "metrics.json")
  (model,) = pq.read_table(exported["parquet"] / "metrics.parquet").to_pylist()
  assert model["accuracy"] == metrics["accuracy"]
  assert [model["accuracy_low"], model["accuracy_high"]] == metrics["accuracy_interval_95"]
  assert model["unseen_accuracy"] == metrics["unseen"]["accuracy"]
  assert model["unseen"] == metrics["unseen"]["total"]
  assert model["macro_f1"] == metrics["macro"]["f1"]
  assert model["expected_calibration_error"] == metrics["calibration"]["expected_calibration_error"]
  assert (model["model"], model["night"], model["verdict"]) == ("model", None, "none set")
  labels = pq.read_table(exported["parquet"] / "per_label.parquet").to_pylist()
  assert [row["label"] for row in labels] == metrics["labels"]
  for row in labels:
    expected = metrics["per_label"][row["label"]]
    assert all(row[name] == expected[name] for name in ("support", "correct", "precision", "most_confused_with"))
    assert [row["recall_low"], row["recall_high"]] == expected["recall_interval_95"]


def test_npz_by_numpy(exported, stored, predictions):
  with np.load(exported["npz"] / "bottlenecks.npz", allow_pickle=False) as arrays:
    assert arrays.files == ["key", "label", "split", "sha256", "vector"]
    np.testing.assert_array_equal(arrays["vector"], stored.vectors)
    np.testing.assert_array_equal(arrays["key"], stored.keys)
    assert sorted(set(arrays["split"].tolist())) == ["testing", "training", "validation"]
    assert (arrays["split"] == "validation").sum() == len(
      load_bottlenecks(exported["npz"].parent / "run", "validation")[0]
    )
  with np.load(exported["npz"] / "predictions.npz", allow_pickle=False) as arrays:
    assert arrays["correct"].mean() == np.mean([row["prediction_accuracy"] == "True" for row in predictions])
    assert (arrays["correct"].dtype, arrays["confidence"].dtype) == (np.int8, np.float64)
  with np.load(exported["npz"] / "metrics.npz", allow_pickle=False) as arrays:
    assert arrays["night"].tolist() == [""]


def test_csv_by_the_csv_module(exported, stored, finished):
  header, *rows = read_csv(exported["csv"] / "bottlenecks.csv")
  assert header == ["key", "label", "split", "sha256", *map(str, range(64))]
  np.testing.assert_array_equal(np.array([row[4:] for row in rows], np.float32), stored.vectors)
  assert "'=cmd" in {row[1] for row in rows}
  assert not any(cell.startswith("=") for row in rows for cell in row[:4])
  header, *rows = read_csv(exported["csv"] / "per_label.csv")
  assert len(rows) == 10
  assert rows[0][header.index("label")] == "'=cmd"
  header, *rows = read_csv(exported["csv"] / "metrics.csv")
  assert float(rows[0][header.index("accuracy")]) == read_json(finished / "evaluate" / "metrics.json")["accuracy"]


def test_pandas_reads_it(exported, stored):
  pandas = pytest.importorskip("pandas")
  table = pandas.read_parquet(exported["parquet"] / "bottlenecks.parquet")
  np.testing.assert_array_equal(np.stack(table["vector"]), stored.vectors)
  wrong = pandas.read_parquet(exported["parquet"] / "predictions.parquet").query("not correct")
  assert set(zip(wrong.actual, wrong.predicted, strict=True))


def test_the_same_input_gives_the_same_bytes_in_batches_of_any_size(finished, exported, tmp_path, monkeypatch):
  monkeypatch.setattr(tables, "ROWS", 100)
  for name, folder in exported.items():
    if name == "parquet":
      continue  # whose row groups are the batches
    assert run([f"--input={finished}", f"--output={tmp_path / name}", f"--format={name}"]) == 0
    ours, theirs = file_contents(tmp_path / name), file_contents(folder)
    unlike = {"info.json", "COMPLETED", "config.toml"}
    assert ours.keys() == theirs.keys() == {f"{each}.{name}" for each in tables.NAMES} | unlike
    assert {each for each in ours if ours[each] != theirs[each]} == unlike
  monkeypatch.undo()
  assert run([f"--input={finished}", f"--output={tmp_path / 'parquet'}"]) == 0
  for each in tables.NAMES:
    name = f"{each}.parquet"
    assert (tmp_path / "parquet" / name).read_bytes() == (exported["parquet"] / name).read_bytes()


def test_an_earlier_export_is_replaced_and_nothing_else(finished, tmp_path):
  output = tmp_path / "out"
  assert run([f"--input={finished / 'evaluate'}", f"--output={output}", "--format=csv"]) == 0
  assert not (output / "bottlenecks.csv").exists()
  assert run([f"--input={finished / 'bottlenecks'}", f"--output={output}"]) == 0
  assert {path.name for path in output.glob("*.*")} == {"bottlenecks.parquet", "config.toml", "info.json"}
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine" / "notes.txt").write_text("mine")
  with pytest.raises(InputError, match="is not empty and was not written by beam-retrain"):
    run([f"--input={finished}", f"--output={tmp_path / 'mine'}"])


def test_what_cannot_be_exported_is_one_sentence(made, finished, tmp_path, capsys):
  (tmp_path / "empty").mkdir()
  for given in (made.model, tmp_path / "empty"):
    with pytest.raises(InputError, match=f"^{given} has neither bottlenecks nor an evaluation: give what"):
      run([f"--input={given}", f"--output={tmp_path / 'out'}"])
  with pytest.raises(InputError, match="overlaps with --input"):
    run([f"--input={finished}", f"--output={finished / 'export'}"])
  shutil.copytree(finished / "evaluate", tmp_path / "evaluate")
  text = (tmp_path / "evaluate" / "predictions.csv").read_bytes()
  (tmp_path / "evaluate" / "predictions.csv").write_bytes(text[:-1])
  assert main(["export", f"--input={tmp_path / 'evaluate'}", f"--output={tmp_path / 'out'}"]) == 2
  assert "predictions.csv has " in capsys.readouterr().err
  (tmp_path / "evaluate" / "COMPLETED").unlink()
  with pytest.raises(InputError, match="is not finished"):
    run([f"--input={tmp_path / 'evaluate'}", f"--output={tmp_path / 'out'}"])
  assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("*.parquet"))


def test_folders_of_0_4_and_a_damaged_one(tmp_path):
  assert run([f"--input={_OLD / 'evaluation'}", f"--output={tmp_path / 'old'}"]) == 0
  rows = pq.read_table(tmp_path / "old" / "predictions.parquet")
  assert rows["trained_on"].null_count == len(rows) > 0
  assert run([f"--input={_OLD / 'bottlenecks'}", f"--output={tmp_path / 'old'}", "--format=npz"]) == 0
  shutil.copytree(_OLD / "evaluation", tmp_path / "cut")
  path = tmp_path / "cut" / "predictions.csv"
  text = path.read_bytes()
  for damaged, words in [
    (text.replace(b",True,", b",True,x,", 1), "line 2 has"),
    (text.rpartition(b",")[0], r"line \d+ has"),
    (b"", "it has no column 'file_name'"),
    (text.replace(b".", b"!", 5), "could not convert"),
  ]:
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=rf"predictions\.csv is damaged \({words}"):
      run([f"--input={tmp_path / 'cut'}", f"--output={tmp_path / 'out'}"])
  assert not (tmp_path / "out" / "predictions.parquet").exists()
  assert not (tmp_path / "out" / "COMPLETED").exists()


def test_the_model_knows_what_is_exported(made, exported):
  table = pq.read_table(exported["parquet"] / "predictions.parquet")
  found = Model(made.model).evaluate(made.bottlenecks, split="all")
  assert sum(table["correct"].to_pylist()) == found.metrics.correct
