"""The final test of `retrain.py`, from the predictions of an evaluation."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from beam_retrain.transforms.core.metrics.predictions import Row, read_predictions
from beam_retrain.transforms.core.records.csv_format import unescape_cell


class Judged(NamedTuple):
  """A tested image; `times` is how often it was drawn."""

  key: str
  actual: str
  predicted: str
  times: int


def judge(path: str, how_many: int, seed: int) -> Iterator[Judged]:
  """Yields the tested images of a `predictions.csv`, in file order.

  Args:
    path: the file; InputError if it is damaged.
    how_many: draws, kept in memory; each, as in `retrain.py`, of a label at random and then of one of its images, with
      replacement. If negative, each image once.
    seed: of the draws; the same seed and file give the same images.
  """
  drawn = _draw(path, how_many, seed) if how_many >= 0 else None
  seen: dict[str, int] = defaultdict(int)
  for row in _rows(path):
    times = 1 if drawn is None else drawn[row.actual, seen[row.actual]]
    seen[row.actual] += 1
    if times:
      yield Judged(unescape_cell(row.key), unescape_cell(row.actual), unescape_cell(row.predicted), times)


def final_accuracy(path: str, how_many: int, seed: int) -> tuple[float, int]:
  """Returns (accuracy 0..1, number of images); takes the arguments of `judge`."""
  right = total = 0
  for image in judge(path, how_many, seed):
    total += image.times
    right += image.times * (image.actual == image.predicted)
  return right / total, total


def _draw(path: str, how_many: int, seed: int) -> Counter[tuple[str, int]]:
  """Returns (label, position among its images) -> number of draws."""
  counts = Counter(row.actual for row in _rows(path))
  labels = sorted(counts)
  rng = np.random.default_rng([seed, how_many])
  drawn = rng.integers(len(labels), size=how_many)
  positions = rng.integers([counts[labels[index]] for index in drawn])
  return Counter((labels[index], int(position)) for index, position in zip(drawn, positions, strict=True))


def _rows(path: str) -> Iterator[Row]:
  with open(path, newline="", encoding="utf-8") as file:
    yield from read_predictions(file, path)
