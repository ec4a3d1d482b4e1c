"""Reads image headers: format, size, and whether the image can be used.

The cost is small and bounded whatever the file claims. Extensions are not trusted. Plain images are read here in a
fifth of the time that Pillow takes to open one; the others, and all that may be damaged, by Pillow.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import NamedTuple

from PIL import Image as Pillow
from PIL import ImageFile, UnidentifiedImageError

from beam_retrain.transforms.core.records.quarantine import MAX_PIXELS, Reason
from beam_retrain.transforms.core.system.memory import is_out_of_memory

FORMATS = ("JPEG", "PNG", "BMP", "GIF")

_PILLOWS_BOUND = 1 << 26  # pixels; well below the number above which it refuses a image, whatever ours is


_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_JPEG_START = b"\xff\xd8\xff\xe0\0\x10JFIF\0"
_SKIPPED = (0xFFC4, 0xFFDD, 0xFFFE)  # Huffman tables, restart interval, comment
_DQT_BYTES = 65  # of one quantization table of 8-bit numbers, with the byte before it


class ImageInfo(NamedTuple):
  """An image that can be decoded: `format` is `jpeg`, `png`, `bmp` or `gif`; height and width in pixels."""

  format: str
  height: int
  width: int


class Fault(NamedTuple):
  """An image that cannot be used, and why."""

  reason: Reason
  detail: str


def probe_image(encoded: bytes, max_pixels: int = MAX_PIXELS) -> ImageInfo | Fault:
  """Reads the header of an image.

  Args:
    encoded: the file's bytes.
    max_pixels: largest height x width allowed.
  """
  if not encoded:
    return Fault(Reason.EMPTY, "the file has 0 bytes")
  plain = probe_plain(encoded)
  if plain and plain.height * plain.width <= min(max_pixels, _PILLOWS_BOUND):
    return plain
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # Pillow warns of large images; the bound below decides
      image = Pillow.open(io.BytesIO(encoded), formats=FORMATS)
  except Pillow.DecompressionBombError as error:
    return Fault(Reason.TOO_LARGE, str(error))
  except UnidentifiedImageError:
    return Fault(Reason.NOT_AN_IMAGE, "neither JPEG, PNG, BMP nor GIF")
  except Exception as error:  # Pillow's parsers raise many kinds on damaged headers
    if is_out_of_memory(error):
      raise
    return Fault(Reason.TRUNCATED, f"the header is damaged: {error}")
  with image:
    width, height = image.size
    if too_large := check_size(height, width, max_pixels):
      return too_large
    if image.format == "BMP" and image.mode in ("P", "1"):
      # TensorFlow takes the palette's indices for grey values; the exported model would be wrong without a word.
      return Fault(Reason.UNSUPPORTED, "a BMP with a colour palette: save it as PNG")
    return ImageInfo(str(image.format).lower(), height, width)


def check_size(height: int, width: int, max_pixels: int) -> Fault | None:
  if height * width <= max_pixels:
    return None
  return Fault(Reason.TOO_LARGE, f"{width} x {height} pixels, more than the {max_pixels} allowed")


def find_damage(encoded: bytes) -> Fault | None:
  """Says what is wrong with the pixels of a image that passed `probe_image`: decodes it whole with Pillow."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      with Pillow.open(io.BytesIO(encoded), formats=FORMATS) as image:
        image.load()
  except Exception as error:
    if is_out_of_memory(error):
      raise
    return Fault(Reason.TRUNCATED, f"the file ends too early or is damaged: {error}")
  return None


def explain(encoded: bytes) -> Fault:
  """Says why a image that passed `probe_image` could not be decoded by TensorFlow."""
  unsupported = Fault(Reason.UNSUPPORTED, "TensorFlow cannot decode this variant: save it as PNG or JPEG")
  return find_damage(encoded) or unsupported


def probe_plain(encoded: bytes) -> ImageInfo | None:
  """Returns what a plain grey or RGB image's header says; None: Pillow has to be asked.

  Args:
    encoded: the file's bytes.
  """
  if encoded.startswith(_JPEG_START):
    return _probe_jpeg(encoded)
  return _probe_png(encoded) if encoded.startswith(_PNG_START) else None


def _probe_png(encoded: bytes) -> ImageInfo | None:
  """PNG specification, 5.3 and 11.2.2: eight bits, without interlacing, and the pixels right behind the header."""
  if encoded[37:41] != b"IDAT":
    return None
  width, height, depth, colour, *methods, check = struct.unpack_from(">IIBBBBBI", encoded, 16)
  plain = depth == 8 and colour in (0, 2) and not any(methods) and check == zlib.crc32(encoded[12:29])
  return ImageInfo("png", height, width) if plain and height and width else None


def _probe_jpeg(encoded: bytes) -> ImageInfo | None:
  """JPEG (ITU T.81, B.1 and B.2): the segments of a baseline JFIF file without metadata, up to its first scan."""
  found = None
  start = 20
  while start + 4 <= len(encoded):
    marker, size = struct.unpack_from(">HH", encoded, start)
    inside, start = start + 4, start + 2 + size
    if size < 2 or start > len(encoded):
      return None
    if marker == 0xFFDA:  # the scan
      return found
    if marker == 0xFFC0 and size >= 8 and found is None:
      depth, height, width, layers = struct.unpack_from(">BHHB", encoded, inside)
      if depth != 8 or layers not in (1, 3) or size != 8 + 3 * layers or not (height and width):
        return None
      found = ImageInfo("jpeg", height, width)
    elif marker == 0xFFDB and (size - 2) % _DQT_BYTES == 0:
      if max(encoded[inside:start:_DQT_BYTES], default=0) > 0x0F:  # a table of 16-bit numbers
        return None
    elif marker not in _SKIPPED:
      return None
  return None


assert not ImageFile.LOAD_TRUNCATED_IMAGES, "a truncated image must not pass for a whole one"
