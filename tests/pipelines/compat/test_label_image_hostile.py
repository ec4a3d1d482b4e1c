"""`label_image` refuses graphs that do more than compute, before TensorFlow loads them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from beam_retrain.pipelines.cli import main
from tests.pipelines.compat.label_image_suite import graphs, here, images_placeholder, labels, v1

__all__ = ["graphs", "here", "labels"]  # fixtures

PX = 24


def prints(folder: Path, images: tf.Tensor) -> tf.Tensor:
  with tf.control_dependencies([tf.raw_ops.PrintV2(input="owned", output_stream=f"file://{folder}/print")]):
    return tf.identity(images)


def debugs(folder: Path, images: tf.Tensor) -> tf.Tensor:
  return tf.raw_ops.DebugIdentityV2(
    input=images, tfdbg_context_id="run", op_name="images", tensor_debug_mode=2, debug_urls=[f"file://{folder}/debug"]
  )


def debugs_while_loaded(folder: Path, images: tf.Tensor) -> tf.Tensor:
  """TensorFlow computes a shape that is constant while it loads a graph."""
  shape = tf.raw_ops.DebugIdentity(
    input=[-1, PX, PX, 3], device_name="cpu", tensor_name="shape:0", debug_urls=[f"file://{folder}"]
  )
  return tf.reshape(images, shape)


def debugs_beside(folder: Path, images: tf.Tensor) -> tf.Tensor:
  """Not in what computes the scores."""
  debugs_while_loaded(folder, images)
  return images


def writes(folder: Path, images: tf.Tensor) -> tf.Tensor:
  with tf.control_dependencies([tf.io.write_file(f"{folder}/written", "owned")]):
    return tf.identity(images)


def saves(folder: Path, images: tf.Tensor) -> tf.Tensor:
  saved = tf.raw_ops.SaveV2(prefix=f"{folder}/saved", tensor_names=["x"], shape_and_slices=[""], tensors=[images])
  with tf.control_dependencies([saved]):
    return tf.identity(images)


def restores(folder: Path, images: tf.Tensor) -> tf.Tensor:
  (value,) = tf.raw_ops.RestoreV2(prefix=f"{folder}/x", tensor_names=["x"], shape_and_slices=[""], dtypes=[tf.float32])
  return images + tf.reshape(value, [])


def maps_memory(folder: Path, images: tf.Tensor) -> tf.Tensor:
  return images + tf.raw_ops.ImmutableConst(dtype=tf.float32, shape=[], memory_region_name="/etc/hostname")


def calls_python(folder: Path, images: tf.Tensor) -> tf.Tensor:
  return tf.ensure_shape(v1.py_func(lambda given: given, [images], tf.float32), images.shape)


def in_a_function(folder: Path, images: tf.Tensor) -> tf.Tensor:
  @tf.function(autograph=False)
  def write(given: tf.Tensor) -> tf.Tensor:
    return writes(folder, given)

  return tf.ensure_shape(write(images), images.shape)


def in_a_functions_function(folder: Path, images: tf.Tensor) -> tf.Tensor:
  @tf.function(autograph=False)
  def choose(given: tf.Tensor) -> tf.Tensor:
    return tf.switch_case(tf.size(given) * 0, [lambda: in_a_function(folder, given), lambda: given])

  return tf.ensure_shape(choose(images), images.shape)


def reads_a_table(folder: Path, images: tf.Tensor) -> tf.Tensor:
  table = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
  loaded = tf.raw_ops.InitializeTableFromTextFileV2(
    table_handle=table, filename="/etc/hostname", key_index=-2, value_index=-1
  )
  with tf.control_dependencies([loaded]):
    return images + tf.cast(tf.raw_ops.LookupTableSizeV2(table_handle=table), tf.float32)


def iterates(folder: Path, images: tf.Tensor) -> tf.Tensor:
  lines = v1.data.make_one_shot_iterator(tf.data.TextLineDataset("/etc/hostname")).get_next()
  return images + tf.cast(tf.strings.length(lines), tf.float32)


@pytest.mark.parametrize(
  ("spoil", "operations"),
  [
    (prints, "PrintV2"),
    (debugs, "DebugIdentityV2"),
    (debugs_while_loaded, "DebugIdentity"),
    (writes, "WriteFile"),
    (saves, "SaveV2"),
    (restores, "RestoreV2"),
    (maps_memory, "ImmutableConst"),
    (calls_python, "PyFunc"),
    (in_a_function, "WriteFile"),
    (in_a_functions_function, "WriteFile"),
    (reads_a_table, "HashTableV2 InitializeTableFromTextFileV2"),
    (iterates, "IteratorGetNext OneShotIterator"),
  ],
)
def test_a_graph_that_does_more_than_compute_is_refused(
  spoil, operations, graphs, labels, small_images, here, tmp_path, capsys
):
  path = write_spoilt(spoil, graphs, tmp_path / "made")
  before = sorted(tmp_path.rglob("*"))
  flags = [f"--graph={path}", f"--labels={labels}", "--input_layer=images", "--output_layer=scores"]
  assert main(["label_image", f"--image={small_images}/grey/0.jpg", *flags]) == 2
  shown = capsys.readouterr()
  assert (shown.out, shown.err.count("\n")) == ("", 1)
  assert f"{path} has operations that no image classifier needs (" in shown.err
  assert set(operations.split()) <= set(re.findall(r"\w+", shown.err))
  assert sorted(tmp_path.rglob("*")) == before


def test_what_does_not_compute_the_scores_neither_runs_nor_matters(
  graphs, labels, small_images, here, tmp_path, capsys
):
  path = write_spoilt(debugs_beside, graphs, tmp_path / "made")
  before = sorted((tmp_path / "made").rglob("*"))
  flags = [f"--graph={path}", f"--labels={labels}", "--input_layer=images", "--output_layer=scores"]
  assert main(["label_image", f"--image={small_images}/grey/0.jpg", *flags]) == 0
  assert capsys.readouterr().out.startswith("Digit: ")
  assert sorted((tmp_path / "made").rglob("*")) == before


def test_a_graph_frozen_with_its_data_set_is_fed_behind_it(graphs, labels, small_images, here, capsys):
  with tf.Graph().as_default() as graph:
    files = tf.data.Dataset.from_tensors("/dev/zero").map(lambda path: read_pixels(path))
    images, sizes = v1.data.make_one_shot_iterator(files.batch(2)).get_next()
    tf.nn.softmax(tf.reduce_mean(images, [1, 2]), name="scores")
    tf.reduce_sum(sizes, name="loss")
  path = graphs / "with_data_set.pb"
  path.write_bytes(graph.as_graph_def().SerializeToString())
  flags = [f"--graph={path}", f"--labels={labels}", "--input_layer=IteratorGetNext", "--output_layer=scores"]
  assert main(["label_image", f"--image={small_images}/grey/0.jpg", *flags]) == 0
  assert capsys.readouterr().out.startswith("Digit: ")


def read_pixels(path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  pixels = tf.cast(tf.io.decode_png(tf.io.read_file(path), 3), tf.float32)
  return tf.ensure_shape(pixels, [PX, PX, 3]), tf.size(pixels)


def write_spoilt(spoil: Callable[[Path, tf.Tensor], tf.Tensor], graphs: Path, folder: Path) -> Path:
  """Writes a graph that classifies images; clears what building it has left."""
  folder.mkdir()
  with tf.Graph().as_default() as graph:
    images = spoil(folder, images_placeholder(None, PX, PX, 3))
    filters = np.random.default_rng(2).normal(0, 1, (PX, PX, 3, 3)).astype(np.float32)
    logits = tf.nn.conv2d(tf.ensure_shape(images, [None, PX, PX, 3]), filters, 1, "VALID")
    tf.nn.softmax(tf.reshape(logits, [-1, 3]), name="scores")
  path = graphs / f"{spoil.__name__}.pb"
  path.write_bytes(graph.as_graph_def().SerializeToString())
  for left in sorted(folder.rglob("*"), reverse=True):
    left.rmdir() if left.is_dir() else left.unlink()
  return path
