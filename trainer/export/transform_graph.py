"""tensorflow-transform's graph, cut down to what a head needs: bottleneck in, transformed bottleneck out.

The folder is read as the plain SavedModel that it is: importing tensorflow_transform would turn `tf.keras` into Keras 2
for the whole process. The graph also looks labels up in a table; that part is used here, to check the label list, and
then left behind, so that what remains is a pure function whose statistics are constants: the trainer, the exported
model and the frozen graph all hold that one function.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from beam_retrain.trainer.export.sub_graph import keep_what_computes
from beam_retrain.transforms.core.errors import InputError, first_line
from beam_retrain.transforms.core.records.schema import BOTTLENECK, CLASS_INDEX, LABEL


def load_transform(folder: str, labels: Sequence[str], dimensions: int) -> tf.types.experimental.ConcreteFunction:
  """Loads `B/transform`.

  Args:
    folder: what `tft_beam.WriteTransformFn` wrote.
    labels: class index -> label, as in `B/labels.txt`.
    dimensions: D.

  Returns:
    A function float32 [N, D] -> float32 [N, D]: the bottleneck as the transform graph leaves it.

  Raises:
    InputError: the folder cannot be loaded, or its label vocabulary is another than `labels`.
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
    first = first_line(error)
    raise InputError(f"{folder} cannot be used as a transform graph ({first}): run `bottlenecks` again.") from error
  if not np.array_equal(transformed[CLASS_INDEX].numpy(), np.arange(len(labels))):
    raise InputError(f"{folder} numbers the labels in another way than labels.txt: run `bottlenecks` again.")
  return _keep_only_bottleneck(transform_fn)


def _keep_only_bottleneck(
  transform_fn: tf.types.experimental.ConcreteFunction,
) -> tf.types.experimental.ConcreteFunction:
  ((features,), _) = transform_fn.structured_input_signature
  input_index = sorted(features).index(BOTTLENECK)
  output_index = sorted(transform_fn.structured_outputs).index(BOTTLENECK)
  placeholder = transform_fn.inputs[input_index]
  output = transform_fn.outputs[output_index].op.name

  # Control inputs make the bottleneck wait for the look-up of the label; without them the table stays behind.
  graph = keep_what_computes(transform_fn.graph.as_graph_def(), output)

  kept = {node.name for node in graph.node}
  # The statistics are captured from outside the function; here they become constants.
  captures = zip(transform_fn.inputs[-len(transform_fn.captured_inputs) :], transform_fn.captured_inputs, strict=True)
  statistics = {inner.op.name: outer.numpy() for inner, outer in captures if inner.op.name in kept}

  @tf.function(input_signature=[tf.TensorSpec(placeholder.shape, tf.float32, name=BOTTLENECK)])
  def transform(bottleneck: tf.Tensor) -> tf.Tensor:
    given = {name: tf.constant(value) for name, value in statistics.items()}
    (transformed,) = tf.import_graph_def(
      graph,
      input_map={placeholder.op.name: bottleneck, **given},
      return_elements=[f"{output}:0"],
      name="transform",
    )
    return tf.ensure_shape(transformed, placeholder.shape)

  return transform.get_concrete_function()
