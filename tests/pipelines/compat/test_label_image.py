"""`label_image` against the manner of 2018: per image a TensorFlow 1 graph and session, written here once more."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
from apache_beam.ml.inference.base import RunInference

from beam_retrain.pipelines import evaluate, predict
from beam_retrain.pipelines.cli import main
from beam_retrain.pipelines.compat.label_image import make_parser
from beam_retrain.transforms.compat.frozen_graph import FrozenGraphHandler
from beam_retrain.transforms.core.images.headers import MAX_PIXELS
from beam_retrain.transforms.core.models.inference import BATCH_SIZE
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import Image

v1 = tf.compat.v1

HEADER = b"file_name,actual_digit,predicted_digit,confidence,prediction_accuracy,Execution time\r\n"
LABELS = "black\ngrey\nwhite\n"


class Frozen(NamedTuple):
  """A graph's file and how it is asked; `flags` says so to the command."""

  path: Path
  labels: Path
  input_layer: str
  output_layer: str
  height: int
  width: int
  mean: int
  std: int

  @property
  def flags(self) -> list[str]:
    return [
      *(f"--graph={self.path}", f"--labels={self.labels}"),
      *(f"--input_layer={self.input_layer}", f"--output_layer={self.output_layer}"),
      *(f"--input_mean={self.mean}", f"--input_std={self.std}"),
    ]


def write_graph(folder: Path, name: str, build, freeze: bool = True) -> Path:
  """Builds a TensorFlow 1 graph with real variables, gives them seeded values, and makes them constants."""
  with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
    output = build()
    session.run(v1.global_variables_initializer())
    graph_def = graph.as_graph_def()
    if freeze:
      graph_def = v1.graph_util.convert_variables_to_constants(session, graph_def, [output])
  path = folder / name
  path.write_bytes(graph_def.SerializeToString())
  return path


def variable(name: str, shape: list[int], seed: int) -> tf.Tensor:
  values = np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)
  return v1.get_variable(name, initializer=values, use_resource=False)


def convolutional(images: tf.Tensor, softmax: str) -> str:
  """Adds a small network that tells every image from the next; returns its output's name."""
  features = tf.nn.relu(tf.nn.conv2d(images, variable("filters", [5, 5, 3, 8], 2), 4, "SAME")) / 5
  pooled = tf.reduce_mean(features, [1, 2])
  return tf.nn.softmax(pooled @ variable("weights", [8, 3], 12), name=softmax).op.name


def decode_itself() -> str:
  """A graph as the first `retrain.py` left them: it decodes one image, and is fed between that and the trunk."""
  contents = tf.constant(b"", name="DecodeJpeg/contents")
  decoded = tf.image.decode_jpeg(contents, channels=3)
  resized = v1.image.resize_bilinear(tf.expand_dims(tf.cast(decoded, tf.float32), 0), [20, 20])
  images = tf.multiply(resized - 128.0, 1 / 128, name="Mul")
  features = tf.nn.conv2d(images, variable("filters", [5, 5, 3, 4], 2), 5, "VALID") / 20
  pooled = tf.reshape(features, [1, 64])
  bottleneck = v1.placeholder_with_default(pooled, [None, 64], name="input/BottleneckInputPlaceholder")
  return tf.nn.softmax(bottleneck @ variable("weights", [64, 3], 10), name="final_result").op.name


@pytest.fixture(scope="module")
def graphs(tmp_path_factory) -> Path:
  return tmp_path_factory.mktemp("graphs")


@pytest.fixture(scope="module")
def labels(graphs) -> Path:
  path = graphs / "labels.txt"
  path.write_text(LABELS)
  return path


@pytest.fixture(scope="module")
def tf1_graph(graphs, labels) -> Frozen:
  """Another input name, another size than square, mean and std 128."""

  def build() -> str:
    return convolutional(v1.placeholder(tf.float32, [None, 40, 56, 3], name="net/pixels"), "net/probabilities")

  path = write_graph(graphs, "tf1.pb", build)
  return Frozen(path, labels, "net/pixels", "net/probabilities", 40, 56, 128, 128)


@pytest.fixture(scope="module")
def old_graph(graphs, labels) -> Frozen:
  path = write_graph(graphs, "old.pb", decode_itself)
  return Frozen(path, labels, "Mul", "final_result", 20, 20, 128, 128)


