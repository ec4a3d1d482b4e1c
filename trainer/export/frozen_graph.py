"""Freezes the model into `retrained_graph.pb`, for scripts written for `retrain.py`'s.

One GraphDef with all weights as constants: input `Placeholder`, float32 [N, H, W, 3], 0..1; output `final_result`, or
`--final_tensor_name`, float32 [N, C], softmax. It has no tables, nothing to initialise, and functions only for trunks
with loops.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from beam_retrain.trainer.export.stored_trunk import StoredTrunk
from beam_retrain.transforms.core.models.saved_model import load_saved_model
from beam_retrain.transforms.core.models.subgraph import extract_subgraph
from beam_retrain.transforms.core.system.tensorflow_internals import convert_variables_to_constants_v2

INPUT_NAME = "Placeholder"
_PREFIX = "retrained"
_BOTTLENECK = f"{_PREFIX}/given_bottleneck"

Weights = Sequence[np.ndarray]  # a head's kernel, float32 [D, C], and bias, float32 [C]


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
  graph = trunk.to_graph()
  if graph is None:
    embed = load_saved_model(trunk.folder).embed
    score_images = tf.function(lambda images: score_bottlenecks(embed(images)), input_signature=embed.input_signature)
    return freeze_scores(score_images, output_name)
  head = freeze_scores(score_bottlenecks, output_name, _BOTTLENECK)
  return extract_subgraph(_join(*graph, head), output_name)


def _join(
  graph: tf.compat.v1.GraphDef, trunk_input: str, trunk_output: str, head: tf.compat.v1.GraphDef
) -> tf.compat.v1.GraphDef:
  """Adds the head, whose nodes keep their names, to the trunk's graph."""

  def renamed(source: str) -> str:
    control, name = ("^", source[1:]) if source.startswith("^") else ("", source)
    node, colon, output = name.partition(":")
    return f"{control}{INPUT_NAME if node == trunk_input else f'{_PREFIX}/trunk/{node}'}{colon}{output}"

  for node in graph.node:
    node.name = renamed(node.name)
    node.input[:] = [renamed(source) for source in node.input]
  result = renamed(trunk_output).removesuffix(":0")
  graph.versions.CopyFrom(head.versions)
  for node in head.node:
    if node.name != _BOTTLENECK:
      copy = graph.node.add()
      copy.CopyFrom(node)
      copy.input[:] = [result if source == _BOTTLENECK else source for source in node.input]
  return graph


def find_constant(graph: tf.compat.v1.GraphDef, values: np.ndarray) -> tf.compat.v1.NodeDef:
  """Returns the only constant with these values."""
  shape = list(values.shape)
  constants = [node for node in graph.node if node.op == "Const"]
  of_this_shape = [one for one in constants if [dim.size for dim in one.attr["value"].tensor.tensor_shape.dim] == shape]
  (constant,) = [one for one in of_this_shape if np.array_equal(tf.make_ndarray(one.attr["value"].tensor), values)]
  return constant
