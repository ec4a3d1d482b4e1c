"""Applies distortions in TensorFlow, decoding each image once.

Decoding and resizing are those of `decode`, so that a variant without distortions is what the trunk sees of the image
itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from beam_retrain.transforms.core.images.augment import Distortions, Variant
from beam_retrain.transforms.core.images.decode import decode_rgb

_IMAGES_AT_ONCE = 8
_BYTES_AT_ONCE = 1 << 28


def distort(pixels: tf.Tensor, geometry: tf.Tensor, brightness: tf.Tensor, input_px: int) -> tf.Tensor:
  """Makes one variant: float32 [S, S, 3], 0..2, not clipped.

  Operations and order are those of `retrain.py`'s `add_input_distortions`. `pixels` are uint8 [H, W, 3], 0..255;
  `geometry` is int32 [4], the first fields of a `Variant`; `brightness` is a float32 scalar, 0..2; S is `input_px`.
  """
  side, top, left, mirrored = tf.unstack(geometry)
  resized = tf.image.resize(pixels, [side, side], method="bilinear", antialias=False) / 255.0  # 0..1
  cropped = resized[top : top + input_px, left : left + input_px]
  turned = tf.cond(mirrored != 0, lambda: tf.reverse(cropped, [1]), lambda: cropped)
  return tf.ensure_shape(turned, [input_px, input_px, 3]) * brightness  # 0..2


def make_distort_all(distortions: Distortions, input_px: int) -> Callable[[Sequence[bytes], Sequence[str]], tf.Tensor]:
  """Returns a function from N images and their keys to all variants.

  It returns float32 [N, K, S, S, 3], S = `input_px`, for K copies, copy 1 first. Large images are resized one at a time
  where several would take too much memory.
  """
  largest_bytes = int(distortions.enlargement * input_px) ** 2 * 3 * 4
  at_once = max(1, min(_IMAGES_AT_ONCE, _BYTES_AT_ONCE // largest_bytes))
  shape = [input_px, input_px, 3]

  def distort_one(encoded: tf.Tensor, geometry: tf.Tensor, brightness: tf.Tensor) -> tf.Tensor:
    pixels = decode_rgb(encoded)
    return tf.map_fn(
      lambda drawn: distort(pixels, drawn[0], drawn[1], input_px),
      (geometry, brightness),
      fn_output_signature=tf.TensorSpec(shape, tf.float32),
      parallel_iterations=1,
    )

  @tf.function(
    input_signature=[
      tf.TensorSpec([None], tf.string),
      tf.TensorSpec([None, distortions.copies, 4], tf.int32),
      tf.TensorSpec([None, distortions.copies], tf.float32),
    ]
  )
  def distort_all(encoded: tf.Tensor, geometry: tf.Tensor, brightness: tf.Tensor) -> tf.Tensor:
    return tf.map_fn(
      lambda one: distort_one(*one),
      (encoded, geometry, brightness),
      fn_output_signature=tf.TensorSpec([distortions.copies, *shape], tf.float32),
      parallel_iterations=at_once,
    )

  def draw_and_distort(encoded: Sequence[bytes], keys: Sequence[str]) -> tf.Tensor:
    drawn = [distortions.variants(key, input_px) for key in keys]
    return distort_all(tf.constant(encoded, tf.string), *_as_arrays(drawn))

  return draw_and_distort


def _as_arrays(drawn: Sequence[Sequence[Variant]]) -> tuple[np.ndarray, np.ndarray]:
  """Returns int32 [N, K, 4] and float32 [N, K]: see `distort`."""
  geometry = np.array([[variant[:4] for variant in variants] for variants in drawn], np.int32)
  return geometry, np.array([[variant.brightness for variant in variants] for variants in drawn], np.float32)