def as_in_2018(graph: Frozen, path: str) -> np.ndarray:
  """Scores of one image: a graph to decode it by its extension, a session for that and a session for the model."""
  with tf.Graph().as_default(), v1.Session() as session:
    encoded = v1.read_file(path)
    if path.endswith(".png"):
      pixels = tf.image.decode_png(encoded, channels=3)
    elif path.endswith(".gif"):
      pixels = tf.squeeze(tf.image.decode_gif(encoded))
    elif path.endswith(".bmp"):
      pixels = tf.image.decode_bmp(encoded)
    else:
      pixels = tf.image.decode_jpeg(encoded, channels=3)
    resized = v1.image.resize_bilinear(tf.cast(pixels, tf.float32)[tf.newaxis], [graph.height, graph.width])
    images = session.run(v1.divide(tf.subtract(resized, [float(graph.mean)]), [float(graph.std)]))
  graph_def = v1.GraphDef.FromString(graph.path.read_bytes())
  with tf.Graph().as_default() as imported, v1.Session(graph=imported) as session:
    tf.import_graph_def(graph_def)
    feed, fetch = (
      imported.get_operation_by_name(f"import/{name}").outputs[0] for name in (graph.input_layer, graph.output_layer)
    )
    return np.squeeze(session.run(fetch, {feed: images}))


def the_one(folder: Path, pattern: str) -> Path:
  (found,) = folder.glob(pattern)
  return found


def read_rows(path: Path) -> list[dict[str, str]]:
  with path.open(newline="") as file:
    return list(csv.DictReader(file))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
  """A current folder of its own."""
  folder = tmp_path / "here"
  folder.mkdir()
  monkeypatch.chdir(folder)
  return folder


def label_folder(*flags: str) -> int:
  return main(["label_image", "--process_mode=2", "--runner=FnApiRunner", *flags])


@pytest.mark.parametrize("fixture", ["tf1_graph", "old_graph"])
def test_a_folder_gets_the_scores_of_2018_image_by_image(fixture, request, small_images, here, capsys):
  graph: Frozen = request.getfixturevalue(fixture)
  (here / "samples").symlink_to(small_images)
  started = int(time.time())
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
  assert started <= time.mktime(time.strptime(execution_time)) <= time.time()
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
  shared = [f"--model={trained_model}", f"--input={small_images}", "--split=all", "--runner=FnApiRunner"]
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
    assert "1 of them lie in a folder that is named like no label" in capsys.readouterr().err
    found = sorted(path.name for path in (here / "out").iterdir())
    assert found == ["COMPLETED", "digit_prediction_file.csv", "info.json", "quarantine.csv", "stats.json"]
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


def images_placeholder(*shape: int | None) -> tf.Tensor:
  return v1.placeholder(tf.float32, shape, name="images")


def fixed_at_four() -> str:
  # What follows insists on four too.
  return convolutional(tf.concat(tf.split(images_placeholder(4, 24, 24, 3), 4), 0), "scores")


def reshaped_to_one() -> str:
  pooled = tf.reshape(tf.nn.avg_pool2d(images_placeholder(None, 20, 20, 3), 5, 5, "VALID"), [1, 48])
  return tf.nn.softmax(pooled @ variable("weights", [48, 3], 10), name="scores").op.name


def normalised_over_the_batch() -> str:
  images = images_placeholder(None, 24, 24, 3)
  return convolutional(images - tf.reduce_mean(images, [0, 1, 2]), "scores")


@pytest.mark.parametrize(
  ("build", "count"),
  [(fixed_at_four, "4 images"), (reshaped_to_one, "one image"), (normalised_over_the_batch, "one image")],
)
def test_a_graph_is_called_with_as_many_images_as_it_can_take(build, count, graphs, labels, small_images, here, capsys):
  path = write_graph(graphs, f"{build.__name__}.pb", build)
  size_px = 20 if build is reshaped_to_one else 24
  graph = Frozen(path, labels, "images", "scores", size_px, size_px, 0, 255)
  (here / "few" / "grey").mkdir(parents=True)
  for number in range(10):
    name = f"{number}.{('jpg', 'png', 'bmp', 'gif')[number % 4]}"
    shutil.copy(small_images / "grey" / name, here / "few" / "grey" / name)
  assert label_folder(*graph.flags, "--directory_name=few") == 0
  assert capsys.readouterr().err.splitlines() == [
    f"beam-retrain label_image: {path} takes {count} at a time: it is called so."
  ]
  rows = read_rows(the_one(here, "*_file.csv"))
  assert len(rows) == 10
  for row in rows:
    if build is fixed_at_four:  # which the script could not call
      (scores,) = call_once(path, row["file_name"], size_px)
    else:
      scores = as_in_2018(graph, row["file_name"])
    np.testing.assert_allclose(float(row["confidence"]), 100 * scores.max(), atol=2e-3)
  # A single image likewise.
  assert main(["label_image", *graph.flags, "--image=few/grey/1.png"]) == 0
  (row,) = [row for row in rows if row["file_name"] == "few/grey/1.png"]
  np.testing.assert_allclose(float(capsys.readouterr().out.split()[-1]), float(row["confidence"]), atol=2e-3)


