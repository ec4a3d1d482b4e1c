"""Pixels to the bytes of a picture file, as Pillow writes them."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import PIL.Image

PictureFormat = Literal["jpeg", "png"]

DEFAULT_QUALITY = 75  # Pillow's own


def encode_pixels(pixels: np.ndarray, format: PictureFormat, quality: int = DEFAULT_QUALITY) -> bytes:
  """Returns the bytes that `PIL.Image.fromarray(pixels).save(path)` would write, grey, in one channel.

  Args:
    pixels: uint8[rows, columns], 0 (black) to 255.
    format: the file's format; PNG is lossless.
    quality: of a JPEG, 1 to 100.
  """
  file = io.BytesIO()
  image = PIL.Image.fromarray(pixels)
  if format == "jpeg":
    image.save(file, "JPEG", quality=quality)
  else:
    image.save(file, "PNG")
  return file.getvalue()
