"""The headers of the plainest images, read in a fifth of the time that Pillow takes to open one.

Whatever is not quite plain, or may be damaged, is left to Pillow: what is said here is what Pillow would say.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple


class Looked(NamedTuple):
  """A image that can be decoded: `format` is `jpeg`, `png`, `bmp` or `gif`; height and width in pixels."""

  format: str
  height: int
  width: int


_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_JPEG_START = b"\xff\xd8\xff\xe0\0\x10JFIF\0"
_SKIPPED = (0xFFC4, 0xFFDD, 0xFFFE)  # Huffman tables, restart interval, comment
_DQT_BYTES = 65  # of one quantization table of 8-bit numbers, with the byte before it


def look_at_plain(encoded: bytes) -> Looked | None:
  """Returns what a plain grey or RGB image's header says; None: Pillow has to be asked.

  Args:
    encoded: the file's bytes.
  """
  if encoded.startswith(_JPEG_START):
    return _look_at_jpeg(encoded)
  return _look_at_png(encoded) if encoded.startswith(_PNG_START) else None


def _look_at_png(encoded: bytes) -> Looked | None:
  """PNG specification, 5.3 and 11.2.2: eight bits, without interlacing, and the pixels right behind the header."""
  if encoded[37:41] != b"IDAT":
    return None
  width, height, depth, colour, *methods, check = struct.unpack_from(">IIBBBBBI", encoded, 16)
  plain = depth == 8 and colour in (0, 2) and not any(methods) and check == zlib.crc32(encoded[12:29])
  return Looked("png", height, width) if plain and height and width else None


def _look_at_jpeg(encoded: bytes) -> Looked | None:
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
      found = Looked("jpeg", height, width)
    elif marker == 0xFFDB and (size - 2) % _DQT_BYTES == 0:
      if max(encoded[inside:start:_DQT_BYTES], default=0) > 0x0F:  # a table of 16-bit numbers
        return None
    elif marker not in _SKIPPED:
      return None
  return None
