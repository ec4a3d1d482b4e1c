"""Writes JPEG files: with Pillow, changed by hand, and one with an arithmetic coder (ITU T.81)."""

from __future__ import annotations

import io
import re
import struct

import numpy as np
from PIL import Image as Pillow

from tools.zoo.formats.made import Made, by_pillow, in_grey, replaced

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"

# Table D.3: Qe, the next state after the less and the more probable symbol, and whether they change places.
_QE_VALUES = """
5a1d 2586 1114 080b 03d8 01da 00e5 006f 0036 001a 000d 0006 0003 0001 5a7f 3f25 2cf2 207c 17b9 1182 0cef 09a1 072f 055c
0406 0303 0240 01b1 0144 00f5 00b7 008a 0068 004e 003b 002c 5ae1 484c 3a0d 2ef1 261f 1f33 19a8 1518 1177 0e74 0bfb 09f8
0861 0706 05cd 04de 040f 0363 02d4 025c 01f8 01a4 0160 0125 00f6 00cb 00ab 008f 5b12 4d04 412c 37d8 2fe8 293c 2379 1edf
1aa9 174e 1424 119c 0f6b 0d51 0bb6 0a40 5832 4d1c 438e 3bdd 34ee 2eae 299a 2516 5570 4ca9 44d9 3e22 3824 32b4 2e17 56a8
4f46 47e5 41cf 3c3d 375e 5231 4c0f 4639 415e 5627 50e7 4b85 5597 504f 5a10 5522 59eb
"""
_STATES_AFTER_LESS = """
1 14 16 18 20 23 25 28 30 33 35 9 10 12 15 36 38 39 40 42 43 45 46 48 49 51 52 54 56 57 59 60 62 63 32 33 37 64
65 67 68 69 70 72 73 74 75 77 78 79 48 50 50 51 52 53 54 55 56 57 58 59 61 61 65 80 81 82 83 84 86 87 87 72 72
74 74 75 77 77 80 88 89 90 91 92 93 86 88 95 96 97 99 99 93 95 101 102 103 104 99 105 106 107 103 105 108 109
110 111 110 112 112
"""
_QE = [int(text, 16) for text in _QE_VALUES.split()]
_AFTER_LESS = [int(text) for text in _STATES_AFTER_LESS.split()]
_AFTER_MORE = {13: 13, 35: 9, 63: 32, 79: 48, 87: 71, 94: 86, 100: 93, 104: 99, 107: 103, 109: 107, 111: 109, 112: 111}
_CHANGES = {0, 14, 36, 64, 80, 88, 95, 105, 110, 112}


