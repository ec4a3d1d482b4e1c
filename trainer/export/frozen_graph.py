"""Freezes the model into `retrained_graph.pb`, for scripts written for `retrain.py`'s.

One GraphDef with all weights as constants: input `Placeholder`, float32 [N, H, W, 3], 0..1; output `final_result`, or
`--final_tensor_name`, float32 [N, C], softmax. It has no tables, nothing to initialise, and functions only for trunks
with loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from beam_retrain.trainer.export.stored_trunk import StoredTrunk, join_graphs
from beam_retrain.transforms.core.models.subgraph import extract_subgraph
from beam_retrain.transforms.core.system.tensorflow_internals import convert_variables_to_constants_v2

INPUT_NAME = "Placeholder"
_PREFIX = "retrained"
_BOTTLENECK = f"{_PREFIX}/given_bottleneck"

Weights = Sequence[np.ndarray]
"""A head's kernel, float32 [D, C], and bias, float32 [C]."""


def freeze_scores(
  score: tf.types.experimental.GenericFunction, output_name: str, input_name: str = INPUT_NAME
) -> tf.compat.v1.GraphDef:
  """Freezes an exported function: one input -> {"scores": float32 [N, C]}."""
  # This inlines every function.
  frozen = convert_variables_to_constants_v2(score.get_concrete_function())
  (argument,), (scores,) = frozen.inputs, frozen.outputs
  with tf.Graph().as_default() as graph:
    placeholder = tf.compat.v1.placeholder(tf.float32, argument.shape, name=input_name)
    (imported,) = tf.import_graph_def(
      frozen.graph.as_graph_def(),
      input_map={argument.name: placeholder},
      return_elements=[scores.name],
      name=_PREFIX,
    )
    tf.identity(imported, name=output_name)
  return extract_subgraph(graph.as_graph_def(), output_name)


def freeze_behind(
  trunk: StoredTrunk, score_bottlenecks: tf.types.experimental.GenericFunction, output_name: str
) -> tf.compat.v1.GraphDef:
  """Freezes `score_bottlenecks` behind a stored trunk.

  The graph maps float32 [N, S, S, 3] to float32 [N, C].
  """
  graph = trunk.to_graph()
  if graph is None:
    embed = tf.saved_model.load(trunk.folder).embed
    score_images = tf.function(lambda images: score_bottlenecks(embed(images)), input_signature=embed.input_signature)
    return freeze_scores(score_images, output_name)
  head = freeze_scores(score_bottlenecks, output_name, _BOTTLENECK)
  joined = join_graphs(graph, head, bottleneck=_BOTTLENECK, images=INPUT_NAME, prefix=f"{_PREFIX}/trunk/")
  return extract_subgraph(joined, output_name)


def freeze_for_any_head(
  freeze: Callable[[Weights], tf.compat.v1.GraphDef], dimensions: int, classes: int
) -> Callable[[Weights], bytes]:
  """Freezes a graph once, whatever the head's weights.

  Freezing an Inception v3 takes seconds and hundreds of megabytes; replacing the head's two constants takes neither and
  gives the same bytes.

  Args:
    freeze: a head's weights -> the graph.

  Returns:
    A function from a head's weights to the graph's file; freezes on its first call.
  """
  rng = np.random.default_rng(0)
  # Random weights mark the head's constants: no trunk has the same.
  marks = [rng.normal(size=shape).astype(np.float32) for shape in ((dimensions, classes), (classes,))]
  frozen: list[tuple[tf.compat.v1.GraphDef, list[tf.compat.v1.NodeDef]]] = []

  def with_weights(weights: Weights) -> bytes:
    if not frozen:
      graph = freeze(marks)
      frozen.append((graph, [_find_constant(graph, mark) for mark in marks]))
    ((graph, constants),) = frozen
    for constant, values in zip(constants, weights, strict=True):
      constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values))
    return graph.SerializeToString(deterministic=True)

  return with_weights


def _find_constant(graph: tf.compat.v1.GraphDef, values: np.ndarray) -> tf.compat.v1.NodeDef:
  """Raises ValueError unless exactly one constant has these values."""
  shape = list(values.shape)
  constants = [node for node in graph.node if node.op == "Const"]
  of_this_shape = [one for one in constants if [dim.size for dim in one.attr["value"].tensor.tensor_shape.dim] == shape]
  (found,) = [one for one in of_this_shape if np.array_equal(tf.make_ndarray(one.attr["value"].tensor), values)]
  return found
