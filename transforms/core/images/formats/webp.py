"""WebP (RFC 9649): its first chunk, and the frames of an animation."""

from __future__ import annotations

from collections.abc import Iterator

from beam_retrain.transforms.core.images.formats.info import Fault, ImageInfo, check_size, damaged

START = b"RIFF"
NAME = b"WEBP"  # from byte 8

_ANIMATED = 0x02
_MAX_FRAMES = 1 << 12


def probe(encoded: bytes, max_pixels: int) -> ImageInfo | Fault:
  """Reads the size; an animation's canvas counts twice.

  libwebp has two of them in memory.
  """
  if len(encoded) < 30:
    return damaged("it is too short")
  kind, animated = encoded[12:16], False
  if kind == b"VP8X":
    animated = bool(encoded[20] & _ANIMATED)
    width, height = (1 + int.from_bytes(encoded[at : at + 3], "little") for at in (24, 27))
  elif kind == b"VP8L":
    bits = int.from_bytes(encoded[21:25], "little")
    width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
  elif kind == b"VP8 ":
    width, height = (int.from_bytes(encoded[at : at + 2], "little") & 0x3FFF for at in (26, 28))
  else:
    return damaged("its first chunk is no image")
  if not (width and height):
    return damaged("it has no pixels")
  if too_large := check_size(height, width, max_pixels // 2 if animated else max_pixels):
    return too_large
  return ImageInfo("webp", height, width, _first_frame(encoded) if animated else b"")


def _first_frame(encoded: bytes) -> bytes:
  """Returns an animation of the first of very many frames, else nothing."""
  first_end = end = 0
  for number, (kind, _, end) in enumerate(chunks(encoded), start=1):  # all are as many objects to libwebp
    first_end = first_end or (end if kind == b"ANMF" else 0)
    if number > _MAX_FRAMES:
      cut = encoded[8 : first_end or end]
      return b"".join((START, len(cut).to_bytes(4, "little"), cut))
  return b""


def chunks(encoded: bytes) -> Iterator[tuple[bytes, int, int]]:
  """Yields type, start and end of chunks; the last may be cut."""
  start = 12
  while start + 8 <= len(encoded):
    size = int.from_bytes(encoded[start + 4 : start + 8], "little")
    end = start + 8 + size + (size & 1)
    yield encoded[start : start + 4], start, end
    start = end