class _Coder:
  """The encoder of annex D, its code a number of any length."""

  def __init__(self) -> None:
    self._code, self._interval, self._bits = 0, 0x10000, 16
    self._contexts: dict[tuple[str, int], tuple[int, int]] = {}

  def put(self, context: tuple[str, int], bit: int) -> None:
    state, likely = self._contexts.get(context, (0, 0))
    rare = _QE[state]
    self._interval -= rare
    if bit == likely:
      if self._interval >= 0x8000:
        return
      if self._interval < rare:
        self._code, self._interval = self._code + self._interval, rare
      state = _AFTER_MORE.get(state, state + 1)
    else:
      if self._interval >= rare:
        self._code, self._interval = self._code + self._interval, rare
      likely ^= state in _CHANGES
      state = _AFTER_LESS[state]
    self._contexts[context] = state, likely
    while self._interval < 0x8000:
      self._code, self._interval, self._bits = self._code << 1, self._interval << 1, self._bits + 1

  def data(self) -> bytes:
    length = -(-self._bits // 8)
    return (self._code << (length * 8 - self._bits)).to_bytes(length).replace(b"\xff", b"\xff\0")


def _put_difference(coder: _Coder, value: int, context: int) -> int:
  """Codes a difference of two DC coefficients (F.1.4.1); returns the next one's context."""
  coder.put(("dc", context), int(value != 0))
  if not value:
    return 0
  coder.put(("dc", context + 1), int(value < 0))
  following, size, most = (8 if value < 0 else 4), abs(value) - 1, 0
  at = context + (3 if value < 0 else 2)
  if size:
    coder.put(("dc", at), 1)
    at, most = 20, 1
    for _ in range(size.bit_length() - 1):
      coder.put(("dc", at), 1)
      at, most = at + 1, most << 1
  coder.put(("dc", at), 0)
  bit = most >> 1
  while bit:
    coder.put(("dc", at + 14), int(bool(bit & size)))
    bit >>= 1
  return following + 8 * (most > 1)


def segment(marker: int, data: bytes) -> bytes:
  return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def arithmetic() -> Made:
  """Encodes 3 x 2 blocks of one grey each with an arithmetic coder (SOF9)."""
  greys = np.array([[20, 90, 91], [200, 255, 0]])
  coder, last, context = _Coder(), 0, 0
  for value in (greys - 128).ravel().tolist():
    context, last = _put_difference(coder, value - last, context), value
    coder.put(("ac", 0), 1)  # the block ends after its DC coefficient
  tables = segment(0xDB, b"\0" + bytes([8]) * 64)
  frame = segment(0xC9, struct.pack(">BHHB", 8, 16, 24, 1) + b"\1\x11\0")
  scan = segment(0xDA, b"\1\1\0\0\x3f\0")
  truth = in_grey(np.kron(greys, np.ones((8, 8))).astype(np.uint8))
  return Made(_SOI + tables + frame + scan + coder.data() + _EOI, truth)


def encode(mode: str = "RGB", **options: object) -> Made:
  """Encodes the picture with Pillow, at quality 90 unless told."""
  return by_pillow("JPEG", mode, **{"quality": 90, **options})


def inserted(made: Made, *segments: bytes) -> Made:
  """Puts segments right behind the start of the file."""
  return Made(_SOI + b"".join(segments) + made.data[2:], made.truth)


def framed_as(made: Made, marker: int) -> Made:
  """Claims another coding process: SOF1 to SOF15."""
  return replaced(made, b"\xff\xc0", bytes([0xFF, marker]))


def without(made: Made, marker: int) -> Made:
  """Removes the first segment of a kind."""
  at = made.data.index(bytes([0xFF, marker]))
  return Made(made.data[:at] + made.data[at + 2 + int.from_bytes(made.data[at + 2 : at + 4]) :])


def repeated_scan(made: Made, times: int) -> Made:
  """Repeats the last scan, which changes no pixel of the first kind of refinement, and costs time."""
  last = made.data.rindex(b"\xff\xda")
  return Made(made.data[:-2] + made.data[last:-2] * times + _EOI, made.truth)


def without_all(made: Made, marker: int) -> Made:
  while bytes([0xFF, marker]) in made.data:
    made = without(made, marker)
  return made


def without_last_scan(made: Made) -> Made:
  """Removes the last scan of a progressive file, which stays a whole file otherwise."""
  return Made(made.data[: made.data.rindex(b"\xff\xda")] + _EOI)


def cut_at_restart(made: Made, at: int, to: int | None = None) -> Made:
  """Leaves out the data from one restart marker to another, or to the end, and closes the file."""
  marks = [match.start() for match in re.finditer(rb"\xff[\xd0-\xd7]", made.data)]
  return Made(made.data[: marks[at]] + (_EOI if to is None else made.data[marks[to] :]))


def with_header(made: Made, depth: int = 8, height: int | None = None, width: int | None = None) -> Made:
  """Claims another depth or size in the frame's header."""
  frames = (bytes([0xFF, marker]) for marker in (0xC0, 0xC1, 0xC2))
  at = next(made.data.index(frame) + 4 for frame in frames if frame in made.data)
  _, old_height, old_width = struct.unpack_from(">BHH", made.data, at)
  header = struct.pack(">BHH", depth, old_height if height is None else height, old_width if width is None else width)
  return Made(made.data[:at] + header + made.data[at + 5 :])


def two_components() -> Made:
  """Encodes grey values twice, as components 1 and 2 of one file."""
  made = encode("L")
  frame, scan = made.data.index(b"\xff\xc0"), made.data.index(b"\xff\xda")
  size = made.data[frame + 4 : frame + 9]
  return Made(
    made.data[:frame]
    + segment(0xC0, size + b"\2\1\x11\0\2\x11\0")
    + made.data[frame + 13 : scan]
    + segment(0xDA, b"\1\1\0\0\x3f\0")
    + made.data[scan + 10 : -2]
    + segment(0xDA, b"\1\2\0\0\x3f\0")
    + made.data[scan + 10 :]
  )


def plain_cmyk() -> Made:
  """Encodes a CMYK file whose values are ink, as no marker says otherwise; Pillow takes all for inverted."""
  made = without(encode("CMYK"), 0xEE)
  with Pillow.open(io.BytesIO(made.data)) as image:
    paper = np.asarray(image).astype(int)  # inverted: 255 is no ink
  ink = 255 - paper
  return Made(made.data, ((255 - ink[..., :3]) * (255 - ink[..., 3:]) // 255).astype(np.uint8))


def many_scans() -> Made:
  """Encodes 16 million black pixels, and goes through them 400 times."""
  file = io.BytesIO()
  Pillow.new("L", (4_000, 4_000)).save(file, "JPEG", progressive=True)
  return repeated_scan(Made(file.getvalue()), 400)
