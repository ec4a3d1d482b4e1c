"""Trunks that are taken over from their files, also such as call functions of their own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from beam_retrain.trainer.export.exporter import Exporter
from beam_retrain.trainer.export.frozen_graph import freeze_behind
from beam_retrain.trainer.export.stored_trunk import StoredTrunk
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.saved_model import freeze, save_trunk

INPUT_PX, DIMENSIONS = 4, 6
WEIGHTS = np.random.default_rng(1).normal(size=(INPUT_PX * INPUT_PX * 3, DIMENSIONS)).astype(np.float32)


def straight(images: tf.Tensor) -> tf.Tensor:
  return tf.nn.relu(tf.reshape(images, [-1, WEIGHTS.shape[0]]) @ tf.constant(WEIGHTS))


def looping(images: tf.Tensor) -> tf.Tensor:
  """As some modules of TF Hub do: a loop cannot be written without functions."""
  return tf.map_fn(lambda image: tf.nn.relu(tf.reshape(image, [1, -1]) @ tf.constant(WEIGHTS))[0], images)


def store(folder: Path, embed: Callable[[tf.Tensor], tf.Tensor]) -> StoredTrunk:
  save_trunk(freeze(embed, INPUT_PX), str(folder))
  return StoredTrunk(str(folder))


@pytest.mark.parametrize("embed", [straight, looping])
def test_what_is_exported_embeds_as_the_trunk_does(tmp_path, embed):
  trunk = store(tmp_path / "trunk", embed)
  assert (trunk.to_graph() is None) == (embed is looping)
  kernel, bias = np.eye(DIMENSIONS, 3, dtype=np.float32), np.float32([0.1, 0.2, 0.3])
  exporter = Exporter(
    trunk_folder=trunk.folder,
    transform=lambda bottleneck: bottleneck * 2 - 1,
    labels=["a", "b", "c"],
    input_px=INPUT_PX,
    dimensions=DIMENSIONS,
    final_tensor_name="final_result",
  )
  module = exporter.assemble([kernel, bias])
  exporter.save(module, str(tmp_path / "model"))
  exported = tf.saved_model.load(str(tmp_path / "model"))
  images = np.random.default_rng(2).random((5, INPUT_PX, INPUT_PX, 3), np.float32)
  bottlenecks = embed(images).numpy()
  assert bottlenecks.any()
  np.testing.assert_allclose(exported.embed(images), bottlenecks, rtol=1e-5, atol=1e-6)
  scores = tf.nn.softmax((bottlenecks * 2 - 1) @ kernel + bias).numpy()
  np.testing.assert_allclose(exported.score_images(images)["scores"], scores, rtol=1e-5)

  graph = freeze_behind(trunk, module.score_bottlenecks, "final_result")
  assert [node.name for node in graph.node if node.op == "Placeholder"] == ["Placeholder"]
  with tf.Graph().as_default():
    tf.import_graph_def(graph, name="")
    with tf.compat.v1.Session() as session:
      np.testing.assert_allclose(session.run("final_result:0", {"Placeholder:0": images}), scores, rtol=1e-5)


def test_a_folder_without_a_trunk_is_told(tmp_path):
  with pytest.raises(InputError, match=r"saved_model.pb cannot be read as a SavedModel \(FileNotFoundError\)"):
    StoredTrunk(str(tmp_path))
  (tmp_path / "saved_model.pb").write_bytes(b"no protobuf")
  with pytest.raises(InputError, match="cannot be read as a SavedModel"):
    StoredTrunk(str(tmp_path))
  tf.saved_model.save(tf.Module(), str(tmp_path / "other"))
  with pytest.raises(InputError, match="holds no trunk"):
    StoredTrunk(os.path.join(tmp_path, "other"))
