"""From distance fields to images, no two alike: bent, slanted, thicker, thinner, blurred, and through a JPEG.

All in TensorFlow, a whole batch at a time, and a pure function of its seed, so that a run that was killed goes on with
the very images that it would have seen.
"""

from __future__ import annotations

import io

import numpy as np
import tensorflow as tf
from PIL import Image
from scipy import fft  # type: ignore[import-untyped]

from tools.bundled_trunk import glyphs

IMAGE_PX = 28

# Control points of the elastic field along one side, and the deviation of each, in pixels: a whole stroke leans, a
# bow flattens, a line trembles.
_ELASTIC = ((3, 1.1), (5, 0.75), (9, 0.3))
_THICKNESS_KNOTS = 4


def warp(fields: tf.Tensor, half_widths: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """Draws each glyph as another hand might have.

  Args:
    fields: uint8 [N, GRID, GRID], as in `glyphs.Bank`.
    half_widths: float32 [N], pixels.
    seed: int32 [2].

  Returns:
    float32 [N, 28, 28] in 0..1, white on black, whole 255ths.
  """
  count = tf.shape(fields)[0]
  draw = _Draws(count, seed)
  distances = _sample(fields, _places(draw))
  distances += _thickening(half_widths, draw)
  edge_px = draw.uniform(0.8, 2.0)  # how many pixels ink takes to fade
  cover = tf.clip_by_value(0.5 + distances / edge_px, 0.0, 1.0)
  cover = tf.pow(cover, tf.exp(draw.normal(0.25)))
  peak = 1.0 - 0.4 * tf.square(draw.uniform(0.0, 1.0))
  dirt = 0.05 * tf.nn.relu(draw.uniform(-4.0, 1.0)) * draw.normal(1.0, IMAGE_PX**2)
  images = tf.clip_by_value(cover * peak + dirt, 0.0, 1.0)
  return through_jpeg(tf.reshape(images, [count, IMAGE_PX, IMAGE_PX]))


def trunk_input(images: tf.Tensor, input_px: int) -> tf.Tensor:
  """float32 [N, 28, 28] in 0..1 -> float32 [N, input_px, input_px, 3] in 0..1, resized as the pipeline resizes."""
  return tf.repeat(tf.image.resize(images[..., None], [input_px, input_px]), 3, axis=-1)


def through_jpeg(images: tf.Tensor) -> tf.Tensor:
  """What a grey JPEG of quality 75 leaves of float32 [N, 28, 28] in 0..1, without the bytes."""
  pad = -IMAGE_PX % 8
  levels = tf.round(images * 255.0) - 128.0
  levels = tf.concat([levels, tf.repeat(levels[:, -1:], pad, axis=1)], axis=1)
  levels = tf.concat([levels, tf.repeat(levels[:, :, -1:], pad, axis=2)], axis=2)
  blocks = (IMAGE_PX + pad) // 8
  file = io.BytesIO()
  Image.new("L", (8, 8)).save(file, "JPEG", quality=75)
  quanta = tf.reshape(tf.constant(Image.open(file).quantization[0], tf.float32), [8, 8])
  levels = tf.transpose(tf.reshape(levels, [-1, blocks, 8, blocks, 8]), [0, 1, 3, 2, 4])
  cosines = tf.constant(fft.dct(np.eye(8), axis=0, norm="ortho"), tf.float32)
  waves = tf.round(cosines @ levels @ tf.transpose(cosines) / quanta) * quanta
  levels = tf.transpose(cosines) @ waves @ cosines
  levels = tf.reshape(tf.transpose(levels, [0, 1, 3, 2, 4]), [-1, blocks * 8, blocks * 8])
  return tf.clip_by_value(tf.round(levels[:, :IMAGE_PX, :IMAGE_PX] + 128.0), 0.0, 255.0) / 255.0


class _Draws:
  """Numbers at random for each glyph of a batch, float32 [N, columns]; every call gives others."""

  def __init__(self, count: tf.Tensor, seed: tf.Tensor):
    self.count, self.seed, self.calls = count, seed, 0

  def _next(self) -> tf.Tensor:
    self.calls += 1
    return tf.random.experimental.stateless_fold_in(self.seed, self.calls)

  def normal(self, deviation: float, columns: int = 1) -> tf.Tensor:
    """Cut at two deviations: what lies beyond is no handwriting any more."""
    return deviation * tf.random.stateless_truncated_normal([self.count, columns], self._next())

  def uniform(self, low: float, high: float, columns: int = 1) -> tf.Tensor:
    return tf.random.stateless_uniform([self.count, columns], self._next(), low, high)


def _places(draw: _Draws) -> tf.Tensor:
  """Where on its glyph each pixel looks: float32 [N, 784, 2], x and y in pixels from the centre."""
  axis = np.arange(IMAGE_PX, dtype=np.float32) - (IMAGE_PX - 1) / 2
  x, y = (tf.constant(values.reshape(1, -1)) for values in np.meshgrid(axis, axis))
  turn, slant, size, aspect = draw.normal(0.17), draw.normal(0.25), draw.normal(0.12), draw.normal(0.17)
  x_scale, y_scale = tf.exp(-size - aspect), tf.exp(-size + aspect)
  x, y = x - draw.normal(1.2), y - draw.normal(1.2)
  x, y = tf.cos(turn) * x + tf.sin(turn) * y, tf.cos(turn) * y - tf.sin(turn) * x
  x = x + slant * y
  x, y = x * x_scale, y * y_scale
  for knots, deviation in _ELASTIC:
    spread = tf.constant(_spread(knots))
    strength = draw.uniform(0.0, 1.7)
    x += strength * tf.matmul(draw.normal(deviation, knots**2), spread)
    y += strength * tf.matmul(draw.normal(deviation, knots**2), spread)
  return tf.stack([x, y], axis=-1)


def _thickening(half_widths: tf.Tensor, draw: _Draws) -> tf.Tensor:
  """Pixels to add to each distance, float32 [N, 784]: towards a thickness drawn anew, and uneven along the stroke.

  A bold face must not lose its hair lines, so it is thinned by less than half.
  """
  own = half_widths[:, None]
  wanted = tf.exp(draw.uniform(float(np.log(0.55)), float(np.log(2.1))))
  even = tf.maximum(wanted - own, -0.45 * own)
  uneven = tf.matmul(draw.normal(0.35, _THICKNESS_KNOTS**2), tf.constant(_spread(_THICKNESS_KNOTS)))
  return even + draw.uniform(0.0, 1.3) * tf.minimum(wanted, 1.0) * uneven


def _sample(fields: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
  """Distances at float places [N, P, 2], read between grid points: float32 [N, P] in pixels."""
  grid = glyphs.GRID
  at = tf.clip_by_value(places * (grid / glyphs.FRAME_PX) + (grid - 1) / 2, 0.0, grid - 1.001)
  corner = tf.floor(at)
  x, y = tf.unstack(at - corner, axis=-1)
  column, row = tf.unstack(tf.cast(corner, tf.int32), axis=-1)
  flat = tf.reshape(fields, [-1])
  index = tf.range(tf.shape(fields)[0])[:, None] * grid**2 + row * grid + column
  top_left, top_right, bottom_left, bottom_right = (
    tf.cast(tf.gather(flat, index + offset), tf.float32) for offset in (0, 1, grid, grid + 1)
  )
  top = top_left + x * (top_right - top_left)
  bottom = bottom_left + x * (bottom_right - bottom_left)
  return (top + y * (bottom - top) - 128.0) / glyphs.STEPS_PER_PX


def _spread(knots: int) -> np.ndarray:
  """Weights float32 [knots^2, 784] that turn a coarse grid of values into a smooth field of pixels."""
  at = np.linspace(0, knots - 1, IMAGE_PX)[:, None] - np.arange(knots)
  weights = np.exp(-2.0 * at**2)
  weights /= np.sqrt((weights**2).sum(1, keepdims=True))  # keeps the deviation of independent values
  return np.einsum("ya,xb->abyx", weights, weights).reshape(knots**2, -1).astype(np.float32)
