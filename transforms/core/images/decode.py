"""Decodes images for the trunk, in bottlenecks, evaluation and exported models alike.

It is all TensorFlow, so that the exported model can contain it: two decoders or resize functions would differ by a few
grey levels, and models scored with another preprocessing than they were trained with are the most common bug reported
of `retrain.py`.
"""

from __future__ import annotations

import tensorflow as tf


def decode_and_resize(encoded: tf.Tensor, input_px: int) -> tf.Tensor:
  """Decodes one image: float32 [input_px, input_px, 3], 0..1.

  Bilinear without antialiasing, as in `retrain.py`; but pixel centres are aligned, as in all of TensorFlow 2, where
  TensorFlow 1 was off by a fraction of a pixel. `encoded` is a string scalar, the bytes of a JPEG, PNG, BMP or GIF (the
  first frame of an animation).

  Raises:
    tf.errors.InvalidArgumentError: the bytes cannot be decoded.
  """
  # Resized from uint8: as float32, a large photo would take four times the memory.
  resized = tf.image.resize(decode_rgb(encoded), [input_px, input_px], method="bilinear", antialias=False)
  # float32 0..255
  return tf.ensure_shape(resized, [input_px, input_px, 3]) / 255.0


def decode_rgb(encoded: tf.Tensor) -> tf.Tensor:
  """Decodes one image, as above, to uint8 [H, W, 3], 0..255."""
  # TensorFlow decodes a BMP only with the channels it has.
  is_bmp = tf.strings.substr(encoded, 0, 2) == b"BM"
  pixels = tf.cond(
    is_bmp,
    lambda: _to_rgb(tf.io.decode_bmp(encoded, channels=0)),
    lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
  )
  pixels.set_shape([None, None, 3])
  return pixels


def _to_rgb(pixels: tf.Tensor) -> tf.Tensor:
  """uint8 [H, W, 1, 3 or 4] -> uint8 [H, W, 3]."""
  grey = tf.equal(tf.shape(pixels)[2], 1)
  return tf.cond(grey, lambda: tf.tile(pixels, [1, 1, 3]), lambda: pixels[:, :, :3])


def preprocess(encoded: tf.Tensor, input_px: int) -> tf.Tensor:
  """`decode_and_resize` of string [N]: float32 [N, input_px, input_px, 3], 0..1."""
  return tf.map_fn(
    lambda one: decode_and_resize(one, input_px),
    encoded,
    fn_output_signature=tf.TensorSpec([input_px, input_px, 3], tf.float32),
    parallel_iterations=8,
  )


def preprocess_alike(encoded: tf.Tensor, input_px: int) -> tf.Tensor:
  """`preprocess` for images of one size, twice as fast when enlarging.

  The result is the same to the bit. Rows are enlarged first; then each column and channel becomes a channel of a resize
  of height alone, just as bilinear values are computed: first between left and right, then between above and below.

  `encoded` is string [N], N known when traced: JPEG or PNG of one height and width, neither above `input_px`, since
  larger ones would take more memory and time than in `preprocess`.
  """
  pixels = tf.stack([tf.io.decode_image(one, channels=3, expand_animations=False) for one in tf.unstack(encoded)])
  # uint8 [N, H, W, 3], 0..255
  pixels.set_shape([None, None, None, 3])
  rows = tf.shape(pixels)[1]
  across = tf.image.resize(pixels, tf.stack([rows, input_px]))  # float32 [N, H, input_px, 3], 0..255
  columns = tf.reshape(across, [-1, rows, 1, input_px * 3])
  down = tf.image.resize(columns, [input_px, 1])
  return tf.reshape(down, [-1, input_px, input_px, 3]) / 255.0
