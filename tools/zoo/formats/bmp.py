"""Writes BMP files of every header, depth and compression."""

from __future__ import annotations

import struct

import numpy as np

from tools.zoo.formats.made import HEIGHT, WIDTH, Made, grey_picture, in_grey, picture

CORE, INFO, V2, V3, OS2, V4, V5 = 12, 40, 52, 56, 64, 108, 124
PLAIN, RLE8, RLE4, MASKS, JPEG, PNG, ALPHA_MASKS = range(7)
BGRA = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
RGBA = (0xFF, 0xFF00, 0xFF0000, 0xFF000000)
ABGR = (0xFF000000, 0xFF0000, 0xFF00, 0xFF)
RGB555 = (0x7C00, 0x3E0, 0x1F, 0)
RGB565 = (0xF800, 0x7E0, 0x1F, 0)


def encode(
  bits: int = 24,
  *,
  header: int = INFO,
  compression: int = PLAIN,
  masks: tuple[int, int, int, int] = (0, 0, 0, 0),
  top_down: bool = False,
  grey: bool = False,
  gap: int = 0,
  size: tuple[int, int] = (WIDTH, HEIGHT),
) -> Made:
  """Encodes the picture.

  Args:
    masks: of red, green, blue and alpha; written into the header from V2 on, else behind it.
    grey: a palette of grey values in order.
    gap: bytes between header and pixels.
  """
  rows, truth, palette = _rows(bits, masks, grey, size, compression)
  rows = rows if top_down else rows[::-1]
  if compression in (RLE8, RLE4):
    data = b"".join(b"".join(b"\x01" + value for value in row) + b"\0\0" for row in rows)[:-2] + b"\0\1"
  else:
    data = b"".join(line + bytes(-len(line) % 4) for line in (b"".join(row) for row in rows))
  height = -size[1] if top_down else size[1]
  extra = struct.pack("<IIII", *masks)[: 16 if compression == ALPHA_MASKS else 12]
  if header == CORE:
    head, colours = struct.pack("<IHHHH", header, *size, 1, bits), palette[:, :3].tobytes()
  else:
    head = struct.pack("<IiiHHIIiiII", header, size[0], height, 1, bits, compression, len(data), 2835, 2835, 0, 0)
    after = struct.pack("<IIII", *masks) + b"BGRs" + bytes(68)
    head, colours = (head + after[: header - INFO])[:header] if header != OS2 else head + bytes(24), palette.tobytes()
    if header == INFO and compression in (MASKS, ALPHA_MASKS):
      head += extra
  start = 14 + len(head) + len(colours) + gap
  return Made(b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + head + colours + bytes(gap) + data, truth)


def _rows(
  bits: int, masks: tuple[int, ...], grey: bool, size: tuple[int, int], compression: int
) -> tuple[list[list[bytes]], np.ndarray, np.ndarray]:
  """Returns the pixels' bytes by row, the pixels and the palette, uint8 [N, 4] in the order blue, green, red."""
  none = np.zeros((0, 4), np.uint8)
  if bits <= 8:
    return _indices(bits, grey, size, compression)
  pixels = picture(*size)
  if bits == 24:
    return [[bytes(pixel[::-1]) for pixel in row] for row in pixels], pixels, none
  masks = masks if any(masks) else BGRA if bits == 32 else RGB555
  values = sum(_placed(pixels[..., channel].astype(np.int64), masks[channel]) for channel in range(3)) | masks[3]
  shown = np.stack([_scaled(values, masks[channel]) for channel in range(3)], -1).astype(np.uint8)
  return [[int(value).to_bytes(bits // 8, "little") for value in row] for row in values], shown, none


def _indices(
  bits: int, grey: bool, size: tuple[int, int], compression: int
) -> tuple[list[list[bytes]], np.ndarray, np.ndarray]:
  colours = 1 << bits
  palette = np.random.default_rng(5).integers(0, 256, (colours, 4), dtype=np.uint8)
  if grey:
    palette = (np.arange(colours) * 255 // (colours - 1)).astype(np.uint8)[:, None].repeat(4, 1)
  palette[:, 3] = 0
  found = (grey_picture(*size) >> (8 - bits)).astype(np.uint8)
  truth = palette[found][..., 2::-1]
  if compression == RLE4:
    packed = [[bytes([value << 4]) for value in row] for row in found]
  elif bits == 8:
    packed = [[bytes([value]) for value in row] for row in found]
  else:
    unpacked = (found[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    packed = [[np.packbits(row.ravel()).tobytes()] for row in unpacked.astype(np.uint8)]
  return packed, in_grey(truth[..., 0]) if grey else truth, palette


def _placed(values: np.ndarray, mask: int) -> np.ndarray:
  low = (mask & -mask).bit_length() - 1
  return (values >> (8 - (mask >> low).bit_length())) << low


def _scaled(values: np.ndarray, mask: int) -> np.ndarray:
  low = (mask & -mask).bit_length() - 1
  return ((values & mask) >> low) * 255 // (mask >> low)


def holding(data: bytes, compression: int) -> Made:
  """Returns a BMP with a JPEG or PNG for its pixels, as printers take it."""
  head = struct.pack("<IiiHHIIiiII", INFO, WIDTH, HEIGHT, 1, 0, compression, len(data), 2835, 2835, 0, 0)
  return Made(b"BM" + struct.pack("<IHHI", 14 + len(head) + len(data), 0, 0, 14 + len(head)) + head + data)
