"""The orientation in an image's EXIF data, and a PNG's colour profile.

Nothing is decoded. A file's parts are followed by their stated lengths, each at most once, and at most `_MOST_PARTS` of
them.

Formats: JPEG, ITU-T T.81, B.1.1 and Exif 3.0, 4.7.2 (APP1); PNG 3.0, 11.3.4.5 (eXIf); WebP, RFC 9649, 2.7.1.5 (EXIF);
the data, TIFF 6.0, section 2, and Exif 3.0, 4.6.5 (tag 274).
"""

from __future__ import annotations

import contextlib
import shlex
import struct
import zlib
from collections.abc import Iterator

UPRIGHT = 1
ORIENTATION = 0x0112
"""Tag of the orientation, 1 to 8."""

_EXIF = b"Exif\0\0"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_MOST_PARTS = 100_000
_MOST_OF_PROFILE = 1 << 24
_START_OF_SCAN, _APP1 = 0xDA, 0xE1
_NUMBERS = {3: "H", 4: "I"}  # TIFF type -> format of `struct`


def orientation_of(encoded: bytes) -> int:
  """Returns the orientation of a JPEG, PNG or WebP, 1 to 8.

  1 if it has none, or damaged data, as in viewers.
  """
  if encoded.startswith(b"\xff\xd8"):
    parts = _jpeg_parts(encoded)
  elif encoded.startswith(_PNG_START):
    parts = _png_parts(encoded, b"eXIf")
  elif encoded.startswith(b"RIFF") and encoded[8:12] == b"WEBP":
    parts = _webp_parts(encoded)
  else:
    return UPRIGHT
  try:
    return next((_read_orientation(encoded, start) for start in parts), UPRIGHT)
  except struct.error:  # cut off
    return UPRIGHT


def is_oriented(encoded: bytes) -> bool:
  """Returns whether an image is stored otherwise than upright."""
  return orientation_of(encoded) != UPRIGHT


def tell_oriented(oriented: int, images: int, source: str) -> str:
  """Returns the sentence about `oriented` images of the input `source`."""
  upright = f"{source.removesuffix('.csv')}_upright"
  return (
    f"{oriented:,} of {images:,} images have an EXIF orientation and were used as they are stored; to turn them"
    f" upright: beam-retrain convert --input {shlex.quote(source)} --output {shlex.quote(upright)}"
  )


def png_profile(encoded: bytes) -> bytes | None:
  """Returns the ICC profile of a PNG, of at most 16 MB.

  PNG 3.0, 11.3.2.3: a name, the compression method 0, and the data.
  """
  inflate = zlib.decompressobj()
  with contextlib.suppress(struct.error, zlib.error):
    for start in _png_parts(encoded, b"iCCP"):
      size = int.from_bytes(encoded[start - 8 : start - 4])
      _, _, data = encoded[start : start + size].partition(b"\0")
      profile = inflate.decompress(data[1:], _MOST_OF_PROFILE)
      return profile if inflate.eof else None
  return None


def _jpeg_parts(encoded: bytes) -> Iterator[int]:
  start = 2
  for _ in range(_MOST_PARTS):
    marker, size = struct.unpack_from(">HH", encoded, start)
    if marker == 0xFFFF:  # a fill byte
      start += 1
      continue
    if marker >> 8 != 0xFF or marker & 0xFF == _START_OF_SCAN or size < 2:
      return
    if marker & 0xFF == _APP1 and encoded.startswith(_EXIF, start + 4):
      yield start + 4 + len(_EXIF)
    start += 2 + size


def _png_parts(encoded: bytes, wanted: bytes) -> Iterator[int]:
  start = len(_PNG_START)
  for _ in range(_MOST_PARTS):
    size, kind = struct.unpack_from(">I4s", encoded, start)
    if kind == wanted:
      yield start + 8
    start += 12 + size


def _webp_parts(encoded: bytes) -> Iterator[int]:
  start = 12
  for _ in range(_MOST_PARTS):
    kind, size = struct.unpack_from("<4sI", encoded, start)
    start += 8
    if kind == b"EXIF":
      yield start + len(_EXIF) * encoded.startswith(_EXIF, start)
    start += size + size % 2


def _read_orientation(encoded: bytes, start: int) -> int:
  """Reads the first directory of TIFF data at `start`."""
  order = {b"II*\0": "<", b"MM\0*": ">"}.get(encoded[start : start + 4])
  if order is None:
    return UPRIGHT
  (offset,) = struct.unpack_from(f"{order}I", encoded, start + 4)
  (entries,) = struct.unpack_from(f"{order}H", encoded, start + offset)
  for number in range(entries):
    entry = start + offset + 2 + 12 * number
    tag, kind, count = struct.unpack_from(f"{order}HHI", encoded, entry)
    if tag == ORIENTATION and kind in _NUMBERS and count == 1:
      (value,) = struct.unpack_from(f"{order}{_NUMBERS[kind]}", encoded, entry + 8)
      return value if 1 <= value <= 8 else UPRIGHT
  return UPRIGHT
