"""Writes GIF files, frame by frame (GIF89a specification)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tools.zoo.formats.made import HEIGHT, WIDTH, Made, grey_picture

_PALETTE = np.stack([np.arange(128) * 2, np.arange(128)[::-1] * 2, np.arange(128) * 37 % 256], 1).astype(np.uint8)
_BITS = 7  # of a palette index
_CLEAR, _END = 1 << _BITS, (1 << _BITS) + 1


class Frame(NamedTuple):
  """One frame: its size, where it lies, and what its extension says."""

  size: tuple[int, int] = (WIDTH, HEIGHT)
  at: tuple[int, int] = (0, 0)
  shift: int = 0  # of the palette indices, so that frames differ
  transparent: int | None = None
  disposal: int = 0
  interlaced: bool = False
  own_palette: bool = False


def indices(frame: Frame) -> np.ndarray:
  """Returns the frame's palette indices, uint8 [H, W]."""
  return ((grey_picture(*frame.size).astype(int) // 2 + frame.shift) % 128).astype(np.uint8)


def encode(
  frames: Sequence[Frame] = (Frame(),),
  *,
  screen: tuple[int, int] = (WIDTH, HEIGHT),
  version: bytes = b"89a",
  has_palette: bool = True,
  background: int = 0,
  extensions: bytes = b"",
) -> Made:
  """Encodes frames; the pixels are those of the first one as TensorFlow shows it.

  Its canvas is black, and as large as the largest frame, whatever the screen is.
  """
  flags = 0x80 | 0x70 | (_BITS - 1) if has_palette else 0x70
  data = b"GIF" + version + struct.pack("<HHBBB", *screen, flags, background, 0)
  data += _PALETTE.tobytes() if has_palette else b""
  data += extensions
  for frame in frames:
    data += _frame(frame, version)
  return Made(data + b";", _truth(frames) if frames else None)


def _truth(frames: Sequence[Frame]) -> np.ndarray:
  first = frames[0]
  palette = _PALETTE[:, ::-1] if first.own_palette else _PALETTE
  found = indices(first)
  pixels = palette[found]
  if first.transparent is not None:
    pixels[found == first.transparent] = 0
  canvas = np.zeros((max(frame.size[1] for frame in frames), max(frame.size[0] for frame in frames), 3), np.uint8)
  room = canvas[first.at[1] :, first.at[0] :][: len(pixels), : pixels.shape[1]]
  room[:] = pixels[: room.shape[0], : room.shape[1]]
  return canvas


def _frame(frame: Frame, version: bytes) -> bytes:
  data = b""
  if version == b"89a":
    flags = frame.disposal << 2 | (frame.transparent is not None)
    data = b"!\xf9\x04" + struct.pack("<BHB", flags, 10, frame.transparent or 0) + b"\0"
  flags = (0x80 | (_BITS - 1) if frame.own_palette else 0) | (0x40 if frame.interlaced else 0)
  data += b"," + struct.pack("<HHHHB", *frame.at, *frame.size, flags)
  data += _PALETTE[:, ::-1].tobytes() if frame.own_palette else b""
  rows = indices(frame)
  if frame.interlaced:
    rows = np.concatenate([rows[start::step] for start, step in ((0, 8), (4, 8), (2, 4), (1, 2))])
  return data + bytes([_BITS]) + blocks(_lzw(rows.ravel().tolist())) + b"\0"


def _lzw(values: Sequence[int]) -> bytes:
  """LZW that never uses its table: it is cleared before codes would grow."""
  codes = []
  for number, value in enumerate(values):
    if number % (_CLEAR - 2) == 0:
      codes.append(_CLEAR)
    codes.append(value)
  codes.append(_END)
  bits = "".join(format(code, f"0{_BITS + 1}b")[::-1] for code in codes)
  bits += "0" * (-len(bits) % 8)
  return bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))


def blocks(data: bytes) -> bytes:
  """Splits data into blocks of at most 255 bytes, each with its length before it."""
  return b"".join(bytes([len(data[at : at + 255])]) + data[at : at + 255] for at in range(0, len(data), 255))


COMMENT = b"!\xfe" + blocks(b"a comment " * 60) + b"\0"
LOOP = b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"


def with_large_frame() -> Made:
  """Encodes the picture and a second frame that claims 12,000 x 12,000 pixels."""
  first = encode()
  large = b"," + struct.pack("<HHHHB", 0, 0, 12_000, 12_000, 0) + bytes([_BITS]) + blocks(_lzw([0] * 5_000)) + b"\0"
  return Made(first.data[:-1] + large + b";", first.truth)


def claims(width: int, height: int) -> Made:
  """Returns a GIF whose only frame claims a size that its data do not have."""
  made = encode(screen=(width, height)).data
  at = made.index(b"," + struct.pack("<HHHH", 0, 0, WIDTH, HEIGHT)) + 5
  return Made(made[:at] + struct.pack("<HH", width, height) + made[at + 4 :])


def many_frames() -> Made:
  """Encodes 100 frames of one colour, packed as tightly as LZW can."""
  side = 800
  data = b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + bytes([_BITS]) + blocks(_lzw_of_zeros(side * side)) + b"\0"
  start = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80 | 0x70 | (_BITS - 1), 0, 0) + _PALETTE.tobytes()
  return Made(start + data * 100 + b";", np.broadcast_to(_PALETTE[0], (side, side, 3)))


def _lzw_of_zeros(count: int) -> bytes:
  """LZW in which each code stands for one more pixel than the last one."""
  bits, left = [], count
  while left:
    bits.append(format(_CLEAR, f"0{_BITS + 1}b"))
    following, run, width = _END, 1, _BITS + 1
    while left and following < 4095:
      run = min(run, left)
      code = 0 if run == 1 else _END + run - 1
      bits.append(format(code, f"0{width}b"))
      left, run, following = left - run, run + 1, following + 1
      width += following == 1 << width and width < 12
  bits.append(format(_END, f"0{width}b"))
  text = "".join(code[::-1] for code in bits)
  text += "0" * (-len(text) % 8)
  return bytes(int(text[at : at + 8][::-1], 2) for at in range(0, len(text), 8))
