"""GIF (GIF89a specification): its blocks, and how much its frames hold."""

from __future__ import annotations

import struct
from typing import NamedTuple

from beam_retrain.transforms.core.images.formats.info import Fault, ImageInfo, check_size, damaged
from beam_retrain.transforms.core.records.quarantine import MAX_PIXELS, Reason

START = b"GIF8"

_IMAGE, _EXTENSION, _TRAILER, _CONTROL = 0x2C, 0x21, b";", 0xF9
_MAX_BLOCKS = 1 << 20
"""Data blocks of a file. TensorFlow keeps those of extensions one by one."""
_MAX_KEPT = 1 << 16
_MAX_FRAMES = 1 << 12


class _Frame(NamedTuple):
  width: int
  height: int
  right: int
  bottom: int
  start: int
  end: int


class _Blocks:
  """Walks through a file once."""

  def __init__(self, encoded: bytes):
    self.encoded = encoded
    self.at = self.first_at = 13 + _palette_bytes(encoded[10])
    self.blocks = self.kept = 0
    self.frames: list[_Frame] = []
    self.control = b""  # of the first frame

  def read(self) -> bool:
    """Reads to where a decoder stops; False if too many."""
    encoded = self.encoded
    while self.at < len(encoded) and self.blocks <= _MAX_BLOCKS:
      kind, start = encoded[self.at], self.at
      if kind == _IMAGE and start + 10 <= len(encoded):
        left, top, width, height, flags = struct.unpack_from("<HHHHB", encoded, start + 1)
        self._skip(start + 11 + _palette_bytes(flags))  # with the size of its codes
        self.frames.append(_Frame(width, height, left + width, top + height, start, self.at))
      elif kind == _EXTENSION and start + 2 <= len(encoded):
        before = self.blocks
        self._skip(start + 2)
        self.kept += self.blocks - before
        if encoded[start + 1] == _CONTROL and not self.frames and not self.control:
          self.control = encoded[start : self.at]
      else:
        break
    return self.blocks <= _MAX_BLOCKS

  def _skip(self, at: int) -> None:
    """Goes behind the data blocks from `at`."""
    encoded, size = self.encoded, 1
    while size and at < len(encoded) and self.blocks <= _MAX_BLOCKS:
      size = encoded[at]
      at += 1 + size
      self.blocks += 1
    self.at = at


def probe(encoded: bytes, max_pixels: int) -> ImageInfo | Fault:
  """Reads the size of the screen or, if larger, the first frame.

  TensorFlow decodes all frames, then returns the first one on a canvas as large as the largest.
  """
  if len(encoded) < 13:
    return damaged("it is too short")
  walk = _Blocks(encoded)
  if not walk.read():
    return Fault(Reason.TOO_LARGE, f"a GIF of more than {_MAX_BLOCKS} blocks: save its first frame as PNG")
  if not walk.frames:
    return damaged("it has no frame")
  first, frames = walk.frames[0], walk.frames
  if not (encoded[10] | encoded[first.start + 9]) & 0x80:
    return Fault(Reason.UNSUPPORTED, "a GIF without a palette: save it as PNG")
  width, height = struct.unpack_from("<HH", encoded, 6)
  width, height = max(width, first.right), max(height, first.bottom)
  if too_large := check_size(height, width, max_pixels):
    return too_large
  info = ImageInfo("gif", height, width)
  canvas_width, canvas_height = max(frame.width for frame in frames), max(frame.height for frame in frames)
  if first.right > canvas_width or first.bottom > canvas_height:
    return Fault(Reason.UNSUPPORTED, "a GIF whose first frame TensorFlow would cut: save it as PNG")
  pixels = max(canvas_width * canvas_height, sum(frame.width * frame.height for frame in frames))
  few_blocks = walk.kept <= _MAX_KEPT and len(frames) <= _MAX_FRAMES
  if few_blocks and pixels <= min(max_pixels, MAX_PIXELS):
    return info
  if all(frame.width <= first.width and frame.height <= first.height for frame in frames):
    kept = (encoded[: walk.first_at], walk.control, encoded[first.start : first.end], _TRAILER)
    return info._replace(cut=b"".join(kept))
  if few_blocks and pixels <= max_pixels:
    return info
  return Fault(Reason.TOO_LARGE, f"its {len(frames)} frames have {pixels} pixels, more than the {max_pixels} allowed")


def _palette_bytes(flags: int) -> int:
  return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
