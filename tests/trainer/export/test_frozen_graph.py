"""`retrained_graph.pb`, used as the article's script uses it: a TensorFlow 1 session over an imported GraphDef."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf


@pytest.fixture(scope="module")
def graph_def(trained_model):
  graph_def = tf.compat.v1.GraphDef()
  graph_def.ParseFromString((trained_model / "retrained_graph.pb").read_bytes())
  return graph_def


def run_session(graph_def, images: np.ndarray) -> np.ndarray:
  with tf.Graph().as_default() as graph:
    tf.import_graph_def(graph_def)
  feed = graph.get_operation_by_name("import/Placeholder").outputs[0]
  fetch = graph.get_operation_by_name("import/final_result").outputs[0]
  # Nothing is initialised: as in 2018, a session alone must do.
  with tf.compat.v1.Session(graph=graph) as session:
    return session.run(fetch, {feed: images})


def test_labels_a_file_as_the_article_does(graph_def, trained_model, small_images):
  labels = (trained_model / "retrained_labels.txt").read_text().splitlines()
  for label in ("white", "grey", "black"):
    # Read, decode to 3 channels, float, batch of one, bilinear resize, (x - 0) / 255.
    decoded = tf.io.decode_jpeg((small_images / label / "4.jpg").read_bytes(), channels=3)
    resized = tf.compat.v1.image.resize_bilinear(tf.cast(decoded, tf.float32)[tf.newaxis], [75, 75])
    results = np.squeeze(run_session(graph_def, (resized / 255).numpy()))
    assert labels[results.argsort()[-1]] == label


@pytest.mark.parametrize("count", [1, 5])
def test_scores_are_the_exported_models(graph_def, trained_model, count):
  images = np.random.default_rng(5).random((count, 75, 75, 3), np.float32)
  exported = tf.saved_model.load(str(trained_model / "saved_model"))
  scores = run_session(graph_def, images)
  np.testing.assert_allclose(scores, exported.score_images(images)["scores"], atol=1e-5)
  np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


def test_is_frozen(graph_def):
  operations = {node.op for node in graph_def.node}
  assert not graph_def.library.function
  unwanted = ("Variable", "VarHandle", "ReadVariable", "HashTable", "PartitionedCall", "Lookup")
  assert not [name for name in operations if any(word in name for word in unwanted)]
  (placeholder,) = (node for node in graph_def.node if node.op == "Placeholder")
  assert placeholder.name == "Placeholder"
  assert [dim.size for dim in placeholder.attr["shape"].shape.dim] == [-1, 75, 75, 3]
  assert graph_def.node[-1].name == "final_result"
