"""Decodes most JPEGs and PNGs as `decode`, without TensorFlow.

TensorFlow takes longer to load than a hundred images to be computed. `simplejpeg`, of the extra `fast`, has
TensorFlow's own decoder, libjpeg-turbo, with the same choices; and PNGs of 8-bit grey or RGB values are exact anyway.
Every other image, and every one that a decoder here refuses or warns about, is left to TensorFlow.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL import Image as Pillow

from beam_retrain.transforms.core.images.formats import jpeg, png

_SPACES = {"Gray": "GRAY", "YCbCr": "RGB", "RGB": "RGB"}  # of CMYK there are several
_ROWS = 64  # at a time, so that they stay in the processor's cache
_SCALE = np.float32(1) / np.float32(255)  # TensorFlow's optimizer makes a product of its division by 255

MISSING_PIXELS = np.array([128], np.float32) * _SCALE
"""The values of pixels that a JPEG lacks: one, as CMYK is not decoded here."""


def decode_plain(encoded: Sequence[bytes], input_px: int, threads: int = 1) -> np.ndarray | None:
  """Decodes probed images as `decode.preprocess`: float32 [N, S, S, 3], 0..1.

  Returns None if one of them is left to TensorFlow. As many whole images as `threads` are in memory at a time.
  """
  resized = np.empty((len(encoded), input_px, input_px, 3), np.float32)

  def decode(place: int) -> bool:
    pixels = decode_pixels(encoded[place])
    if pixels is not None:
      _resize(pixels, resized[place])
    return pixels is not None

  with ThreadPoolExecutor(threads) if threads > 1 else contextlib.nullcontext() as pool:
    are_decoded = pool.map(decode, range(len(encoded))) if pool else map(decode, range(len(encoded)))
    return resized if all(are_decoded) else None


def decode_pixels(encoded: bytes) -> np.ndarray | None:
  """Returns a whole image, uint8 [H, W, 1 or 3], or None."""
  try:
    # Missing bits of coefficients are smoothed over, in each version of libjpeg-turbo in another way.
    if encoded.startswith(jpeg.START) and not jpeg.lacks_scans(encoded) and (simplejpeg := _simplejpeg()):
      space = _SPACES.get(simplejpeg.decode_jpeg_header(encoded)[2])
      # Raises where libjpeg would warn. As TensorFlow: a fast cosine transform, smooth upsampling.
      return simplejpeg.decode_jpeg(encoded, space, True, False) if space else None
    if png.has_only_pixels(encoded):
      with Pillow.open(io.BytesIO(encoded), formats=("PNG",)) as image:
        return np.atleast_3d(np.asarray(image))
  except Exception:  # for TensorFlow to tell
    return None
  return None


@functools.cache
def _simplejpeg() -> Any:
  """Returns the module of the extra `fast`, or None."""
  return importlib.import_module("simplejpeg") if importlib.util.find_spec("simplejpeg") else None


class _Weights(NamedTuple):
  """One side's bilinear weights: `first + (second - first) * part`.

  `first` and `second` are the pairs of input places that there are; `pair` says which one an output place has.
  """

  first: np.ndarray
  second: np.ndarray
  pair: np.ndarray
  part: np.ndarray  # float32, one for each output place


@functools.lru_cache(maxsize=256)
def _weights(size: int, input_px: int) -> _Weights:
  """Computes them as `resize_bilinear_op.cc` of TensorFlow, in float32."""
  scale = np.float32(size) / np.float32(input_px)
  place = (np.arange(input_px, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
  below = np.floor(place)
  ends = np.stack([np.maximum(below, 0), np.minimum(np.ceil(place), size - 1)]).astype(np.intp)
  (first, second), pair = np.unique(ends, axis=1, return_inverse=True)
  return _Weights(first, second, pair.reshape(-1), place - below)


@functools.lru_cache(maxsize=256)
def _weights_of_columns(size: int, channels: int, input_px: int) -> _Weights:
  """Returns the weights of a row's values.

  There are `channels` for each input place, and 3 for each output place.
  """
  weights = _weights(size, input_px)
  of_channels = functools.partial(_places, channels=channels)
  pair = of_channels(weights.pair) if channels == 3 else weights.pair.repeat(3)
  return _Weights(of_channels(weights.first), of_channels(weights.second), pair, weights.part.repeat(3))


def _places(pixels: np.ndarray, channels: int) -> np.ndarray:
  return (pixels[:, None] * channels + np.arange(channels)).reshape(-1)


def _resize(pixels: np.ndarray, out: np.ndarray) -> None:
  """Writes `pixels` to `out`, float32 [S, S, 3], 0..1."""
  height, width, channels = pixels.shape
  rows, columns = _weights(height, len(out)), _weights_of_columns(width, channels, len(out))
  # Between columns first, of those rows alone that are needed, then between rows.
  values = pixels.reshape(height, -1)
  upper = _across(values[rows.first], columns)
  lower = _across(values[rows.second], columns) - upper
  for start in range(0, len(out), _ROWS):
    part = slice(start, start + _ROWS)
    resized, pair = out[part].reshape(-1, upper.shape[1]), rows.pair[part]
    if len(upper) == len(out):
      np.multiply(lower[part], rows.part[part, None], resized)
      resized += upper[part]
    else:
      lower.take(pair, 0, resized, "clip")  # which writes to `resized`, without a copy
      resized *= rows.part[part, None]
      resized += upper.take(pair, 0)
    resized *= _SCALE


def _across(rows: np.ndarray, columns: _Weights) -> np.ndarray:
  """Resizes the rows of uint8 [R, W * C], to float32."""
  # `take` with a bound is several times as fast as an index.
  left = rows.take(columns.first, 1, mode="clip").astype(np.float32)
  right = rows.take(columns.second, 1, mode="clip") - left
  if left.shape[1] < len(columns.pair):  # else each output place has a pair of its own, as in a large image
    left, right = (side.take(columns.pair, 1, mode="clip") for side in (left, right))
  right *= columns.part
  right += left
  return right