def call_once(path: Path, picture: str, size_px: int) -> np.ndarray:
  """Scores of the first of four equal images."""
  pixels = tf.cast(tf.io.decode_image(Path(picture).read_bytes(), 3, expand_animations=False), tf.float32)
  image = v1.image.resize_bilinear(pixels[tf.newaxis], [size_px, size_px]) / 255
  with tf.Graph().as_default(), v1.Session() as session:
    (scores,) = tf.import_graph_def(v1.GraphDef.FromString(path.read_bytes()), return_elements=["scores:0"])
    return session.run(scores, {"import/images:0": np.tile(image, [4, 1, 1, 1])})[:1]


def without_size() -> str:
  return convolutional(images_placeholder(None, None, None, 3), "scores")


def test_the_size_is_the_scripts_where_the_graph_has_none(graphs, labels, small_images, here, capsys):
  path = write_graph(graphs, "without_size.pb", without_size)
  graph = Frozen(path, labels, "images", "scores", 299, 299, 0, 255)
  picture = str(small_images / "black" / "0.jpg")
  assert main(["label_image", *graph.flags, f"--image={picture}"]) == 0
  percent = float(capsys.readouterr().out.split()[-1])
  np.testing.assert_allclose(percent, 100 * as_in_2018(graph, picture).max(), atol=2e-3)
  asked = graph._replace(height=50, width=31)
  assert main(["label_image", *graph.flags, f"--image={picture}", "--input_height=50", "--input_width=31"]) == 0
  percent = float(capsys.readouterr().out.split()[-1])
  np.testing.assert_allclose(percent, 100 * as_in_2018(asked, picture).max(), atol=2e-3)


def reads_files() -> str:
  stored = tf.io.decode_raw(tf.io.read_file("/etc/hostname"), tf.uint8)
  images = images_placeholder(None, 24, 24, 3) + tf.cast(tf.size(stored), tf.float32)
  return convolutional(images, "scores")


def with_others() -> str:
  v1.placeholder(tf.string, [], name="comment")
  v1.placeholder(tf.float32, [None, 48], name="vectors")
  images = images_placeholder(None, 24, 24, 3)
  tf.nn.softmax(tf.constant([[1.0, 2.0, 3.0]]), name="constant")
  return convolutional(images, "scores")


@pytest.fixture(scope="module")
def others_graph(graphs, labels) -> list[str]:
  path = graphs / "others.pb"
  with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
    output = with_others()
    session.run(v1.global_variables_initializer())
    frozen = v1.graph_util.convert_variables_to_constants(
      session, graph.as_graph_def(), [output, "constant", "comment", "vectors"]
    )
  path.write_bytes(frozen.SerializeToString())
  return [f"--graph={path}", f"--labels={labels}"]


