"""PNG: its chunks, of which decoders get those with pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from beam_retrain.transforms.core.images.formats.info import Fault, ImageInfo, check_size, damaged
from beam_retrain.transforms.core.records.quarantine import Reason

START = b"\x89PNG\r\n\x1a\n"

_PLAIN = START + b"\0\0\0\rIHDR"
_END = b"\0\0\0\0IEND\xaeB`\x82"
_FIRST = 33  # where the first chunk after the header starts
_LAYERS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type -> values per pixel
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # and bits per value

_OF_IOS = "a PNG of an iOS app (CgBI): revert it with Xcode's `pngcrush -revert-iphone-optimizations`"
_MAX_CHUNKS = 1 << 17
"""Each costs microseconds in every decoder; in those of libpng, of 8 KB, 1 GB has as many."""
_MAX_BESIDE = 1 << 16
"""Bytes of text, profiles and the like that decoders read: libpng inflates them to 8 MB each, and keeps a thousand."""
_MAX_UNSEEN = 1 << 21
"""Compressed bytes that may lie behind the last pixel unseen: libpng inflates them too, to 2 GB."""
_MAX_SIDE = 1_000_000
"""libpng's own limit."""
_DEFLATE = 1032  # most bytes that one compressed byte becomes
_STEP, _WINDOW, _LARGE = 1 << 20, 1 << 12, 1 << 25
_FULL_WINDOW = 1 << 15


def is_plain(encoded: bytes) -> bool:
  return encoded.startswith(_PLAIN)


def probe_plain(encoded: bytes) -> ImageInfo | None:
  """Reads a plain 8-bit grey or RGB file, else None.

  PNG specification, 5.3 and 11.2.2: not interlaced, and nothing besides pixels.
  """
  if encoded[37:41] != b"IDAT" or not encoded.endswith(_END):
    return None
  width, height, depth, colour, *methods, check, size = struct.unpack_from(">IIBBBBBII", encoded, 16)
  plain = depth == 8 and colour in (0, 2) and not any(methods) and check == zlib.crc32(encoded[12:29])
  small = size < _MAX_UNSEEN and size == len(encoded) - _FIRST - 12 - len(_END)
  return ImageInfo("png", height, width) if plain and small and height and width else None


def has_only_pixels(encoded: bytes) -> bool:
  """Whether a whole file has 8-bit grey or RGB values alone.

  False for what libpng refuses and Pillow takes: a second header, a long side, a window too small for the data.
  """
  depth, colour, *methods = encoded[24:29] or (0, 0)
  if not is_plain(encoded) or depth != 8 or colour not in (0, 2) or any(methods) or has_wrong_checksum(encoded):
    return False
  found = list(chunks(encoded))
  width, height = struct.unpack_from(">II", encoded, 16)
  size = height * (1 + width * _LAYERS[colour])
  inflate = zlib.decompressobj()
  data = b"".join(encoded[start + 8 : end - 4] for kind, start, end in found if kind == b"IDAT")
  if max(width, height) > _MAX_SIDE or 1 << (data[0] >> 4) + 8 < min(size, _FULL_WINDOW):  # RFC 1950, 2.2
    return False
  whole = len(inflate.decompress(data, size + 1)) == size and inflate.eof and not inflate.unused_data
  ends = encoded.endswith(_END) and found[-1][2] == len(encoded)
  return whole and ends and [kind for kind, _, _ in found] == [b"IHDR", *[b"IDAT"] * (len(found) - 2), b"IEND"]


def probe(encoded: bytes, max_pixels: int) -> ImageInfo | Fault:
  if encoded[12:16] == b"CgBI":
    return Fault(Reason.UNSUPPORTED, _OF_IOS)
  if len(encoded) < _FIRST or not is_plain(encoded):
    return damaged("it is too short, or does not begin with its size")
  width, height, depth, colour, *methods, interlaced, check = struct.unpack_from(">IIBBBBBI", encoded, 16)
  if not (width and height) or check != zlib.crc32(encoded[12:29]):
    return damaged("its checksum is another, or it has no pixels")
  if depth not in _DEPTHS.get(colour, ()) or any(methods) or interlaced > 1:
    return damaged("there is no such kind of PNG")
  if too_large := check_size(height, width, max_pixels):
    return too_large
  beside = data = palettes = 0
  for number, (kind, start, end) in enumerate(chunks(encoded)):
    if number > _MAX_CHUNKS:
      return Fault(Reason.TOO_LARGE, f"a PNG of more than {_MAX_CHUNKS} chunks: save it again")
    data += end - start if kind == b"IDAT" else 0
    if data and colour == 3 and not palettes:
      return damaged("it lacks its palette")
    palettes += kind == b"PLTE"
    beside += 0 if _is_needed(kind) else end - start
  rows = 2 * height if interlaced else height  # at least as many as its seven passes have
  size = height * -(-width * _LAYERS[colour] * depth // 8) + 8 * rows
  if data > _MAX_UNSEEN + size // _DEFLATE and _is_suspicious(encoded) and _runs_on(encoded, size):
    return Fault(Reason.TOO_LARGE, "its data go on behind the last pixel: save it again")
  return ImageInfo("png", height, width, only_pixels(encoded) if beside > _MAX_BESIDE else b"")


def only_pixels(encoded: bytes) -> bytes:
  """Returns the file without text, profiles and other frames."""
  kept = [encoded[start:end] for kind, start, end in chunks(encoded) if _is_needed(kind)]
  return b"".join((START, *kept))


def has_wrong_checksum(encoded: bytes) -> bool:
  """Whether the checksum of a whole chunk that pixels need is another."""
  return any(
    encoded[end - 4 : end] != zlib.crc32(encoded[start + 4 : end - 4]).to_bytes(4)
    for kind, start, end in chunks(encoded)
    if _is_needed(kind) and end <= len(encoded)
  )


def _is_needed(kind: bytes) -> bool:
  return not kind[0] & 0x20 or kind == b"tRNS"  # an upper-case letter: critical


def chunks(encoded: bytes) -> Iterator[tuple[bytes, int, int]]:
  """Yields type, start and end of chunks; the last may be cut."""
  start = len(START)
  while start + 8 <= len(encoded):
    kind = encoded[start + 4 : start + 8]
    end = start + 12 + int.from_bytes(encoded[start : start + 4])
    yield kind, start, end
    if kind == b"IEND":
      return
    start = end


def _is_suspicious(encoded: bytes) -> bool:
  """Whether `_runs_on`, which takes as long as decoding, is worth it.

  Compressed bytes that become hundreds are much the same and can be compressed again, those of photos cannot.
  """
  windows = (encoded[at : at + _WINDOW] for at in range(_FIRST, len(encoded) - _WINDOW, _STEP))
  return len(encoded) > _LARGE or any(len(zlib.compress(window, 1)) < 0.9 * _WINDOW for window in windows)


def _runs_on(encoded: bytes, size: int) -> bool:
  """Whether the data inflate to more than `size` bytes."""
  inflate = zlib.decompressobj()
  for kind, start, end in chunks(encoded):
    for at in range(start + 8, end - 4, _STEP) if kind == b"IDAT" else ():  # what is left is copied for each call
      rest = encoded[at : min(at + _STEP, end - 4)]
      while rest and not inflate.eof:
        try:
          size -= len(inflate.decompress(rest, _STEP))
        except zlib.error:  # for the decoder to tell, which stops there too
          return False
        rest = inflate.unconsumed_tail
        if size < 0:
          return True
  return False
