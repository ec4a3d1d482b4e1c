"""Image bytes -> the trunk's float input: the one function that bottlenecks, evaluation and the exported model share.

It is TensorFlow throughout, so that it can be part of the exported model: two decoders or two resize functions would
part ways by a few grey levels, and a model scored with another preprocessing than it was trained with is the commonest
fault reported of `retrain.py`.
"""

from __future__ import annotations

import tensorflow as tf


def decode_and_resize(encoded: tf.Tensor, input_px: int) -> tf.Tensor:
  """Decodes one image and brings it to the trunk's size, bilinearly and without antialiasing, as `retrain.py` did.

  Pixel centres are aligned, as in all of TensorFlow 2; TensorFlow 1 was off by a fraction of a pixel.

  Args:
    encoded: string scalar, the bytes of a JPEG, PNG, BMP or GIF (of an animation, the first frame).
    input_px: the trunk's height and width.

  Returns:
    float32 [input_px, input_px, 3], 0..1.

  Raises:
    tf.errors.InvalidArgumentError: the bytes cannot be decoded.
  """
  # Straight from uint8: a large photo as float32 would take four times the memory, several at a time.
  resized = tf.image.resize(decode_rgb(encoded), [input_px, input_px], method="bilinear", antialias=False)
  # float32 0..255
  return tf.ensure_shape(resized, [input_px, input_px, 3]) / 255.0


def decode_rgb(encoded: tf.Tensor) -> tf.Tensor:
  """Decodes one image by what it is, whatever its file was called.

  Args:
    encoded: string scalar, the bytes of a JPEG, PNG, BMP or GIF (of an animation, the first frame).

  Returns:
    uint8 [H, W, 3], 0..255.

  Raises:
    tf.errors.InvalidArgumentError: the bytes cannot be decoded.
  """
  # BMP is decoded with the channels it has, since TensorFlow refuses to change them on the way.
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
  """`decode_and_resize` for a batch.

  Args:
    encoded: string [N].
    input_px: the trunk's height and width.

  Returns:
    float32 [N, input_px, input_px, 3], 0..1.
  """
  return tf.map_fn(
    lambda one: decode_and_resize(one, input_px),
    encoded,
    fn_output_signature=tf.TensorSpec([input_px, input_px, 3], tf.float32),
    parallel_iterations=8,
  )


def preprocess_alike(encoded: tf.Tensor, input_px: int) -> tf.Tensor:
  """`preprocess` for a batch of images of one size: the same bits, in less than half the time where it enlarges them.

  Enlarging across first leaves few rows to do it for; then each column and channel is a channel to the resize function,
  which has nothing more to do across. That is how bilinear values are made anyway: between the left and the right, and
  then between what that gives above and below.

  Args:
    encoded: string [N], N known when it is traced; JPEG or PNG, of one height and width, neither above `input_px`: of a
      larger one it would hold more than `preprocess`, and be slower.
    input_px: the trunk's height and width.

  Returns:
    float32 [N, input_px, input_px, 3], 0..1.
  """
  pixels = tf.stack([tf.io.decode_image(one, channels=3, expand_animations=False) for one in tf.unstack(encoded)])
  # uint8 [N, H, W, 3], 0..255
  pixels.set_shape([None, None, None, 3])
  rows = tf.shape(pixels)[1]
  across = tf.image.resize(pixels, tf.stack([rows, input_px]))  # float32 [N, H, input_px, 3], 0..255
  columns = tf.reshape(across, [-1, rows, 1, input_px * 3])
  down = tf.image.resize(columns, [input_px, 1])
  return tf.reshape(down, [-1, input_px, input_px, 3]) / 255.0
