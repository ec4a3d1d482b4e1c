"""The orientation in an image's EXIF data, and a PNG's colour profile.

Nothing is decoded. A file's parts are followed by their stated lengths, each at most once, and at most `_MOST_PARTS` of
them.

Formats: JPEG, ITU-T T.81, B.1.1 and Exif 3.0, 4.7.2 (APP1); PNG 3.0, 11.3.4.5 (eXIf); WebP, RFC 9649, 2.7.1.5 (EXIF);
the data, TIFF 6.0, section 2, and Exif 3.0, 4.6.5 (tag 274).
"""

from __future__ import annotations

import contextlib
import itertools
import shlex
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

from beam_retrain.transforms.core.images.formats import jpeg, png, webp

T = TypeVar("T")

UPRIGHT = 1
ORIENTATION = 0x0112
"""Tag of the orientation, 1 to 8."""

_EXIF = b"Exif\0\0"
_MOST_PARTS = 100_000
_MOST_OF_PROFILE = 1 << 24
_START_OF_SCAN, _APP1 = 0xDA, 0xE1
_NUMBERS = {3: "H", 4: "I"}  # TIFF type -> format of `struct`


def orientation_of(encoded: bytes) -> int:
  """Returns the orientation of a JPEG, PNG or WebP, 1 to 8.

  1 if it has none, or damaged data, as in viewers.
  """
  try:
    return next((_read_orientation(encoded, start) for start in _exif_parts(encoded)), UPRIGHT)
  except struct.error:  # cut off
    return UPRIGHT


def is_oriented(encoded: bytes) -> bool:
  """Returns whether an image is stored otherwise than upright."""
  return orientation_of(encoded) != UPRIGHT


def tell_oriented(oriented: int, images: int, source: str, upright: str = "", flags: Sequence[str] = ()) -> str:
  """Returns the sentence about `oriented` images of the input `source`.

  Without a source, no command is given: converted images beside single files could become a class of their data set.

  Args:
    upright: where to write the converted images; beside the source by default.
    flags: further ones of `convert`.
  """
  found = f"{oriented:,} of {images:,} image{'s' if images > 1 else ''} {'have' if oriented > 1 else 'has'}"
  used = f"{found} an EXIF orientation and {'were' if oriented > 1 else 'was'} used as stored"
  if not source:
    return f"{used}, as in training; an image editor turns {'them' if oriented > 1 else 'it'} upright"
  upright = upright or f"{source.removesuffix('.csv')}_upright"
  command = ("beam-retrain", "convert", "--input", source, "--output", upright, *flags)
  return f"{used}; to turn {'them' if oriented > 1 else 'it'} upright: {shlex.join(command)}"


def png_profile(encoded: bytes) -> bytes | None:
  """Returns the ICC profile of a PNG, of at most 16 MB.

  PNG 3.0, 11.3.2.3: a name, the compression method 0, and the data.
  """
  inflate = zlib.decompressobj()
  with contextlib.suppress(struct.error, zlib.error):
    for kind, start, end in _first(png.chunks(encoded)):
      if kind != b"iCCP":
        continue
      _, _, data = encoded[start + 8 : end - 4].partition(b"\0")
      profile = inflate.decompress(data[1:], _MOST_OF_PROFILE)
      return profile if inflate.eof else None
  return None


def _exif_parts(encoded: bytes) -> Iterator[int]:
  """Yields where EXIF data of an image may start."""
  if encoded.startswith(b"\xff\xd8"):
    for marker, start, _ in _first(jpeg.segments(encoded)):
      if marker == _START_OF_SCAN:
        return
      if marker == _APP1 and encoded.startswith(_EXIF, start + 2):
        yield start + 2 + len(_EXIF)
  elif encoded.startswith(png.START):
    yield from (start + 8 for kind, start, _ in _first(png.chunks(encoded)) if kind == b"eXIf")
  elif encoded.startswith(webp.START) and encoded[8:12] == webp.NAME:
    for kind, start, _ in _first(webp.chunks(encoded)):
      if kind == b"EXIF":
        yield start + 8 + len(_EXIF) * encoded.startswith(_EXIF, start + 8)


def _first(parts: Iterator[T]) -> Iterator[T]:
  return itertools.islice(parts, _MOST_PARTS)


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
