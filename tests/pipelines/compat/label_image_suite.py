"""Frozen graphs of several kinds, and the manner of 2018 to score an image with them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from beam_retrain.pipelines.cli import main

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
  return main(["label_image", "--process_mode=2", *flags])


def images_placeholder(*shape: int | None) -> tf.Tensor:
  return v1.placeholder(tf.float32, shape, name="images")


def without_size() -> str:
  return convolutional(images_placeholder(None, None, None, 3), "scores")
