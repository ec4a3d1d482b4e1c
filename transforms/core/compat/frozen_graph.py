"""Loads, tests and runs any frozen image graph, as `label_imageV3.py` did.

Images are preprocessed as in that script: decoded to RGB, 0..255; resized bilinearly; (x - mean) / std.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from beam_retrain.transforms.core.compat.allowed_operations import find_foreign, refuse_foreign
from beam_retrain.transforms.core.compat.graph_call import GraphCall
from beam_retrain.transforms.core.errors import InputError, first_line
from beam_retrain.transforms.core.images.decode import decode_rgb
from beam_retrain.transforms.core.models.inference import LoadedModel, Outputs
from beam_retrain.transforms.core.models.subgraph import extract_subgraph


def load_graph(graph: tf.compat.v1.GraphDef, call: GraphCall, path: str) -> LoadedModel:
  """Loads the needed part of a graph; outputs `scores`, float32 [N, C].

  Raises InputError if the output does not depend on the input, or depends on operations that are not allowed.
  """
  needed = extract_subgraph(graph, call.output_layer, cut_at=call.input_layer, keep_control=True)
  own_input = [index for index, node in enumerate(needed.node) if node.name == call.input_layer]
  if not own_input or call.input_layer == call.output_layer:
    raise InputError(
      f"{call.output_layer} of {path} is not computed from {call.input_layer}: give another --input_layer or"
      " --output_layer."
    )
  del needed.node[own_input[0]]
  needed.library.CopyFrom(graph.library)
  refuse_foreign(find_foreign(needed.node, graph), path)

  def run_graph(images: tf.Tensor) -> tf.Tensor:
    (scores,) = tf.import_graph_def(
      needed,
      input_map={f"{call.input_layer}:0": tf.cast(images, call.dtype)},
      return_elements=[f"{call.output_layer}:0"],
      name="",
    )
    return tf.cast(scores, tf.float32)

  images = tf.TensorSpec([call.batch or None, call.height, call.width, 3], tf.float32)
  graph_function = tf.compat.v1.wrap_function(run_graph, [images])
  decode = tf.function(lambda encoded: _read_images(encoded, call), input_signature=[tf.TensorSpec([None], tf.string)])

  def infer(images: Any) -> Outputs:
    count = len(images)
    if count < call.batch:
      images = tf.concat([images, tf.repeat(images[-1:], call.batch - count, axis=0)], axis=0)
    scores = graph_function(images).numpy()
    if scores.ndim == 0 or len(scores) != len(images):
      raise ValueError(f"{call.output_layer} gives {scores.shape} for {len(images)} images")
    return {"scores": scores[:count].reshape(count, -1)}

  return LoadedModel(lambda encoded: decode(tf.constant(encoded, tf.string)), infer)


def _read_images(encoded: tf.Tensor, call: GraphCall) -> tf.Tensor:
  """string [N] -> float32 [N, height, width, 3], normalised."""

  def read_image(one: tf.Tensor) -> tf.Tensor:
    resized = tf.raw_ops.ResizeBilinear(
      images=decode_rgb(one)[tf.newaxis],
      size=[call.height, call.width],
      half_pixel_centers=call.half_pixel_centers,
    )
    return (resized[0] - call.mean) / call.std

  spec = tf.TensorSpec([call.height, call.width, 3], tf.float32)
  return tf.map_fn(read_image, encoded, fn_output_signature=spec, parallel_iterations=8)


def try_out(model: LoadedModel, call: GraphCall, path: str) -> tuple[int, GraphCall]:
  """Runs a graph on two random images; raises InputError if it fails.

  Returns (scores per image, `call`), with a `batch` of 1 if two images at once fail, or give other scores.
  """
  pixels = np.random.default_rng(0).uniform(0, 255, (2, call.height, call.width, 3))
  images = tf.constant((pixels - call.mean) / call.std, tf.float32)
  try:
    alone = np.concatenate([model.infer(images[row : row + 1])["scores"] for row in range(2)])
  except Exception as error:
    raise InputError(
      f"{path} cannot compute {call.output_layer} from an image in {call.input_layer} ({first_line(error)[:200]}): give"
      " another --input_layer or --output_layer, or the image size it was made for."
    ) from error
  if not call.batch:
    try:
      together = model.infer(images)["scores"]
    except Exception:
      together = np.empty(0)
    if together.shape != alone.shape or not np.allclose(together, alone, rtol=1e-3, atol=1e-4):
      call = call._replace(batch=1)
  return alone.shape[1], call
