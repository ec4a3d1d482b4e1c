"""Reads image headers: format, size, and whether the image can be used.

Time and memory are bounded whatever the file claims; extensions are not trusted. Plain images are read here in a fifth
of the time that Pillow takes; all others, and those that may be damaged, by Pillow.
"""

from __future__ import annotations

import functools
import io
import re
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image as Pillow
from PIL import ImageFile, UnidentifiedImageError

from beam_retrain.transforms.core.records.quarantine import MAX_PIXELS, Reason
from beam_retrain.transforms.core.system.machine import is_out_of_memory

FORMATS = ("JPEG", "PNG", "BMP", "GIF")

_PILLOWS_BOUND = 1 << 26  # pixels; well below Pillow's own limit, which applies whatever ours is

_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_JPEG_START = b"\xff\xd8\xff\xe0\0\x10JFIF\0"
_SKIPPED = (0xFFC4, 0xFFDD, 0xFFFE)  # Huffman tables, restart interval, comment
_DQT_BYTES = 65  # of one quantization table of 8-bit numbers, with the byte before it
_PIXELS_PER_BYTE = 1024  # at most, in a JPEG: an empty block of 8 x 8 takes half a bit or more
_ARITHMETIC = re.compile(rb"\xff[\xc9\xca]")  # SOF9, SOF10: a coder that has no such bound
_SOF2, _EOI, _SOS = 0xC2, 0xD9, 0xDA
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # after a scan's data; restart markers are part of it
_FILLERS = (b"\x00" * 64, b"\x55" * 64)  # as data of further blocks, they give two different pictures


class ImageInfo(NamedTuple):
  """Format (`jpeg`, `png`, `bmp`, `gif`), height and width in pixels."""

  format: str
  height: int
  width: int


class Fault(NamedTuple):
  """Why an image cannot be used."""

  reason: Reason
  detail: str


def probe_image(encoded: bytes, max_pixels: int = MAX_PIXELS) -> ImageInfo | Fault:
  """Reads an image's header; `max_pixels` limits height x width."""
  if not encoded:
    return Fault(Reason.EMPTY, "the file has 0 bytes")
  plain = probe_plain(encoded)
  if plain and plain.height * plain.width <= min(max_pixels, _PILLOWS_BOUND):
    return _check_bytes(plain, encoded)
  try:
    with warnings.catch_warnings(action="ignore"):  # Pillow warns of large images; `check_size` decides
      image = Pillow.open(io.BytesIO(encoded), formats=FORMATS)
  except Pillow.DecompressionBombError as error:
    return Fault(Reason.TOO_LARGE, str(error))
  except UnidentifiedImageError:
    return Fault(Reason.NOT_AN_IMAGE, "neither JPEG, PNG, BMP nor GIF")
  except Exception as error:  # Pillow raises many types for damaged headers
    if is_out_of_memory(error):
      raise
    return Fault(Reason.TRUNCATED, f"the header is damaged: {error}")
  with image:
    width, height = image.size
    if too_large := check_size(height, width, max_pixels):
      return too_large
    if image.format == "BMP" and image.mode in ("P", "1"):
      # TensorFlow takes palette indices for grey values: the exported model would be silently wrong.
      return Fault(Reason.UNSUPPORTED, "a BMP with a colour palette: save it as PNG")
    info = _check_bytes(ImageInfo(str(image.format).lower(), height, width), encoded)
    if isinstance(info, ImageInfo) and image.info.get("progressive") and not _has_all_scans(encoded):
      return find_missing_pixels(encoded) or info
    return info


def _check_bytes(info: ImageInfo, encoded: bytes) -> ImageInfo | Fault:
  """Checks that a JPEG is long enough for its pixels at all."""
  if info.format != "jpeg" or len(encoded) * _PIXELS_PER_BYTE >= info.height * info.width:
    return info
  if _ARITHMETIC.search(encoded):
    return info
  return Fault(Reason.TRUNCATED, f"{len(encoded)} bytes cannot hold {info.width} x {info.height} pixels")


def check_size(height: int, width: int, max_pixels: int) -> Fault | None:
  if height * width <= max_pixels:
    return None
  return Fault(Reason.TOO_LARGE, f"{width} x {height} pixels, more than the {max_pixels} allowed")


def find_damage(encoded: bytes) -> Fault | None:
  """Decodes a probed image with Pillow; returns what is wrong with it."""
  try:
    with warnings.catch_warnings(action="ignore"), Pillow.open(io.BytesIO(encoded), formats=FORMATS) as image:
      image.load()
  except Exception as error:
    if is_out_of_memory(error):
      raise
    return Fault(Reason.TRUNCATED, f"the file ends too early or is damaged: {error}")
  return None


def find_missing_pixels(encoded: bytes) -> Fault | None:
  """Returns the fault of a JPEG whose data end too early.

  Where they end with a marker, as if whole, every decoder built on libjpeg fills the rest with grey and only warns. So
  the image is decoded again with something else behind the data: that changes no pixel of a whole image.
  """
  end = _scans_end(encoded)
  if not end or find_damage(encoded):  # other damage is for the decoder to tell
    return None
  seen = {_decoded(encoded[:end] + filler + encoded[end:]) for filler in (b"", *_FILLERS)}
  return Fault(Reason.TRUNCATED, "the data end before the last pixel") if len(seen) > 1 else None


