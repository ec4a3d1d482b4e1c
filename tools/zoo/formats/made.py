"""What a writer returns: the bytes of a file and the pixels that it holds."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np
from PIL import Image as Pillow

WIDTH, HEIGHT = 24, 20


class Made(NamedTuple):
  """A file, and the pixels that it holds: uint8 [H, W, 3]; None: those that Pillow reads."""

  data: bytes
  truth: np.ndarray | None = None


def picture(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
  """Returns uint8 [height, width, 3]: ramps and two rectangles, so that swapped axes, rows or channels show."""
  y, x = np.mgrid[0:height, 0:width]
  pixels = np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + y) * 4 % 256], -1)
  pixels[height // 5 : height // 2, width // 8 : width // 3] = (230, 30, 20)
  pixels[height // 2 : height - 3, width // 2 : width - 2] = (20, 60, 220)
  return pixels.astype(np.uint8)


def grey_picture(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
  """Returns uint8 [height, width]."""
  return picture(width, height).astype(int).sum(2).__floordiv__(3).astype(np.uint8)


def in_grey(pixels: np.ndarray) -> np.ndarray:
  """uint8 [H, W] -> uint8 [H, W, 3]."""
  return np.repeat(pixels[..., None], 3, 2)


def by_pillow(kind: str, mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT), **options: Any) -> Made:
  """Encodes the picture with Pillow, in one of its modes; `size` is (width, height)."""
  file = io.BytesIO()
  Pillow.fromarray(picture(*size)).convert(mode).save(file, kind, **options)
  return Made(file.getvalue())


def cut(made: Made, where: float) -> Made:
  """Keeps the first part of a file: a share below 1, or as many bytes (negative: from the end)."""
  return Made(made.data[: int(len(made.data) * where) if 0 < where < 1 else int(where)])


def changed(made: Made, at: int, by: bytes) -> Made:
  """Overwrites bytes of a file; the pixels should stay."""
  at %= len(made.data)
  return Made(made.data[:at] + by + made.data[at + len(by) :], made.truth)


def flipped(made: Made, at: int | float) -> Made:
  """Flips a bit at a place: a share of the file, or a number of bytes."""
  at = int(len(made.data) * at) if isinstance(at, float) else at % len(made.data)
  return Made(made.data[:at] + bytes([made.data[at] ^ 0x10]) + made.data[at + 1 :])


def replaced(made: Made, old: bytes, new: bytes) -> Made:
  """Replaces the first occurrence, which has to be there."""
  assert old in made.data, old
  return Made(made.data.replace(old, new, 1), made.truth)


def followed(made: Made, rest: bytes) -> Made:
  """Puts bytes behind a whole file."""
  return Made(made.data + rest, made.truth)
