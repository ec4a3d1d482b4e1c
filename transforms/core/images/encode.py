"""Encodes pixels as image files, exactly as Pillow would."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import PIL.Image

from beam_retrain.transforms.core.images.formats.jpeg import DEFAULT_QUALITY

ImageFormat = Literal["jpeg", "png"]

_BLOCK_PX = 8  # JPEG cuts a grey image into blocks of 8 x 8
_STRIP_ROWS = 65_500  # libjpeg's JPEG_MAX_DIMENSION
_STRIP_PX = 1 << 21  # 32,768 blocks: a restart interval has 16 bits
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")  # RST0 to RST7; in the data, 0xff is followed by 0x00
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"


def encode_pixels(pixels: np.ndarray, format: ImageFormat, quality: int = DEFAULT_QUALITY) -> bytes:
  """Returns the bytes that `PIL.Image.fromarray(pixels).save(path)` would write.

  `pixels` are uint8 [rows, columns], grey, 0 (black) to 255, or [rows, columns, 3], RGB. The `quality` of a JPEG is 1
  to 100.
  """
  return _save(pixels, "JPEG", quality=quality) if format == "jpeg" else _save(pixels, "PNG")


def encode_each(images: np.ndarray, format: ImageFormat, quality: int = DEFAULT_QUALITY) -> Iterator[bytes]:
  """Encodes uint8 [images, rows, columns] like `encode_pixels`.

  Small JPEGs take a sixth of the time.
  """
  rows, columns = (_round_up(side) for side in images.shape[1:])
  per_strip = max(1, min(_STRIP_ROWS // rows, _STRIP_PX // (rows * columns)))
  for start in range(0, len(images), per_strip):
    strip = images[start : start + per_strip]
    together = format == "jpeg" and len(strip) > 2 and columns <= _STRIP_ROWS
    encoded = _encode_strip(strip, quality) if together else None
    yield from encoded or (encode_pixels(pixels, format, quality) for pixels in strip)


def _encode_strip(images: np.ndarray, quality: int) -> list[bytes] | None:
  """Encodes several JPEGs at once; None if this libjpeg does it differently.

  The images, stacked into one JPEG, are separated by restart markers, at which the coder resets its state and starts a
  new byte (ITU-T T.81, F.1.1.5 and F.2.1.3.1): the data between two markers is that of one image. The first and last
  images are compared with their own encoding.
  """
  count, rows, columns = images.shape
  # libjpeg also pads incomplete blocks with the pixels at the edge.
  missing = (_round_up(rows) - rows, _round_up(columns) - columns)
  strip = np.pad(images, ((0, 0), (0, missing[0]), (0, missing[1])), mode="edge")
  blocks = strip.shape[1] // _BLOCK_PX
  encoded = _save(strip.reshape(-1, strip.shape[2]), "JPEG", quality=quality, restart_marker_rows=blocks)
  first, last = (encode_pixels(images[number], "jpeg", quality) for number in (0, -1))
  header = first[: _start_of_data(first)]
  scans = _RESTART.split(encoded[_start_of_data(encoded) : -len(_END_OF_IMAGE)])
  jpegs = [b"".join((header, scan, _END_OF_IMAGE)) for scan in scans]
  return jpegs if len(jpegs) == count and (jpegs[0], jpegs[-1]) == (first, last) else None


def _round_up(side: int) -> int:
  return -(-side // _BLOCK_PX) * _BLOCK_PX


def _start_of_data(jpeg: bytes) -> int:
  """Returns where the compressed data begins, after the scan header."""
  start = jpeg.index(_START_OF_SCAN) + len(_START_OF_SCAN)
  return start + int.from_bytes(jpeg[start : start + 2], "big")


def _save(pixels: np.ndarray, format: str, **options: Any) -> bytes:
  file = io.BytesIO()
  PIL.Image.fromarray(pixels).save(file, format, **options)
  return file.getvalue()