@functools.cache
def jpegs_like_missing_pixels() -> list[bytes]:
  """Returns whole JPEGs, grey and CMYK, that look as missing pixels do.

  Decoding one without data would print libjpeg's warning.
  """
  jpegs = []
  for mode, middle in (("L", 128), ("CMYK", (127,) * 4)):  # Pillow inverts CMYK
    file = io.BytesIO()
    Pillow.new(mode, (8, 8), middle).save(file, "JPEG", quality=100)
    jpegs.append(file.getvalue())
  return jpegs


def _decoded(encoded: bytes) -> bytes:
  with warnings.catch_warnings(action="ignore"), Pillow.open(io.BytesIO(encoded), formats=FORMATS) as image:
    return image.tobytes()


def _segments(encoded: bytes) -> Iterator[tuple[int, int, int]]:
  """Yields marker, start and end of a JPEG's segments (ITU T.81, B.1.1)."""
  start = 2
  while match := _MARKER.search(encoded, start):
    marker, start = encoded[match.end() - 1], match.end()
    size = 0 if marker == _EOI else int.from_bytes(encoded[start : start + 2])
    yield marker, start, start + size
    if marker == _EOI:
      return
    start += size


def _scans_end(encoded: bytes) -> int:
  """Returns where the data of the last scan end, 0 if nowhere."""
  return next((start - 2 for marker, start, _ in _segments(encoded) if marker == _EOI), 0)


def _has_all_scans(encoded: bytes) -> bool:
  """Whether a progressive JPEG's scans give all bits of all coefficients.

  Few encoders leave some out, as T.81 allows; a file that was cut short has lost the last ones.
  """
  layers = 0
  missing: set[tuple[int, int]] = set()
  for marker, start, end in _segments(encoded):
    if marker == _SOF2:
      layers = encoded[start + 7]
      missing = {(encoded[start + 8 + 3 * n], at) for n in range(layers) for at in range(64)}
    elif marker == _SOS and start + 6 <= end <= len(encoded):
      first, last, bits = encoded[end - 3 : end]
      if not bits & 0x0F:  # down to the lowest bit
        missing -= {(encoded[at], k) for at in range(start + 3, end - 3, 2) for k in range(first, last + 1)}
  return not missing


def find_fault(encoded: bytes) -> Fault | None:
  """Probes and decodes an image of any size; returns its fault."""
  probed = probe_image(encoded, sys.maxsize)
  return probed if isinstance(probed, Fault) else find_damage(encoded)


def explain(encoded: bytes) -> Fault:
  """Returns why TensorFlow could not decode a probed image."""
  unsupported = Fault(Reason.UNSUPPORTED, "TensorFlow cannot decode this variant: save it as PNG or JPEG")
  return find_damage(encoded) or unsupported


def probe_plain(encoded: bytes) -> ImageInfo | None:
  """Reads the header of a plain grey or RGB image, else None."""
  if encoded.startswith(_JPEG_START):
    return _probe_jpeg(encoded)
  return _probe_png(encoded) if encoded.startswith(_PNG_START) else None


def _probe_png(encoded: bytes) -> ImageInfo | None:
  """PNG specification, 5.3 and 11.2.2.

  Eight bits, not interlaced, the pixels right after the header.
  """
  if encoded[37:41] != b"IDAT":
    return None
  width, height, depth, colour, *methods, check = struct.unpack_from(">IIBBBBBI", encoded, 16)
  plain = depth == 8 and colour in (0, 2) and not any(methods) and check == zlib.crc32(encoded[12:29])
  return ImageInfo("png", height, width) if plain and height and width else None


def _probe_jpeg(encoded: bytes) -> ImageInfo | None:
  """JPEG (ITU T.81, B.1 and B.2): a baseline JFIF file without metadata.

  Reads the segments up to the first scan.
  """
  info = None
  start = 20
  while start + 4 <= len(encoded):
    marker, size = struct.unpack_from(">HH", encoded, start)
    inside, start = start + 4, start + 2 + size
    if size < 2 or start > len(encoded):
      return None
    if marker == 0xFFDA:  # the scan
      return info
    if marker == 0xFFC0 and size >= 8 and info is None:
      depth, height, width, layers = struct.unpack_from(">BHHB", encoded, inside)
      if depth != 8 or layers not in (1, 3) or size != 8 + 3 * layers or not (height and width):
        return None
      info = ImageInfo("jpeg", height, width)
    elif marker == 0xFFDB and (size - 2) % _DQT_BYTES == 0:
      if max(encoded[inside:start:_DQT_BYTES], default=0) > 0x0F:  # a table of 16-bit numbers
        return None
    elif marker not in _SKIPPED:
      return None
  return None


assert not ImageFile.LOAD_TRUNCATED_IMAGES, "a truncated image must not pass for a whole one"
