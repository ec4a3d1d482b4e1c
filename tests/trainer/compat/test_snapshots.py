"""`train --preset retrain`: the graphs and checkpoints of the training so far."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from beam_retrain.trainer.compat.callbacks import Snapshots
from beam_retrain.trainer.compat.retrain_options import RetrainOptions
from beam_retrain.trainer.fit.head import Score, build_head
from beam_retrain.trainer.request import TrainRequest
from beam_retrain.transforms.core.compat.graph_call import find_call, parse_graph
from beam_retrain.transforms.core.models.head import Head, decode_head
from beam_retrain.transforms.core.models.score_paths import frozen_graph
from beam_retrain.transforms.core.records.schema import decode_bottleneck
from beam_retrain.transforms.core.records.tfrecord import read_records
from tests.trainer.compat.retrain_suite import GRAPHS, everything_in, flags_below, like_retrain, run

__all__ = ["like_retrain"]  # fixtures


def stored_bottlenecks(folder: Path) -> tuple[np.ndarray, np.ndarray]:
  """Returns float32 [N, D] and int64 [N]."""
  stored = []
  for path in sorted((folder / "records").glob("*.tfrecord")):
    with path.open("rb") as file:
      stored += [decode_bottleneck(record) for record in read_records(file, path.name)]
  return np.stack([one.vector for one in stored]), np.array([one.class_index for one in stored])


def test_graphs_of_the_training_so_far(like_retrain):
  graphs = like_retrain.folder / "made" / "graphs"
  assert sorted(path.name for path in graphs.iterdir()) == [f"intermediate_{step}.pb" for step in GRAPHS]
  for step in GRAPHS:
    assert f"Save intermediate result to : {graphs}/intermediate_{step}.pb\n" in like_retrain.out
  # Step 44 is the last one.
  whole = (like_retrain.folder / "model" / "retrained_graph.pb").read_bytes()
  assert (graphs / "intermediate_44.pb").read_bytes() == whole
  assert (graphs / "intermediate_22.pb").read_bytes() != whole


def test_a_graph_so_far_is_that_of_a_training_that_ended_there(like_retrain, tmp_path, bottlenecks_folder):
  """Bit for bit what freezing that head anew gives: a graph that is frozen once takes other heads."""
  flags = [flag for flag in flags_below(tmp_path)[:4] if "steps" not in flag]
  name = "--final_tensor_name=scope/My_result"
  assert run(bottlenecks_folder, tmp_path / "model", *flags, "--training_steps=23", name) == 0
  ended_there = (tmp_path / "model" / "retrained_graph.pb").read_bytes()
  assert (like_retrain.folder / "made" / "graphs" / "intermediate_22.pb").read_bytes() == ended_there


def test_the_final_tensor_has_the_name_that_was_asked_for(like_retrain, small_images):
  model = like_retrain.folder / "model"
  graph = parse_graph((model / "retrained_graph.pb").read_bytes(), "graph")
  assert graph.node[-1].name == "scope/My_result"
  # label_image --resize auto knows that it is ours, and resizes as it was trained.
  unknown = {"height": None, "width": None, "mean": 0.0, "std": 255.0, "half_pixel_centers": None}
  call = find_call(graph, "graph", input_layer="Placeholder", output_layer="scope/My_result", **unknown)
  assert (call.half_pixel_centers, call.height, call.width) == (True, 75, 75)
  images = [(small_images / "white" / f"{number}.jpg").read_bytes() for number in (0, 4)]
  scores = frozen_graph(str(model)).score(images)
  exported = tf.saved_model.load(str(model / "saved_model"))
  np.testing.assert_allclose(
    scores, exported.score_images(exported.preprocess(tf.constant(images)))["scores"], atol=1e-6
  )


@pytest.fixture(scope="module")
def exported(like_retrain):
  return tf.saved_model.load(str(like_retrain.folder / "model" / "saved_model"))


@pytest.mark.parametrize(
  "name", ["final_result", "softmax", "a/b/c", "retrained_result", "PLACEHOLDER_2", ".x", "a>b", "1-2", "x" * 200]
)
def test_a_graph_of_any_final_name_is_known_to_be_ours(exported, name):
  from beam_retrain.trainer.export.frozen_graph import freeze_scores

  assert parse(f"--final_tensor_name={name}").output_name == name
  graph = freeze_scores(exported.score_images, name)
  unknown = {"height": None, "width": None, "mean": 0.0, "std": 255.0, "half_pixel_centers": None}
  assert find_call(graph, "graph", input_layer="Placeholder", output_layer=name, **unknown).half_pixel_centers


def test_the_checkpoint_is_the_head_on_plain_bottlenecks(like_retrain, bottlenecks_folder):
  prefix = like_retrain.folder / "made" / "too" / "_checkpoint"
  assert sorted(path.name for path in prefix.parent.iterdir()) == [
    "_checkpoint.data-00000-of-00001",
    "_checkpoint.index",
  ]
  reader = tf.train.load_checkpoint(str(prefix))
  weights, biases = (
    reader.get_tensor(f"final_retrain_ops/{name}") for name in ("weights/final_weights", "biases/final_biases")
  )
  assert reader.get_variable_to_shape_map() == {
    "final_retrain_ops/weights/final_weights": [96, 3],
    "final_retrain_ops/biases/final_biases": [3],
  }
  vectors, _ = stored_bottlenecks(bottlenecks_folder)
  logits = vectors.astype(np.float64) @ weights + biases
  powers = np.exp(logits - logits.max(axis=1, keepdims=True))
  head = decode_head((like_retrain.folder / "model" / "head.npz").read_bytes(), "head.npz")
  np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), head.score(vectors), atol=1e-5)


def test_a_checkpoint_stands_at_each_graph(tmp_path):
  """As in retrain.py: whoever kills the training has the checkpoint of the last graph."""
  args = ("--intermediate_store_frequency=3", f"--intermediate_output_graphs_dir={tmp_path}/graphs")
  options = parse(*args, f"--checkpoint_path={tmp_path}/_checkpoint")
  model = build_head(5, 2, seed=0)
  scale, offset = np.arange(1, 6, dtype=np.float32), np.arange(5, dtype=np.float32)

  class Exporter:
    def freeze(self, weights) -> bytes:
      return weights[1].tobytes()

    def flatten(self, head) -> Head:
      return Head(scale, offset, *head.get_weights())

  snapshots = Snapshots(options, Exporter(), io.StringIO())
  for step in range(8):
    model.set_weights([np.full((5, 2), step, np.float32), np.full(2, step, np.float32)])
    snapshots.on_step(step, Score(2.0, 1, 4), model)
    last = step // 3 * 3
    assert (tmp_path / "_checkpoint.index").exists() == bool(last)
    if last:
      reader = tf.train.load_checkpoint(str(tmp_path / "_checkpoint"))
      weights = reader.get_tensor("final_retrain_ops/weights/final_weights")
      np.testing.assert_array_equal(weights, np.outer(scale, [last, last]))
      # 0 + 1 + 2 + 3 + 4 from the offset, and the bias.
      np.testing.assert_array_equal(reader.get_tensor("final_retrain_ops/biases/final_biases"), [11 * last] * 2)
  assert everything_in(tmp_path / "graphs") == {
    f"intermediate_{step}.pb": np.full(2, step, np.float32).tobytes() for step in (3, 6)
  }


def parse(*flags: str) -> RetrainOptions:
  return TrainRequest.parse(["--input=b", "--output=m", *flags])


def test_no_graphs_where_none_are_asked_for_and_a_checkpoint_at_the_end(tmp_path, bottlenecks_folder, like_retrain):
  flags = [flag for flag in flags_below(tmp_path) if "frequency" not in flag]
  assert run(bottlenecks_folder, tmp_path / "model", *flags, "--intermediate_store_frequency=0") == 0
  assert not (tmp_path / "made" / "graphs").exists()
  # The other one was written last with the graph of step 44, the last.
  assert everything_in(tmp_path / "made" / "too") == everything_in(like_retrain.folder / "made" / "too")
