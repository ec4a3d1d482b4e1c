"""The exported model: image bytes in, labels out, self-contained.

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
min(5, C). The last two functions are the signatures: they return all of these, and the `key` unchanged. They are
composed of the functions above, so that all paths compute the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from beam_retrain.trainer.export.frozen_graph import Weights
from beam_retrain.trainer.export.stored_trunk import StoredTrunk
from beam_retrain.transforms.core.images.decode import preprocess

TOP = 5


def build_exported(
  *,
  labels: Sequence[str],
  transform: Callable[[tf.Tensor], tf.Tensor],
  weights: Weights,
  input_px: int,
  dimensions: int,
) -> tf.Module:
  """Composes transform graph and head, with a placeholder for the trunk.

  Args:
    labels: class index -> label.
    transform: float32 [N, D] -> float32 [N, D].
    weights: the head's kernel and bias: logits = transformed bottlenecks @ kernel + bias.

  Returns:
    A module with the functions of the table above; the signatures are `serve_images` and `serve_bottlenecks`.
  """
  image_bytes_spec = tf.TensorSpec([None], tf.string, name="image_bytes")
  module = tf.Module()
  # The names of the inner functions are in the file, and decide the order of its functions: they stay.
  module.labels = tf.Variable(list(labels), trainable=False, name="labels")

  @tf.function(input_signature=[image_bytes_spec])
  def preprocess_pictures(image_bytes: tf.Tensor) -> tf.Tensor:
    return preprocess(image_bytes, input_px)

  module.preprocess = preprocess_pictures
  _add_scores(module, transform, weights, input_px, dimensions)
  _add_signatures(module, labels, image_bytes_spec, tf.TensorSpec([None, dimensions], tf.float32, name="bottleneck"))
  return module


def _add_scores(
  module: Any, transform: Callable[[tf.Tensor], tf.Tensor], weights: Weights, input_px: int, dimensions: int
) -> None:
  kernel, bias = weights
  image_spec = tf.TensorSpec([None, input_px, input_px, 3], tf.float32, name="images")

  @tf.function(input_signature=[image_spec])
  def embed_pictures(images: tf.Tensor) -> tf.Tensor:
    return tf.zeros([tf.shape(images)[0], dimensions])  # `save_exported` replaces this by the trunk

  @tf.function(input_signature=[tf.TensorSpec([None, dimensions], tf.float32, name="bottleneck")])
  def score_bottlenecks(bottleneck: tf.Tensor) -> dict[str, tf.Tensor]:
    logits = tf.matmul(transform(bottleneck), tf.constant(kernel)) + tf.constant(bias)
    return {"scores": tf.nn.softmax(logits)}

  @tf.function(input_signature=[image_spec])
  def score_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
    return score_bottlenecks(embed_pictures(images))

  module.embed = embed_pictures
  module.score_images = score_images
  module.score_bottlenecks = score_bottlenecks


def _add_signatures(
  module: Any, labels: Sequence[str], image_bytes_spec: tf.TensorSpec, vector_spec: tf.TensorSpec
) -> None:
  keys = tf.TensorSpec([None], tf.string, name="key")

  def decide(key: tf.Tensor, scores: tf.Tensor) -> dict[str, tf.Tensor]:
    top_scores, top_classes = tf.math.top_k(scores, k=min(TOP, len(labels)))
    top_labels = tf.gather(tf.constant(list(labels), tf.string), top_classes)
    return {
      "key": key,
      "label": top_labels[:, 0],
      "confidence": top_scores[:, 0],
      "top_labels": top_labels,
      "top_scores": top_scores,
      "scores": scores,
    }

  @tf.function(input_signature=[keys, image_bytes_spec])
  def serve_images(key: tf.Tensor, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
    return decide(key, module.score_images(module.preprocess(image_bytes))["scores"])

  @tf.function(input_signature=[keys, vector_spec])
  def serve_bottlenecks(key: tf.Tensor, bottleneck: tf.Tensor) -> dict[str, tf.Tensor]:
    return decide(key, module.score_bottlenecks(bottleneck)["scores"])

  module.serve_images = serve_images
  module.serve_bottlenecks = serve_bottlenecks


def save_exported(module: Any, folder: str, trunk: StoredTrunk) -> None:
  """Writes the module of `build_exported`, with the trunk, as a SavedModel."""
  signatures = {"serving_default": module.serve_images, "bottlenecks": module.serve_bottlenecks}
  tf.saved_model.save(module, folder, signatures=signatures)
  trunk.put_into(folder, "embed")