def refused(flags: list[str], small_images: Path, capsys) -> str:
  """Checks that both modes refuse the flags before anything is written; returns the sentence."""
  said = []
  for mode in (["--process_mode=1", f"--image={small_images}/grey/0.jpg"], ["--process_mode=2"]):
    directory = [f"--directory_name={small_images}"] if mode[0].endswith("2") else []
    assert main(["label_image", *mode, *directory, *flags]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    said.append(shown.err)
    assert list(Path.cwd().iterdir()) == []
  assert said[0] == said[1]
  assert said[0].count("\n") == 1
  return said[0]


@pytest.mark.parametrize(
  ("flags", "sentence"),
  [
    (
      [],
      "has no operation 'input': give --input_layer=images; and it has no operation"
      " 'InceptionV3/Predictions/Reshape_1': give --output_layer=scores.",
    ),
    (["--input_layer=import/images", "--output_layer=scores"], "'import/images': give --input_layer=images."),
    (["--input_layer=images", "--output_layer=score"], "'score': give --output_layer=scores."),
    (
      ["--input_layer=vectors", "--output_layer=scores"],
      "takes float32 (None, 48), not images: give --input_layer=images.",
    ),
    (["--input_layer=comment", "--output_layer=scores"], "takes string (), not images: give --input_layer=images."),
    (["--input_layer=images", "--output_layer=constant"], "constant of {graph} is not computed from images"),
    (["--input_layer=images", "--output_layer=images"], "images of {graph} is not computed from images"),
    (
      ["--input_layer=images", "--output_layer=Conv2D"],
      "{labels} has 3 labels, but Conv2D of {graph} gives 288 numbers",
    ),
    (
      ["--input_layer=images", "--output_layer=scores", "--input_width=299"],
      "takes (None, 24, 24, 3), not --input_width=299: leave --input_width out.",
    ),
    (["--input_std=0"], "argument --input_std: 0 cannot be divided by"),
    (["--input_mean=nan"], "argument --input_mean: nan is not a number"),
    (["--input_height=0"], "argument --input_height: 0 is not at least 1"),
    (["--process_mode=3"], "argument --process_mode: invalid choice: 3"),
    (["--imput_layer=images"], "the nearest flag is --input_layer."),
  ],
)
def test_wrong_flags_are_one_sentence(flags, sentence, others_graph, small_images, here, capsys):
  graph, labels = (flag.split("=")[1] for flag in others_graph)
  if flags and flags[0].startswith(("--process_mode", "--imput")):
    assert main(["label_image", *others_graph, *flags]) == 2
    assert sentence in capsys.readouterr().err
  else:
    assert sentence.format(graph=graph, labels=labels) in refused([*others_graph, *flags], small_images, capsys)


def test_the_old_graphs_input_is_found_though_it_is_no_placeholder(old_graph, small_images, here, capsys):
  flags = [*old_graph.flags, "--input_layer=Placeholder"]
  assert "'Placeholder': give --input_layer=Mul or sub or ResizeBilinear or ExpandDims." in refused(
    flags, small_images, capsys
  )


def test_labels_of_another_length_are_one_sentence(tf1_graph, small_images, tmp_path, here, capsys):
  labels = tmp_path / "two.txt"
  labels.write_text("black\ngrey\n")
  sentence = refused([*tf1_graph.flags, f"--labels={labels}"], small_images, capsys)
  assert f"{labels} has 2 labels, but net/probabilities of {tf1_graph.path} gives 3 numbers per image" in sentence


@pytest.mark.parametrize(
  ("flag", "content", "sentence"),
  [
    ("graph", None, "is not there: give a file as --graph."),
    ("graph", b"", "is not a frozen graph"),
    ("graph", b"\xff no graph", "is not a frozen graph"),
    ("labels", None, "is not there: give a file as --labels."),
    ("labels", b"\n\n", "is empty"),
    ("labels", b"\xff\xfe", "is not a text file in UTF-8"),
  ],
)
def test_files_that_are_something_else_are_one_sentence(
  flag, content, sentence, tf1_graph, small_images, tmp_path, here, capsys
):
  path = tmp_path / "given"
  if content is not None:
    path.write_bytes(content)
  assert f"{path} {sentence}" in refused([*tf1_graph.flags, f"--{flag}={path}"], small_images, capsys)


@pytest.mark.parametrize(
  ("build", "freeze", "sentence"),
  [(without_size, False, "has variables"), (reads_files, True, "operations that reach beyond the graph (ReadFile)")],
)
def test_a_graph_that_is_more_than_a_frozen_one_is_refused(
  build, freeze, sentence, graphs, labels, small_images, here, capsys
):
  path = write_graph(graphs, f"{build.__name__}_{freeze}.pb", build, freeze)
  flags = [f"--graph={path}", f"--labels={labels}", "--input_layer=images", "--output_layer=scores"]
  assert sentence in refused(flags, small_images, capsys)


@pytest.mark.parametrize(
  ("flags", "sentence"),
  [
    (["--directory_name=x"], "--directory_name is for --process_mode=2: add that, or give --image."),
    (["--image=x", "--output=y"], "--output is for --process_mode=2"),
    (["--image=nowhere.jpg"], "nowhere.jpg is not there: give a file as --image."),
    (
      ["--process_mode=2", "--directory_name=nowhere"],
      "nowhere is not there: give a folder of images as --directory_name.",
    ),
    (["--process_mode=2", "--directory_name=."], "the CSV would be written into --directory_name . itself"),
    (
      ["--process_mode=2", "--directory_name=none"],
      "none has no files: give a folder of images as --directory_name.",
    ),
  ],
)
def test_what_is_not_there_is_one_sentence(flags, sentence, tf1_graph, here, capsys):
  (here / "none").mkdir()
  assert main(["label_image", *tf1_graph.flags, *flags]) == 2
  shown = capsys.readouterr().err
  assert sentence in shown
  assert shown.count("\n") == 1
  assert [path.name for path in here.iterdir()] == ["none"]


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
  call = {
    **{name: getattr(tf1_graph, name) for name in ("input_layer", "output_layer", "height", "width", "mean", "std")},
    **{"half_pixel_centers": False, "batch": 0, "dtype": "float32"},
  }
  handler = FrozenGraphHandler(str(tf1_graph.path), call)
  good, bad = [], []
  for item in collect(beam.Create(images) | RunInference(handler)):
    (bad if isinstance(item, Quarantined) else good).append(item)
  assert [(item.key, item.reason) for item in bad] == [("empty", Reason.EMPTY)]
  assert {item.image.key for item in good} == {str(path) for path in paths}
  for item in good:
    np.testing.assert_allclose(item.outputs["scores"], as_in_2018(tf1_graph, item.image.key), atol=2e-5)
