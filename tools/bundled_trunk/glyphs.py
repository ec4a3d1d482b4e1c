"""Images of letters and digits, kept as distance fields.

A distance field says of each point how far it is from the edge of the ink: + inside, - outside. Adding a number to it
makes the stroke thicker or thinner, it can be bent and read between its points without blur, and 40 x 40 of it hold
what a drawing needs 112 x 112 for. Every image is framed as MNIST's were: scaled so that its longer side is 20 of
28 pixels, and shifted so that its centre of mass is the centre.
"""

from __future__ import annotations

import dataclasses
import pathlib
import string
import zipfile
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage  # type: ignore[import-untyped]

FRAME_PX = 28.0  # side of the image in the end; all distances are in these pixels
BOX_PX = 20.0  # longer side of what is drawn on it
GRID = 40  # points of a field along one side
STEPS_PER_PX = 12.0  # a distance d is stored as uint8 128 + 12 d: 10.6 pixels either way
_FINE = 4  # fonts are drawn at 112 x 112

# Upper and lower case that look alike once they are scaled to one size are one class: 47 in all, the digits first.
_MERGED = "CIJKLMOPSUVWXYZ"
_SMALL = "".join(letter for letter in string.ascii_lowercase if letter.upper() not in _MERGED)
CLASSES = string.digits + string.ascii_uppercase + _SMALL
DIGITS = 10


def class_index(character: str) -> int:
  """Place of an ASCII letter or digit in CLASSES."""
  return CLASSES.index(character.upper() if character.upper() in _MERGED else character)


@dataclasses.dataclass(frozen=True)
class Bank:
  fields: np.ndarray  # uint8 [N, GRID, GRID], 128 + STEPS_PER_PX * distance in pixels
  half_widths: np.ndarray  # float32 [N], half the mean thickness of the strokes, in pixels
  labels: np.ndarray  # int32 [N], places in CLASSES

  def __len__(self) -> int:
    return len(self.labels)

  def save(self, path: pathlib.Path) -> None:
    """Temporary name, then rename: a bank that is there is whole."""
    temporary = path.with_suffix(".partial")
    with open(temporary, "wb") as file:
      np.savez_compressed(file, **dataclasses.asdict(self))
    temporary.replace(path)

  @classmethod
  def load(cls, path: pathlib.Path) -> Bank:
    try:
      with np.load(path, allow_pickle=False) as archive:
        return cls(**{field.name: archive[field.name] for field in dataclasses.fields(cls)})
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
      raise ValueError(f"{path} is no bank of glyphs ({error}): delete it, and it is drawn again.") from error

  @classmethod
  def of(cls, glyphs: Iterable[tuple[np.ndarray, float, int]]) -> Bank:
    """From (float distances [GRID, GRID], half width, label) each."""
    fields, half_widths, labels = zip(*((encode(d), w, c) for d, w, c in glyphs), strict=True)
    return cls(np.stack(fields), np.array(half_widths, np.float32), np.array(labels, np.int32))


def encode(distances: np.ndarray) -> np.ndarray:
  """float distances in pixels -> uint8."""
  return np.clip(np.rint(128 + STEPS_PER_PX * distances), 0, 255).astype(np.uint8)


def draw_font(font: ImageFont.FreeTypeFont) -> list[tuple[np.ndarray, float, int]]:
  """The glyphs of one face at about 100 points: (distances [GRID, GRID], half width in pixels, label) each.

  What the face lacks is left out, and so are small letters that are small capitals: their image is another class.
  """
  missing = _ink(font, "\uffff")
  glyphs: dict[str, tuple[np.ndarray, float, int]] = {}
  for character in string.digits + string.ascii_uppercase + string.ascii_lowercase:
    ink = _ink(font, character)
    if ink is None or (missing is not None and np.array_equal(ink, missing)):
      continue
    distances, half_width = distance_field(_frame(ink))
    capital = glyphs.get(character.upper()) if character.islower() else None
    if capital and capital[2] != class_index(character) and np.abs(capital[0] - distances).mean() < 0.35:
      continue
    glyphs[character] = (distances, half_width, class_index(character))
  return list(glyphs.values())


def draw_fonts(paths: Sequence[pathlib.Path]) -> Bank:
  """All glyphs of several faces."""
  return Bank.of(glyph for path in paths for glyph in draw_font(ImageFont.truetype(str(path), 100)))


def _ink(font: ImageFont.FreeTypeFont, character: str) -> np.ndarray | None:
  """uint8 [h, w], cropped to the ink; None if there is none."""
  left, top, right, bottom = font.getbbox(character)
  if right <= left or bottom <= top:
    return None
  image = Image.new("L", (int(right - left) + 8, int(bottom - top) + 8))
  ImageDraw.Draw(image).text((4 - left, 4 - top), character, fill=255, font=font)
  box = image.getbbox()
  return np.asarray(image.crop(box)) if box else None


def _frame(ink: np.ndarray) -> np.ndarray:
  """uint8 [h, w] -> bool [112, 112], scaled to the box and centred by mass."""
  side = int(FRAME_PX * _FINE)
  scale = BOX_PX * _FINE / max(ink.shape)
  height, width = (max(1, round(n * scale)) for n in ink.shape)
  solid = np.asarray(Image.fromarray(ink).resize((width, height), Image.Resampling.BILINEAR)) >= 128
  if not solid.any():
    solid = np.ones_like(solid)
  mass = [round(float(where.mean())) for where in np.nonzero(solid)]
  top, left = (int(np.clip(side // 2 - m, 0, side - n)) for m, n in zip(mass, solid.shape, strict=True))
  frame = np.zeros((side, side), bool)
  frame[top : top + height, left : left + width] = solid
  return frame


def distance_field(ink: np.ndarray) -> tuple[np.ndarray, float]:
  """bool [112, 112] -> (distances float32 [GRID, GRID] in pixels, half the mean stroke thickness in pixels)."""
  inside, outside = ndimage.distance_transform_edt(ink), ndimage.distance_transform_edt(~ink)
  signed = np.where(ink, inside - 0.5, 0.5 - outside).astype(np.float32) / _FINE
  edge = np.count_nonzero((inside > 0) & (inside < 1.5))  # a stroke is as long as half its outline
  half_width = ink.sum() / max(edge, 1) / _FINE
  field = Image.fromarray(signed).resize((GRID, GRID), Image.Resampling.BOX)
  return np.asarray(field), float(half_width)
