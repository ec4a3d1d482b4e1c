"""`label_image` against the manner of 2018: per image a TensorFlow 1 graph and session, written here once more."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.ml.inference.base import RunInference

from beam_retrain.pipelines import evaluate, predict
from beam_retrain.pipelines.cli import main
from beam_retrain.pipelines.compat.label_image import make_parser
from beam_retrain.transforms.compat.frozen_graph import FrozenGraphHandler
from beam_retrain.transforms.core.compat.graph_call import GraphCall
from beam_retrain.transforms.core.images.headers import MAX_PIXELS
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import Image
from beam_retrain.transforms.core.runtimes.trunk_info import BATCH_SIZE
from tests.pipelines.compat.label_image_suite import (
  HEADER,
  LABELS,
  Frozen,
  as_in_2018,
  graphs,
  here,
  label_folder,
  labels,
  old_graph,
  read_rows,
  tf1_graph,
  the_one,
)

__all__ = ["graphs", "here", "labels", "old_graph", "tf1_graph"]  # fixtures


def _now() -> float:
  """Seconds by the clock of `time.ctime`, which may lag some milliseconds behind `time.time`."""
  return time.mktime(time.strptime(time.ctime()))


@pytest.mark.parametrize("fixture", ["tf1_graph", "old_graph"])
def test_a_folder_gets_the_scores_of_2018_image_by_image(fixture, request, small_images, here, capsys):
  graph: Frozen = request.getfixturevalue(fixture)
  (here / "samples").symlink_to(small_images)
  started = _now()
  assert label_folder(*graph.flags, "--directory_name=samples/") == 0
  shown = capsys.readouterr()
  path = the_one(here, "*digit_prediction_file.csv")
  assert re.fullmatch(r"\d{10}\.\d+digit_prediction_file\.csv", path.name)
  assert path.read_bytes().startswith(HEADER)
  assert path.read_bytes().count(b"\r\n") == path.read_bytes().count(b"\n") == 121
  rows = read_rows(path)
  expected = {str(picture.relative_to(here)) for picture in (here / "samples").glob("*/*")}
  assert {row["file_name"] for row in rows} == expected
  assert len(rows) == 120
  scores = {row["file_name"]: as_in_2018(graph, row["file_name"]) for row in rows}
  # A test of every image, only where they differ.
  assert len({round(float(found.max()), 6) for found in scores.values()}) > 100
  for row in rows:
    found = scores[row["file_name"]]
    assert row["predicted_digit"] == LABELS.split()[int(found.argmax())]
    np.testing.assert_allclose(float(row["confidence"]), 100 * found.max(), atol=2e-3)
    assert row["actual_digit"] == Path(row["file_name"]).parent.name
    assert row["prediction_accuracy"] == str(row["actual_digit"] == row["predicted_digit"])
  (execution_time,) = {row["Execution time"] for row in rows}
  assert started <= time.mktime(time.strptime(execution_time)) <= _now()
  right = sum(row["prediction_accuracy"] == "True" for row in rows)
  assert 0 < right < 120
  assert shown.out.splitlines() == [
    f"results saved to {path.name}",
    "Total files tested: 120",
    f"Accurate predictions: {right}",
    f"Accuracy rate {right * 100 / 120}",
  ]
  one_by_one = f"{graph.path} takes one image at a time" in shown.err
  assert one_by_one == (fixture == "old_graph")
  assert [left.name for left in here.iterdir() if left.name.startswith(".")] == []


def test_one_image_as_in_2018_but_without_the_crash(tf1_graph, small_images, here, capsys):
  shutil.copy(small_images / "grey" / "5.png", here / "=5.png")
  assert main(["label_image", *tf1_graph.flags, "--image==5.png"]) == 0
  scores = as_in_2018(tf1_graph, "=5.png")
  printed = re.fullmatch(r"Digit: (\w+) Accuracy: ([\d.]+)\n", capsys.readouterr().out)
  assert printed is not None
  assert printed[1] == LABELS.split()[int(scores.argmax())]
  np.testing.assert_allclose(float(printed[2]), 100 * scores.max(), atol=2e-3)
  assert (here / "digit_prediction_file.csv").read_bytes() == f"'=5.png,{printed[1]},{printed[2]}\r\n".encode()
  assert [path.name for path in here.glob("*.csv")] == ["digit_prediction_file.csv"]


@pytest.fixture
def our_graph(trained_model) -> Frozen:
  path, labels = trained_model / "retrained_graph.pb", trained_model / "retrained_labels.txt"
  return Frozen(path, labels, "Placeholder", "final_result", 75, 75, 0, 255)


def test_our_own_graph_says_what_evaluate_and_predict_say(our_graph, trained_model, small_images, here, capsys):
  shared = [f"--model={trained_model}", f"--input={small_images}", "--split=all"]
  assert evaluate.run([*shared, "--output=evaluation"]) == 0
  evaluated = {row["file_name"]: row for row in read_rows(here / "evaluation" / "predictions.csv")}
  # The size is the graph's own, mean and std are the defaults.
  flags = [flag for flag in our_graph.flags if not flag.startswith(("--input_mean", "--input_std"))]
  assert label_folder(*flags, f"--directory_name={small_images}", "--output=labelled") == 0
  rows = read_rows(here / "labelled" / "digit_prediction_file.csv")
  assert len(rows) == len(evaluated) == 120
  for row in rows:
    of_model = evaluated[str(Path(row["file_name"]).relative_to(small_images))]
    for name in ("actual_digit", "predicted_digit", "prediction_accuracy"):
      assert row[name] == of_model[name]
    np.testing.assert_allclose(float(row["confidence"]), float(of_model["confidence"]), atol=1e-3)
  picture = str(small_images / "white" / "1.png")
  capsys.readouterr()
  assert predict.run([f"--model={trained_model}", "--format=json", picture]) == 0
  predicted = json.loads(capsys.readouterr().out)
  assert main(["label_image", *flags, f"--image={picture}"]) == 0
  _, label, _, percent = capsys.readouterr().out.split()
  assert label == predicted["label"]
  np.testing.assert_allclose(float(percent), 100 * predicted["confidence"], atol=1e-3)
  # The script's own resizing can be had of any graph.
  assert main(["label_image", *flags, f"--image={picture}", "--resize=tf1"]) == 0
  _, _, _, as_tf1 = capsys.readouterr().out.split()
  np.testing.assert_allclose(float(as_tf1), 100 * as_in_2018(our_graph, picture).max(), atol=2e-3)
  assert abs(float(as_tf1) - float(percent)) > 1e-3


def test_bad_files_cost_nothing_else(tf1_graph, small_images, here, capsys):
  for number in (0, 1):
    (here / "samples" / "grey").mkdir(parents=True, exist_ok=True)
    shutil.copy(small_images / "grey" / f"{number}.{('jpg', 'png')[number]}", here / "samples" / "grey")
  png = (small_images / "grey" / "5.png").read_bytes()
  (here / "samples" / "grey" / "in fact a PNG.jpg").write_bytes(png)
  (here / "samples" / "grey" / "empty.jpg").write_bytes(b"")
  (here / "samples" / "grey" / "half.png").write_bytes(png[: len(png) // 2])
  (here / "samples" / "=notes.txt").write_text("no image")
  flags = [*tf1_graph.flags, "--directory_name=samples"]
  assert label_folder(*flags) == 3
  shown = capsys.readouterr()
  assert "Total files tested: 3\n" in shown.out
  listed = the_one(here, "*digit_prediction_file_quarantine.csv")
  written = the_one(here, "*digit_prediction_file.csv")
  assert listed.name == written.name.replace(".csv", "_quarantine.csv")
  assert "3 of 6 inputs are bad (1 EMPTY, 1 NOT_AN_IMAGE, 1 TRUNCATED)" in shown.err
  assert f"see {listed.name};" in shown.err
  assert {row["file_name"]: row["reason"] for row in read_rows(listed)} == {
    "samples/grey/empty.jpg": "EMPTY",
    "samples/grey/half.png": "TRUNCATED",
    "samples/=notes.txt": "NOT_AN_IMAGE",
  }
  before = {row["file_name"]: row["confidence"] for row in read_rows(written)}
  scores = as_in_2018(tf1_graph, "samples/grey/0.jpg")
  np.testing.assert_allclose(float(before["samples/grey/0.jpg"]), 100 * scores.max(), atol=2e-3)
  assert set(before) == {"samples/grey/0.jpg", "samples/grey/1.png", "samples/grey/in fact a PNG.jpg"}
  # What was bad is accepted: the same, but 0; what the first run computed is kept, and then removed.
  written.unlink()
  assert [path.name for path in here.iterdir() if path.name.startswith(".label_image-")]
  assert label_folder(*flags, "--max_bad_fraction=0.5") == 0
  assert {row["file_name"]: row["confidence"] for row in read_rows(the_one(here, "*_file.csv"))} == before
  assert not [path.name for path in here.iterdir() if path.name.startswith(".")]


def test_a_bad_single_image_is_named(tf1_graph, here, capsys):
  (here / "bad.jpg").write_bytes(b"")
  (here / "digit_prediction_file.csv").write_text("of an earlier run")
  assert main(["label_image", *tf1_graph.flags, "--image=bad.jpg"]) == 3
  shown = capsys.readouterr()
  assert shown.out == ""
  assert "bad.jpg: EMPTY: the file has 0 bytes" in shown.err
  assert (here / "digit_prediction_file.csv").read_text() == ""
  assert [row["reason"] for row in read_rows(here / "digit_prediction_file_quarantine.csv")] == ["EMPTY"]
  assert main(["label_image", *tf1_graph.flags, "--image=bad.jpg", "--max_bad_fraction=1"]) == 0


def test_an_output_folder_is_finished_and_replaced_whole(tf1_graph, small_images, here, capsys):
  (here / "=odd" / "Grey!").mkdir(parents=True)
  (here / "=odd" / "unknown").mkdir()
  shutil.copy(small_images / "grey" / "0.jpg", here / "=odd" / "Grey!" / "0.jpg")
  shutil.copy(small_images / "grey" / "0.jpg", here / "=odd" / "unknown" / "0.jpg")
  labels = here / "labels.txt"
  labels.write_text("grey \n" * 3)
  flags = [*tf1_graph.flags, f"--labels={labels}", "--directory_name==odd", "--output=out"]
  for _ in range(2):
    assert label_folder(*flags) == 0
    assert "1 of them count as wrong, as their folder's name is not a label" in capsys.readouterr().err
    found = sorted(path.name for path in (here / "out").iterdir())
    ours = ["config.toml", "digit_prediction_file.csv", "info.json", "quarantine.csv", "stats.json"]
    assert found == [".beam-retrain.log", "COMPLETED", *ours]
  rows = read_rows(here / "out" / "digit_prediction_file.csv")
  assert [tuple(row.values())[:3] for row in rows] == [
    ("'=odd/Grey!/0.jpg", "grey", "grey"),
    ("'=odd/unknown/0.jpg", "unknown", "grey"),
  ]


def test_a_killed_run_goes_on(tf1_graph, small_images, here, monkeypatch):
  """The shards that are finished are not worked again: their images need not even be there to be labelled."""
  flags = [*tf1_graph.flags, f"--directory_name={small_images}"]
  with monkeypatch.context() as patched:
    # Killed between the work and the last word.
    patched.setattr(
      "beam_retrain.pipelines.compat.label_folder.mark_completed", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    assert label_folder(*flags) == 2
  (work,) = here.glob(".label_image-*")
  (shard,) = (work / ".parts").glob("all-*.csv")
  before, first = shard.stat().st_mtime_ns, read_rows(the_one(here, "*_file.csv"))
  the_one(here, "*_file.csv").unlink()
  # So that going on is told from starting anew.
  with monkeypatch.context() as patched:
    patched.setattr("beam_retrain.pipelines.compat.label_folder.files.delete", lambda paths: None)
    assert label_folder(*flags) == 0
  assert list(here.glob(".label_image-*")) == [work]
  assert shard.stat().st_mtime_ns == before
  again = read_rows(the_one(here, "*_file.csv"))
  assert [{**row, "Execution time": ""} for row in again] == [{**row, "Execution time": ""} for row in first]


def test_help_is_quick_and_teaches():
  code = (
    "import sys\nfrom beam_retrain.pipelines.cli import main\n"
    "try: main(['label_image', '--help'])\nexcept SystemExit: pass\n"
    "print([name for name in ('apache_beam', 'tensorflow', 'numpy', 'PIL') if name in sys.modules])"
  )
  shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
  assert shown.splitlines()[-1] == "[]"
  for flag in (
    *("image", "directory_name", "process_mode", "graph", "labels", "input_height", "input_width"),
    *("input_mean", "input_std", "input_layer", "output_layer"),
  ):
    assert f"\n  --{flag} " in shown


def test_defaults_are_those_of_the_other_stages():
  """They are written out in `label_image`, where nothing is imported for them."""
  flags = make_parser().parse_args([])
  assert (flags.batch_size, flags.max_pixels) == (BATCH_SIZE, MAX_PIXELS)


def test_the_handler_works_in_anyones_pipeline(tf1_graph, small_images, collect):
  paths = [small_images / "grey" / "0.jpg", small_images / "white" / "1.png"]
  images = [Image(str(path), "", path.read_bytes()) for path in paths] + [Image("empty", "", b"")]
  names = ("input_layer", "output_layer", "height", "width", "mean", "std")
  call = GraphCall(
    **{name: getattr(tf1_graph, name) for name in names}, half_pixel_centers=False, batch=0, dtype="float32"
  )
  handler = FrozenGraphHandler(str(tf1_graph.path), call)
  good, bad = [], []
  for item in collect(beam.Create(images) | RunInference(handler)):
    (bad if isinstance(item, Quarantined) else good).append(item)
  assert [(item.key, item.reason) for item in bad] == [("empty", Reason.EMPTY)]
  assert {item.image.key for item in good} == {str(path) for path in paths}
  for item in good:
    np.testing.assert_allclose(item.outputs["scores"], as_in_2018(tf1_graph, item.image.key), atol=2e-5)
