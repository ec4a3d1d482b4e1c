"""`label_image` with graphs that take one image, four, or any number, and with any size."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from beam_retrain.pipelines.cli import main
from tests.pipelines.compat.label_image_suite import (
  Frozen,
  as_in_2018,
  convolutional,
  graphs,
  here,
  images_placeholder,
  label_folder,
  labels,
  read_rows,
  the_one,
  v1,
  variable,
  without_size,
  write_graph,
)

__all__ = ["graphs", "here", "labels"]  # fixtures


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
    f"beam-retrain label_image: {path} takes {count} at a time; --batch_size is ignored."
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
