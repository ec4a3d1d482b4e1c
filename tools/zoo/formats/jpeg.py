"""Writes JPEG files: with Pillow, and changed by hand (ITU T.81)."""

from __future__ import annotations

import io
import re
import struct

import numpy as np
from PIL import Image as Pillow

from tools.zoo.formats.made import Made, by_pillow, in_grey, replaced

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"


def segment(marker: int, data: bytes) -> bytes:
  return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def arithmetic() -> Made:
  """Returns 3 x 2 blocks of one grey each, coded arithmetically (SOF9)."""
  greys = np.array([[20, 90, 91], [200, 255, 0]])
  tables = segment(0xDB, b"\0" + bytes([8]) * 64)
  frame = segment(0xC9, struct.pack(">BHHB", 8, 16, 24, 1) + b"\1\x11\0")
  scan = segment(0xDA, b"\1\1\0\0\x3f\0")
  # By hand, as annex D has it: the differences of the greys, each followed by the end of its block.
  coded = bytes.fromhex("ff00d28663586fcf7077cb8580")
  return Made(_SOI + tables + frame + scan + coded + _EOI, in_grey(np.kron(greys, np.ones((8, 8))).astype(np.uint8)))


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
