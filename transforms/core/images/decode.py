"""Decodes images for the trunk, in bottlenecks, evaluation and exported models alike.

It is all TensorFlow, so that the exported model can contain it: two decoders or resize functions would differ by a few
grey levels, and models scored with another preprocessing than they were trained with are the most common bug reported
of `retrain.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from beam_retrain.transforms.core.images.formats import bmp, webp

_BYTES = [bytes([value]) for value in range(256)]


def decode_and_resize(encoded: tf.Tensor, input_px: int) -> tf.Tensor:
  """Decodes one image: float32 [input_px, input_px, 3], 0..1.

  Bilinear without antialiasing, as in `retrain.py`; but pixel centres are aligned, as in all of TensorFlow 2, where
  TensorFlow 1 was off by a fraction of a pixel. `encoded` is a string scalar, the bytes of a JPEG, PNG, BMP, GIF or
  WebP (the first frame of an animation). Raises tf.errors.InvalidArgumentError if the bytes cannot be decoded.
  """
  # Resized from uint8: as float32, a large photo would take four times the memory.
  resized = tf.image.resize(decode_rgb(encoded), [input_px, input_px], method="bilinear", antialias=False)
  # float32 0..255
  return tf.ensure_shape(resized, [input_px, input_px, 3]) / 255.0


def decode_rgb(encoded: tf.Tensor) -> tf.Tensor:
  """Decodes one image, as above, to uint8 [H, W, 3], 0..255."""
  # TensorFlow decodes a BMP or WebP only with the channels it has.
  start = tf.strings.substr(encoded, 0, 2)
  pixels = tf.cond(
    tf.logical_or(start == b"BM", start == b"RI"),
    lambda: _to_rgb(
      tf.cond(
        start == b"BM",
        lambda: tf.io.decode_bmp(_bmp_in_bgr(encoded), channels=0),
        lambda: tf.io.decode_image(_webp_with_alpha(encoded), channels=0, expand_animations=False),
      )
    ),
    lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
  )
  pixels.set_shape([None, None, 3])
  return pixels


def _to_rgb(pixels: tf.Tensor) -> tf.Tensor:
  """uint8 [H, W, 1, 3 or 4] -> uint8 [H, W, 3]."""
  grey = tf.equal(tf.shape(pixels)[2], 1)
  return tf.cond(grey, lambda: tf.tile(pixels, [1, 1, 3]), lambda: pixels[:, :, :3])


def _bmp_in_bgr(encoded: tf.Tensor) -> tf.Tensor:
  """Returns a BMP, or no image if its colours would be wrong.

  The same is refused as in `formats.bmp`. No assertion, which would make TensorFlow decode one image after the other.
  """
  header = tf.io.decode_raw(tf.strings.substr(encoded, 14, 36), tf.uint16)  # little-endian
  size, bits, compression = (tf.cast(header[at], tf.int32) for at in (0, 7, 8))
  count = tf.cast(header[16], tf.int32)
  entries = tf.where(count == 0, 256, tf.minimum(count, 256))
  palette = tf.io.decode_raw(tf.strings.substr(encoded, 14 + size, 4 * entries), tf.uint8)
  greys = tf.repeat(tf.cast(tf.range(entries), tf.uint8), 4)
  is_grey = tf.reduce_all(tf.logical_or(palette == greys[: tf.size(palette)], tf.range(tf.size(palette)) % 4 == 3))
  no_masks = tf.strings.substr(encoded, bmp.MASKS_AT, 12) == bmp.BGR_MASKS
  plain = tf.logical_and(compression == 0, tf.logical_or(bits != 8, is_grey))
  masked = tf.logical_and(tf.logical_or(compression == 3, compression == 6), tf.logical_and(bits != 8, no_masks))
  right = tf.logical_and(tf.reduce_any(size == bmp.HEADERS), tf.logical_or(plain, masked))
  wrong = tf.constant(b"a BMP with a palette, masks or a compression of its own")
  return tf.cond(right, lambda: encoded, lambda: wrong)  # tf.where would copy the file


def _webp_with_alpha(encoded: tf.Tensor) -> tf.Tensor:
  """Returns a WebP, an animated one marked as having an alpha channel.

  TensorFlow 2.21 writes four channels of an animation, whatever the file says, into the room for those it says.
  """
  is_webp = tf.strings.substr(encoded, 8, 4) == webp.NAME
  flags = tf.io.decode_raw(tf.strings.substr(encoded, 20, 1), tf.uint8)[0]
  is_animated = tf.logical_and(tf.strings.substr(encoded, 12, 4) == b"VP8X", tf.bitwise.bitwise_and(flags, 2) > 0)
  marked = tf.gather(_BYTES, tf.cast(tf.bitwise.bitwise_or(flags, 16), tf.int32))
  rest = tf.strings.substr(encoded, 21, tf.strings.length(encoded))
  with_alpha = tf.strings.join([tf.strings.substr(encoded, 0, 20), marked, rest])
  return tf.where(is_webp, tf.where(is_animated, with_alpha, encoded), b"no WebP")


def preprocess(encoded: tf.Tensor, input_px: int) -> tf.Tensor:
  """`decode_and_resize` of string [N]: float32 [N, input_px, input_px, 3], 0..1."""
  return tf.map_fn(
    lambda one: decode_and_resize(one, input_px),
    encoded,
    fn_output_signature=tf.TensorSpec([input_px, input_px, 3], tf.float32),
    parallel_iterations=8,
  )


def decoder(input_px: int) -> Callable[[tf.Tensor], tf.Tensor]:
  """Returns `preprocess` as one graph for any number of images."""
  # Nothing here needs AutoGraph, which takes time, and leaves files where a process ends before its exit.
  signature = [tf.TensorSpec([None], tf.string)]
  return tf.function(lambda encoded: preprocess(encoded, input_px), signature, autograph=False)


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
