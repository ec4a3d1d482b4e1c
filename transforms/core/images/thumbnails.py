"""Thumbnails of what the model sees, hundreds in one report."""

from __future__ import annotations

import base64
import functools
import io

import numpy as np
from PIL import Image as Pillow

from beam_retrain.transforms.core.images.decode_plain import decode_pixels
from beam_retrain.transforms.core.images.headers import (
  MAX_PIXELS,
  Fault,
  ImageInfo,
  find_missing_pixels,
  jpegs_like_missing_pixels,
  probe_image,
)
from beam_retrain.transforms.core.system.imports import load_tensorflow

SIDE_PX = 128
JPEG_FROM_PX = 40 * 40
"""Below this, a lossless PNG is not much larger than a JPEG."""
MAX_ERROR = 40
"""Grey levels by which a JPEG may differ from the pixels that it shows, else it is a PNG; photos differ by 27."""
_RATIOS = (8, 4, 2)
_HASH_PX = 8
_FLAT = 2  # grey levels that count as none


def thumbnail(encoded: bytes, max_pixels: int = MAX_PIXELS) -> str | None:
  """Returns a `data:` URI, at most 128 px square, or None."""
  info = probe_image(encoded, max_pixels)
  if isinstance(info, Fault):
    return None
  data, ratio = info.cut or encoded, _ratio(info)
  pixels = decode_pixels(data) if ratio == 1 else None  # of a whole image
  if pixels is None:
    try:
      pixels = _decode(data, info.format, ratio)
    except Exception:
      return None  # damaged: the report shows a placeholder
    if info.format == "jpeg" and _ends_grey(pixels) and find_missing_pixels(encoded):
      return None
  is_grey = bool((pixels == pixels[..., :1]).all())
  small = Pillow.fromarray(np.ascontiguousarray(pixels[..., 0]) if is_grey else pixels)
  small.thumbnail((SIDE_PX, SIDE_PX))
  data = _as_jpeg(small) if small.width * small.height >= JPEG_FROM_PX else b""
  kind, data = ("jpeg", data) if data else ("png", _saved(small, "PNG", optimize=True))
  return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def perceptual_hash(shown: str) -> int:
  """Returns the difference hash of a thumbnail: 64 bits.

  A bit is whether a pixel of 9 x 8 is darker than the next: N. Krawetz, "Kind of Like That" (2013).
  """
  with Pillow.open(io.BytesIO(base64.b64decode(shown.partition(",")[2]))) as image:
    grey = image.convert("L").resize((_HASH_PX + 1, _HASH_PX), Pillow.Resampling.BOX)
  levels = np.asarray(grey, np.int16)
  bits = np.packbits(levels[:, 1:] > levels[:, :-1] + _FLAT)
  return int.from_bytes(bits.tobytes(), "big")


def _as_jpeg(small: Pillow.Image) -> bytes:
  """Returns a JPEG; empty if it would differ too much."""
  data = _saved(small, "JPEG", quality=90, subsampling=0)
  with Pillow.open(io.BytesIO(data)) as shown:
    error = np.abs(np.asarray(shown, np.int16) - np.asarray(small, np.int16)).max()
  return data if error <= MAX_ERROR else b""


def _saved(image: Pillow.Image, kind: str, **options: bool | int) -> bytes:
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def _ratio(info: ImageInfo) -> int:
  """Returns how many times smaller an image is decoded: large JPEGs."""
  ratios = _RATIOS if info.format == "jpeg" else ()
  return next((ratio for ratio in ratios if min(info.height, info.width) >= SIDE_PX * ratio), 1)


def _decode(encoded: bytes, format: str, ratio: int) -> np.ndarray:
  """Decodes as the model does, but smaller: uint8 [H, W, 3]."""
  load_tensorflow()
  import tensorflow as tf

  from beam_retrain.transforms.core.images.decode import decode_rgb

  if format == "jpeg":
    return np.asarray(tf.io.decode_jpeg(encoded, channels=3, ratio=ratio))
  return np.asarray(decode_rgb(tf.constant(encoded)))


def _ends_grey(pixels: np.ndarray) -> bool:
  """Whether the last pixel is as in a JPEG that lacks some."""
  return tuple(pixels[-1, -1]) in _missing_pixels()


@functools.cache
def _missing_pixels() -> set[tuple[int, ...]]:
  """Returns what the decoder makes of pixels that are not there."""
  return {tuple(_decode(one, "jpeg", 1)[-1, -1]) for one in jpegs_like_missing_pixels()}
