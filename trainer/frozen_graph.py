"""`retrained_graph.pb`, as `retrain.py` left it, so that scripts made for it go on working.

One GraphDef with all weights as constants: input `Placeholder`, float32 [N, H, W, 3], 0..1; output `final_result`,
float32 [N, C], softmax. No functions, no tables, nothing to initialise.
"""

from __future__ import annotations

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from trainer.sub_graph import keep_what_computes

INPUT_NAME = "Placeholder"
OUTPUT_NAME = "final_result"


def freeze_scores(score_images: tf.types.experimental.GenericFunction) -> tf.compat.v1.GraphDef:
  """Freezes `score_images` of the exported model: float32 [N, S, S, 3] -> {"scores": float32 [N, C]}."""
  # Inlines every function on the way.
  frozen = convert_variables_to_constants_v2(score_images.get_concrete_function())
  (images,), (scores,) = frozen.inputs, frozen.outputs
  with tf.Graph().as_default() as graph:
    placeholder = tf.compat.v1.placeholder(tf.float32, images.shape, name=INPUT_NAME)
    (imported,) = tf.import_graph_def(
      frozen.graph.as_graph_def(),
      input_map={images.name: placeholder},
      return_elements=[scores.name],
      name="retrained",
    )
    tf.identity(imported, name=OUTPUT_NAME)
  return keep_what_computes(graph.as_graph_def(), OUTPUT_NAME)
