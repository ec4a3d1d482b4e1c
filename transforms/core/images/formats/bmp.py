"""BMP (Microsoft's BITMAPINFOHEADER to BITMAPV5HEADER).

TensorFlow reads the size and the bits per pixel, and takes the bytes for grey values or for blue, green, red; so what a
palette, masks or a compression say otherwise is refused here, and in `decode.decode_rgb`.
"""

from __future__ import annotations

import struct

from beam_retrain.transforms.core.images.formats import others
from beam_retrain.transforms.core.images.formats.info import Fault, ImageInfo, check_size, damaged
from beam_retrain.transforms.core.records.quarantine import Reason

START = b"BM"

HEADERS = (40, 52, 56, 64, 108, 124)
BITFIELDS = (3, 6)
BGR_MASKS = struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)
"""Red, green and blue as they lie where there are no masks."""
MASKS_AT = 54
_OS2 = 12


def probe(encoded: bytes, max_pixels: int) -> ImageInfo | Fault:
  if is_text(encoded):
    return others.name(encoded)
  size = int.from_bytes(encoded[14:18], "little")
  if size == _OS2:
    return _unsupported("a BMP of OS/2")
  if size not in HEADERS or len(encoded) < 14 + size:
    return damaged("it is too short, or of unknown length")
  width, height, _, bits, compression, _, _, _, colours = struct.unpack_from("<iiHHIIiiI", encoded, 18)
  if width <= 0 or not height:
    return damaged("it has no pixels")
  if too_large := check_size(abs(height), width, max_pixels):
    return too_large
  if compression not in (0, *BITFIELDS):
    return _unsupported("a compressed BMP")
  if compression and (bits == 8 or encoded[MASKS_AT : MASKS_AT + 12] != BGR_MASKS):
    return _unsupported("a BMP with channel masks of its own")
  if bits == 8 and not _is_grey(encoded, size, colours):
    return _unsupported("a BMP with a colour palette")
  if bits not in (8, 24, 32):
    return _unsupported(f"a BMP of {bits} bits per pixel")
  return ImageInfo("bmp", abs(height), width)


def is_text(encoded: bytes) -> bool:
  """Whether a file begins with these letters by chance.

  Four of a BMP's first bytes are 0.
  """
  return b"\0" not in encoded[:14]


def _is_grey(encoded: bytes, size: int, colours: int) -> bool:
  """Whether each palette entry n is grey n, in four bytes."""
  count = min(colours or 256, 256)
  palette = encoded[14 + size : 14 + size + 4 * count]
  return all(palette[channel::4] == bytes(range(count)) for channel in range(3))


def _unsupported(what: str) -> Fault:
  return Fault(Reason.UNSUPPORTED, f"{what}: save it as PNG")
