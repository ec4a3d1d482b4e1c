"""Loads tensorflow-transform's graph as a function of bottlenecks.

The folder is loaded as a plain SavedModel: importing tensorflow_transform would turn `tf.keras` into Keras 2 for the
whole process. The graph also looks labels up in a table, which only checks the label list here and is then left out,
so that trainer, exported model and frozen graph share one pure function with constant statistics.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from beam_retrain.transforms.core.errors import InputError, first_line
from beam_retrain.transforms.core.models.subgraph import extract_subgraph
from beam_retrain.transforms.core.records.schema import BOTTLENECK, CLASS_INDEX, LABEL


def load_transform(folder: str, labels: Sequence[str], dimensions: int) -> tf.types.experimental.ConcreteFunction:
  """Loads the folder `transform` of a `bottlenecks` output.

  Args:
    labels: class index -> label, as in `labels.txt`.

  Returns:
    A function float32 [N, D] -> float32 [N, D].

  Raises:
    InputError: the folder cannot be loaded, or its label vocabulary differs from `labels`.
  """
  try:
    transform_fn = tf.saved_model.load(os.path.join(folder, "transform_fn")).transform_fn
    transformed = transform_fn(
      {
        BOTTLENECK: tf.zeros([len(labels), dimensions]),
        LABEL: tf.constant(list(labels), tf.string),
      }
    )
  except Exception as error:
    raise InputError(
      f"{folder} cannot be used as a transform graph ({first_line(error)}): run `bottlenecks` again."
    ) from error
  if not np.array_equal(transformed[CLASS_INDEX].numpy(), np.arange(len(labels))):
    raise InputError(f"{folder} numbers the labels differently from labels.txt: run `bottlenecks` again.")
  return _bottleneck_only(transform_fn)


def _bottleneck_only(
  transform_fn: tf.types.experimental.ConcreteFunction,
) -> tf.types.experimental.ConcreteFunction:
  ((features,), _) = transform_fn.structured_input_signature
  input_index = sorted(features).index(BOTTLENECK)
  output_index = sorted(transform_fn.structured_outputs).index(BOTTLENECK)
  placeholder = transform_fn.inputs[input_index]
  output = transform_fn.outputs[output_index].op.name

  # Without the control inputs, which wait for the label's look-up, the table is left out.
  graph = extract_subgraph(transform_fn.graph.as_graph_def(), output)

  kept = {node.name for node in graph.node}
  # The captured statistics become constants.
  captures = zip(transform_fn.inputs[-len(transform_fn.captured_inputs) :], transform_fn.captured_inputs, strict=True)
  statistics = {inner.op.name: outer.numpy() for inner, outer in captures if inner.op.name in kept}

  @tf.function(input_signature=[tf.TensorSpec(placeholder.shape, tf.float32, name=BOTTLENECK)])
  def transform(bottleneck: tf.Tensor) -> tf.Tensor:
    constants = {name: tf.constant(value) for name, value in statistics.items()}
    (transformed,) = tf.import_graph_def(
      graph,
      input_map={placeholder.op.name: bottleneck, **constants},
      return_elements=[f"{output}:0"],
      name="transform",
    )
    return tf.ensure_shape(transformed, placeholder.shape)

  return transform.get_concrete_function()
