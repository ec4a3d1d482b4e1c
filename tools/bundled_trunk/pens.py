"""Digits as a pen writes them: the ways people draw each one, as strokes whose points are shaken.

Fonts are drawn by people who draw letters well, and each has one 4. Here are the open and the closed 4, the 7 with
and without its bar, the looped 2, and so on, each different every time. They were written down from how digits are
taught and scrawled, not traced from anyone's data set.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy import spatial  # type: ignore[import-untyped]

from tools.bundled_trunk import glyphs

# Points of a stroke in percent of the digit's width and height, from the top left. "!" marks a corner; without it the
# stroke runs smoothly through the point. "|" lifts the pen.
TEMPLATES: dict[int, tuple[str, ...]] = {
  0: (
    "50 0, 15 18, 3 55, 20 90, 50 100, 83 86, 97 50, 85 15, 52 0",
    "72 12, 40 2, 10 30, 5 65, 30 98, 70 95, 95 60, 90 25, 62 3, 32 10",
    "62 18, 72 4, 40 2, 8 35, 10 75, 45 100, 85 80, 95 40, 75 8, 48 8",
    "40 5, 75 5, 97 45, 80 92, 45 100, 8 80, 3 40, 25 8, 55 0",
    "80 5, 35 8, 5 60, 25 98, 65 90, 95 40, 85 8, 60 15",
    "50 0, 12 20, 5 60, 30 98, 72 95, 96 55, 85 15, 52 0 | 92 8, 8 94",
  ),
  1: (
    "50 0, 50 50, 50 100",
    "58 0, 50 45, 44 100",
    "25 25, 55 0!, 55 100",
    "32 12, 54 0!, 52 50, 50 100",
    "25 25, 55 0!, 55 100 | 22 100, 88 100",
    "15 30, 40 18, 58 0!, 55 50, 55 100 | 18 98, 60 100, 92 97",
    "50 0, 50 100 | 25 100, 75 100",
    "48 0, 53 30, 48 70, 55 100",
  ),
  2: (
    "10 25, 30 3, 68 0, 86 25, 62 58, 8 98!, 95 97",
    "10 25, 35 2, 75 5, 86 30, 55 65, 20 96, 4 92, 14 76, 42 86, 70 100, 98 90",
    "8 10, 90 4!, 10 96!, 95 95",
    "28 34, 10 22, 32 2, 72 3, 88 26, 60 62, 8 96!, 50 92, 96 99",
    "10 22, 40 0, 82 15, 75 45, 40 75, 8 96!, 38 87, 68 98, 99 88",
    "12 15, 50 0, 90 22, 70 55, 30 85, 12 99, 2 88, 25 80, 55 90, 95 95",
    "5 30, 25 5, 60 0, 75 20, 60 50, 25 80, 5 98!, 60 95, 100 85",
    "15 20, 55 0, 85 20, 60 60, 30 92, 15 85, 40 78, 60 100, 95 100",
  ),
  3: (
    "8 14, 45 0, 85 16, 74 40, 38 48!, 84 60, 90 86, 50 100, 4 88",
    "10 10, 50 0, 86 20, 65 42, 40 50, 30 46, 46 44, 86 62, 85 88, 45 100, 4 86",
    "8 5, 86 3!, 42 42!, 85 58, 88 88, 45 100, 6 90",
    "12 15, 50 1, 80 20, 48 46, 86 70, 55 100, 8 90",
    "8 18, 40 0, 80 10, 78 34, 45 47!, 75 50, 95 72, 75 97, 30 98, 4 82",
    "5 8, 60 0, 90 18, 60 40, 25 52!, 70 52, 92 75, 60 98, 10 98",
    "15 8, 70 2, 80 20, 40 40!, 80 50, 85 78, 40 95, 0 100",
  ),
  4: (
    "20 0, 8 55!, 92 50 | 72 15, 64 100",
    "20 0, 8 40, 28 57, 88 45 | 80 0, 72 100",
    "70 0, 5 66!, 98 63 | 70 0, 68 100",
    "14 0, 10 45, 45 56, 84 40 | 86 0, 80 50, 78 100",
    "20 0, 8 50!, 85 46, 86 4!, 76 100",
    "24 4, 8 60!, 96 56 | 60 34, 54 100",
    "75 100, 74 2!, 4 64!, 100 66",
    "60 0, 25 38, 8 62!, 95 55 | 85 5, 60 60, 48 100",
    "15 5, 20 52!, 80 46 | 85 0, 80 100",
  ),
  5: (
    "20 5, 15 45!, 55 38, 92 66, 70 95, 8 98 | 20 5, 92 2",
    "92 3, 22 5!, 14 46!, 60 38, 92 68, 60 98, 4 92",
    "92 4, 40 4, 15 25, 40 46, 82 62, 76 92, 35 100, 4 88",
    "25 12, 20 46!, 65 44, 90 72, 55 100, 4 90 | 34 6, 97 0",
    "95 0, 30 10!, 25 45!, 70 50, 80 78, 50 98, 0 98",
    "30 0, 10 42, 50 40, 80 60, 65 92, 20 100, 0 88 | 30 2, 95 6",
    "90 0, 35 2, 22 40, 60 48, 85 75, 45 100, 10 95",
  ),
  6: (
    "75 0, 30 25, 5 65, 25 98, 70 98, 90 72, 60 52, 12 72",
    "50 0, 12 55, 14 90, 50 100, 86 80, 66 55, 30 60, 12 82",
    "85 15, 60 0, 20 30, 5 70, 35 100, 80 92, 86 62, 50 50, 12 72",
    "80 4, 25 40, 8 80, 45 100, 88 80, 62 56, 28 70",
    "65 0, 30 35, 6 76, 30 100, 62 90, 60 70, 36 66, 12 84",
    "35 0, 10 50, 15 92, 60 100, 92 78, 70 55, 25 66, 14 80",
    "90 0, 45 20, 10 55, 8 85, 40 100, 75 88, 70 64, 40 60, 15 80, 25 98",
  ),
  7: (
    "6 5, 93 3!, 45 100",
    "8 8, 90 3!, 60 45, 45 100",
    "8 22, 10 3!, 92 5!, 40 100",
    "6 5, 93 3!, 45 100 | 24 52, 86 48",
    "6 14, 25 2, 60 9, 93 2!, 52 55, 40 100 | 28 50, 80 52",
    "5 15, 25 2, 60 10, 93 2!, 50 55, 40 100",
    "8 8, 70 2, 90 14, 62 55, 48 100",
    "10 25, 15 5!, 80 2, 85 20, 55 60, 35 100",
    "5 0, 85 5!, 75 100",
  ),
  8: (
    "85 12, 50 0, 14 20, 45 46, 88 72, 55 100, 10 80, 45 48, 86 22, 78 8",
    "50 0, 18 22, 50 46, 82 22, 50 0 | 50 46, 8 74, 50 100, 92 74, 50 46",
    "50 0, 14 20, 50 48, 90 76, 50 100, 8 76, 50 48, 86 22, 50 0",
    "92 4, 55 0, 18 20, 50 48, 86 75, 50 100, 10 78, 48 50, 97 14",
    "15 14, 50 0, 86 20, 50 48, 10 76, 50 100, 90 76, 52 48, 14 16",
    "70 5, 30 15, 40 45, 75 70, 60 98, 25 90, 35 60, 80 25, 68 2",
    "88 20, 60 0, 15 12, 25 38, 70 55, 85 85, 40 100, 12 80, 60 50, 88 18",
  ),
  9: (
    "85 15, 45 0, 8 28, 30 52, 70 45, 88 14!, 80 100",
    "88 20, 50 0, 10 25, 35 50, 84 26, 86 60, 65 95, 14 96",
    "50 0, 14 22, 45 50, 82 25, 50 0 | 86 8, 80 55, 72 100",
    "80 10, 40 2, 8 30, 40 50, 78 26, 83 10, 75 60, 58 100",
    "75 8, 35 5, 18 28, 55 38, 78 12, 65 100",
    "90 8, 40 0, 5 30, 35 55, 80 35, 92 6!, 70 60, 40 100",
    "70 3, 20 8, 15 40, 60 42, 85 10, 88 50, 70 100, 20 85",
    "55 0, 10 15, 20 42, 70 38, 75 5, 55 4 | 78 6, 82 100",
  ),
}

_POINTS_PER_PIECE = 24
_NOMINAL_HALF_WIDTH_PX = 1.0


def parse(template: str) -> list[tuple[np.ndarray, np.ndarray]]:
  """Strokes of a template: (points float32 [P, 2] in 0..1 as x, y; corners bool [P]) each."""
  strokes = []
  for stroke in template.split("|"):
    words = [point.strip() for point in stroke.split(",")]
    points = [[float(number) for number in word.rstrip("!").split()] for word in words]
    strokes.append((np.array(points, np.float32) / 100, np.array([word.endswith("!") for word in words])))
  return strokes


def draw_digit(digit: int, rng: np.random.Generator) -> tuple[np.ndarray, float, int]:
  """One digit, written once: (distances float32 [GRID, GRID] in pixels, half width in pixels, label)."""
  strokes = parse(TEMPLATES[digit][rng.integers(len(TEMPLATES[digit]))])
  shake = rng.uniform(0.015, 0.065)
  rounded = rng.random() < 0.3  # a hasty hand cuts its corners
  paths = []
  for points, corners in strokes:
    points = points + rng.normal(0, shake, points.shape) + rng.normal(0, 0.02, 2)
    points[[0, -1]] += rng.normal(0, 0.03, (2, 2))  # a stroke's ends vary most
    paths.append(_smooth(points, corners & (not rounded)))
  path = np.concatenate(paths) * (rng.uniform(0.4, 1.0), 1.0)
  slant, turn = rng.normal(0.1, 0.22), rng.normal(0, 0.1)
  path[:, 0] -= slant * path[:, 1]
  path = path @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
  return (*_distance_field(path, rng), digit)


def draw_digits(count: int, seed: int) -> glyphs.Bank:
  """`count` digits, as many of each as can be."""
  rng = np.random.default_rng(seed)
  return glyphs.Bank.of(draw_digit(number % glyphs.DIGITS, rng) for number in range(count))


def _smooth(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
  """A Catmull-Rom curve through float [P, 2], sampled; at a corner, one curve ends and another begins."""
  cuts = [0, *np.flatnonzero(corners[1:-1]) + 1, len(points) - 1]
  t = np.linspace(0, 1, _POINTS_PER_PIECE)[:, None]
  pieces = []
  for first, last in itertools.pairwise(cuts):
    run = points[[first, *range(first, last + 1), last]]
    for a, b, c, d in zip(run, run[1:], run[2:], run[3:], strict=False):
      pieces.append(b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a))))
  return np.concatenate(pieces)


def _distance_field(path: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
  """Frames a path float [P, 2] as MNIST's digits are and measures from it, with a pen whose pressure varies."""
  low, high = path.min(0), path.max(0)
  path = (path - (low + high) / 2) * ((glyphs.BOX_PX - 2 * _NOMINAL_HALF_WIDTH_PX) / (high - low).max())
  lengths = np.maximum(np.linalg.norm(np.diff(path, axis=0), axis=1), 1e-6)
  lengths[lengths > 4] = 0  # the pen in the air weighs nothing
  middles = (path[1:] + path[:-1]) / 2
  path = path - np.average(middles, axis=0, weights=lengths)
  way = np.linspace(0, 2 * np.pi * rng.uniform(0.3, 1.5), len(path)) + rng.uniform(0, 2 * np.pi)
  half_widths = _NOMINAL_HALF_WIDTH_PX * (1 + rng.uniform(0, 0.45) * np.sin(way))
  pitch = glyphs.FRAME_PX / glyphs.GRID
  axis = (np.arange(glyphs.GRID) + 0.5) * pitch - glyphs.FRAME_PX / 2
  grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
  distance, nearest = spatial.cKDTree(path).query(grid)
  field = half_widths[nearest] - distance
  return field.reshape(glyphs.GRID, glyphs.GRID).astype(np.float32), _NOMINAL_HALF_WIDTH_PX
