"""The exported model: image bytes in, labels out, with everything it needs inside.

| function            | in                                   | out                                              |
|---------------------|--------------------------------------|--------------------------------------------------|
| `preprocess`        | string [N], image bytes            | float32 [N, S, S, 3], 0..1                       |
| `embed`             | float32 [N, S, S, 3], 0..1           | float32 [N, D]: the trunk alone                  |
| `score_images`      | float32 [N, S, S, 3], 0..1           | `scores`                                         |
| `score_bottlenecks` | float32 [N, D], as the trunk gives   | `scores`                                         |
| `serving_default`   | `key`, `image_bytes`: string [N]     | `key`, `label`, `confidence`, `top_labels`, ...  |
| `bottlenecks`       | `key` string [N], `bottleneck`       | the same                                         |

`scores` is float32 [N, C], 0..1, in the order of `labels`; `confidence` float32 [N] is the highest of them and `label`
string [N] its label; `top_labels` string [N, K] and `top_scores` float32 [N, K] are the K best, best first, and K is
min(5, C). The last two functions are the signatures, and give all of these and the `key` as it came.
The signatures are made of the functions above them, so what one path computes, all compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from beam_retrain.trainer.export.stored_trunk import StoredTrunk
from beam_retrain.transforms.core.images.decode import preprocess

TOP = 5


def build_exported(
  *,
  labels: Sequence[str],
  transform: Callable[[tf.Tensor], tf.Tensor],
  weights: Sequence[np.ndarray],
  input_px: int,
  dimensions: int,
) -> tf.Module:
  """Puts transform graph and head together, and leaves a place for the trunk.

  Args:
    labels: class index -> label.
    transform: float32 [N, D] -> float32 [N, D].
    weights: the head's, float32 [D, C] and float32 [C]: logits = transformed bottlenecks @ the first + the second.
    input_px: S.
    dimensions: D.

  Returns:
    A module with the functions of the table above; the two signatures are its `serve_images` and `serve_bottlenecks`.
  """
  kernel, bias = weights
  top = min(TOP, len(labels))
  keys = tf.TensorSpec([None], tf.string, name="key")
  picture_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
  pictures = tf.TensorSpec([None, input_px, input_px, 3], tf.float32, name="images")
  vectors = tf.TensorSpec([None, dimensions], tf.float32, name="bottleneck")

  module = tf.Module()
  module.labels = tf.Variable(list(labels), trainable=False, name="labels")

  @tf.function(input_signature=[picture_bytes])
  def preprocess_images(image_bytes: tf.Tensor) -> tf.Tensor:
    return preprocess(image_bytes, input_px)

  @tf.function(input_signature=[pictures])
  def embed_images(images: tf.Tensor) -> tf.Tensor:
    return tf.zeros([tf.shape(images)[0], dimensions])  # until `save_exported` puts the trunk here

  @tf.function(input_signature=[vectors])
  def score_bottlenecks(bottleneck: tf.Tensor) -> dict[str, tf.Tensor]:
    logits = tf.matmul(transform(bottleneck), tf.constant(kernel)) + tf.constant(bias)
    return {"scores": tf.nn.softmax(logits)}

  @tf.function(input_signature=[pictures])
  def score_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
    return score_bottlenecks(embed_images(images))

  def decide(key: tf.Tensor, scores: tf.Tensor) -> dict[str, tf.Tensor]:
    top_scores, top_classes = tf.math.top_k(scores, k=top)
    top_labels = tf.gather(tf.constant(list(labels), tf.string), top_classes)
    return {
      "key": key,
      "label": top_labels[:, 0],
      "confidence": top_scores[:, 0],
      "top_labels": top_labels,
      "top_scores": top_scores,
      "scores": scores,
    }

  @tf.function(input_signature=[keys, picture_bytes])
  def serve_images(key: tf.Tensor, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
    return decide(key, score_images(preprocess_images(image_bytes))["scores"])

  @tf.function(input_signature=[keys, vectors])
  def serve_bottlenecks(key: tf.Tensor, bottleneck: tf.Tensor) -> dict[str, tf.Tensor]:
    return decide(key, score_bottlenecks(bottleneck)["scores"])

  module.preprocess = preprocess_images
  module.embed = embed_images
  module.score_images = score_images
  module.score_bottlenecks = score_bottlenecks
  module.serve_images = serve_images
  module.serve_bottlenecks = serve_bottlenecks
  return module


def save_exported(module: Any, folder: str, trunk: StoredTrunk) -> None:
  """Writes the module of `build_exported` as a SavedModel, with the trunk in its place."""
  signatures = {"serving_default": module.serve_images, "bottlenecks": module.serve_bottlenecks}
  tf.saved_model.save(module, folder, signatures=signatures)
  trunk.put_into(folder, "embed")
