"""Writes PNG files of any colour type, depth and order (PNG specification, third edition)."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from tools.zoo.formats.made import HEIGHT, WIDTH, Made, grey_picture, in_grey, picture

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
START = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
_ADAM7 = (
  (0, 0, 8, 8),
  (4, 0, 8, 8),
  (0, 4, 4, 8),
  (2, 0, 4, 4),
  (0, 2, 2, 4),
  (1, 0, 2, 2),
  (0, 1, 1, 2),
)  # x, y, steps

Chunk = tuple[bytes, bytes]


def chunk(kind: bytes, data: bytes) -> bytes:
  return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def encode(
  colour: int = RGB,
  depth: int = 8,
  *,
  interlaced: bool = False,
  size: tuple[int, int] = (WIDTH, HEIGHT),
  before: Sequence[Chunk] = (),
  after: Sequence[Chunk] = (),
  behind: Sequence[Chunk] = (),
  parts: int = 1,
  colours: int = 0,
) -> Made:
  """Encodes the picture.

  Args:
    size: (width, height).
    before, after, behind: chunks before the palette, before and behind the pixels.
    parts: how many IDAT chunks.
    colours: of the palette; 0: as many as `depth` allows.
  """
  samples, truth, palette = _samples(colour, depth, size, colours or 1 << min(depth, 8))
  header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, int(interlaced))
  passes = [samples[y::down, x::right] for x, y, right, down in _ADAM7] if interlaced else [samples]
  data = zlib.compress(b"".join(b"\0" + row for part in passes if part.size for row in _rows(part, depth)), 9)
  cuts = [len(data) * n // max(parts, 1) for n in range(parts + 1)]
  pixels = [(b"IDAT", data[start:end]) for start, end in itertools.pairwise(cuts)]
  plte = [(b"PLTE", palette.tobytes())] if colour == PALETTE else []
  chunks = [(b"IHDR", header), *before, *plte, *after, *pixels, *behind, (b"IEND", b"")]
  return Made(START + b"".join(chunk(*one) for one in chunks), truth)


def _rows(samples: np.ndarray, depth: int) -> Iterator[bytes]:
  """Packs uint16 [H, W, C] by row, the highest bit first."""
  for row in samples.reshape(len(samples), -1):
    if depth >= 8:
      yield row.astype(">u2" if depth == 16 else np.uint8).tobytes()
    else:
      bits = (row[:, None] >> np.arange(depth - 1, -1, -1)) & 1
      yield np.packbits(bits.astype(np.uint8)).tobytes()


def _samples(colour: int, depth: int, size: tuple[int, int], colours: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns samples, uint16 [H, W, C], the pixels, uint8 [H, W, 3], and a palette, uint8 [colours, 3]."""
  palette = np.random.default_rng(3).integers(0, 256, (colours, 3), dtype=np.uint8)
  grey, rgb = grey_picture(*size)[..., None].astype(np.uint16), picture(*size).astype(np.uint16)
  alpha = (np.arange(rgb.shape[1], dtype=np.uint16) * 10 % 256)[None, :, None].repeat(len(rgb), 0)
  if colour == PALETTE:
    indices = grey.astype(int) * colours // 256
    return indices.astype(np.uint16), palette[indices[..., 0]], palette
  made = {GREY: grey, RGB: rgb, GREY_ALPHA: np.dstack([grey, alpha]), RGBA: np.dstack([rgb, alpha])}[colour]
  if depth == 16:
    made = made << 8 | (made * 7 % 256)  # the low byte must not round the high one up
    shown = (made >> 8).astype(np.uint8)
  else:
    made = made >> (8 - depth)
    shown = (made * 255 // ((1 << depth) - 1)).astype(np.uint8)
  return made, in_grey(shown[..., 0]) if colour in (GREY, GREY_ALPHA) else shown[..., :3], palette


def apng() -> Made:
  """Encodes the picture and a second frame of another colour."""
  still = encode()
  size = struct.pack(">II", WIDTH, HEIGHT)
  control = size + struct.pack(">IIHHBB", 0, 0, 1, 10, 0, 0)
  black = zlib.compress((b"\0" + bytes(WIDTH * 3)) * HEIGHT)
  return encode(
    before=[(b"acTL", struct.pack(">II", 2, 0)), (b"fcTL", struct.pack(">I", 0) + control)],
    behind=[(b"fcTL", struct.pack(">I", 1) + control), (b"fdAT", struct.pack(">I", 2) + black)],
  )._replace(truth=still.truth)


def claims(width: int, height: int) -> Made:
  """Returns a PNG whose header claims a size, without pixels."""
  header = struct.pack(">IIBBBBB", width, height, 8, RGB, 0, 0, 0)
  return Made(START + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))


def with_header(**claimed: int) -> Made:
  """Claims another depth or colour type; the checksum is right."""
  fields = {"width": WIDTH, "height": HEIGHT, "depth": 8, "colour": RGB} | claimed
  made = encode().data
  header = chunk(b"IHDR", struct.pack(">IIBBBBB", *fields.values(), 0, 0, 0))
  return Made(START + header + made[len(START) + len(header) :])


def with_pixels(data: bytes) -> Made:
  """Puts other data where the pixels were; the checksum is right."""
  header = encode().data[: len(START) + 25]
  return Made(header + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def zeros(count: int) -> bytes:
  return zlib.compress(bytes(count))


def profile(data: bytes) -> Made:
  return encode(before=[(b"iCCP", b"profile\0\0" + zlib.compress(data, 0))])


def of_ios() -> Made:
  """Writes a PNG as Xcode does: Apple's chunk first, and deflated data without zlib's header and checksum."""
  made = encode().data
  at, end = made.index(b"IDAT") + 4, made.index(b"IEND") - 8
  pixels = chunk(b"IDAT", made[at + 2 : end - 4])
  return Made(START + chunk(b"CgBI", b"\x50\0\x20\6") + made[len(START) : at - 8] + pixels + chunk(b"IEND", b""))


def very_many_chunks() -> Made:
  made = encode().data
  return Made(made[:33] + chunk(b"IDAT", b"") * 140_000 + made[33:])


def texts() -> Made:
  packed = zlib.compress(b"x" * 100)
  return encode(
    before=[(b"tEXt", b"Author\0me"), (b"zTXt", b"Comment\0\0" + packed)],
    behind=[(b"iTXt", b"Title\0\0\0\0\0a title"), (b"tIME", struct.pack(">HBBBBB", 2020, 1, 1, 0, 0, 0))],
  )


def compressed_text(data: bytes) -> Made:
  return encode(before=[(b"zTXt", b"Comment\0\0" + zlib.compress(data))])
