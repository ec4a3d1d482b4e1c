"""Compares the scores of several ways to run a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from beam_retrain.transforms.core.errors import InputError


class Answer(NamedTuple):
  """The label with the highest score, and that score, 0..1."""

  label: str
  score: float

  def __str__(self) -> str:
    return f"{self.label!r} {self.score:.4%}"


class Disagreement(NamedTuple):
  """An image scored differently by the reference and another way.

  `difference` is the largest of all labels, 0..1 (NaN if a score is not finite); `label` is its label.
  """

  key: str
  expected: Answer
  found: Answer
  difference: float
  label: str


@dataclasses.dataclass
class Tally:
  """Differences of one way's scores from the reference's.

  Attributes:
    bound: largest difference of scores, 0..1, that counts as rounding; None: compares labels instead.
    largest: largest difference of two scores of one label, 0..1; infinite if a score was not finite.
    beyond: images with a difference above the bound.
    first: the first of these; without a bound, the first with another label.
  """

  name: str
  bound: float | None
  images: int = 0
  largest: float = 0.0
  other_labels: int = 0
  beyond: int = 0
  first: Disagreement | None = None

  def add(self, keys: Sequence[str], expected: np.ndarray, found: np.ndarray, labels: Sequence[str]) -> None:
    """Compares the scores, float32 [N, C], 0..1, of N images.

    Raises:
      InputError: the number of scores differs from the number of labels.
    """
    if found.shape != (len(keys), len(labels)):
      raise InputError(
        f"{self.name} belongs to another model: it gives {found.shape[-1]} scores per image, but there are"
        f" {len(labels)} labels."
      )
    differences = np.abs(found.astype(np.float64) - expected)
    differences[~np.isfinite(differences)] = np.inf
    rows = differences.max(axis=1)
    others = found.argmax(axis=1) != expected.argmax(axis=1)
    beyond = np.zeros(len(keys), bool) if self.bound is None else rows > self.bound
    self.images += len(keys)
    self.largest = max(self.largest, float(rows.max()))
    self.other_labels += int(others.sum())
    self.beyond += int(beyond.sum())
    wanted = np.flatnonzero(others if self.bound is None else beyond)
    if self.first is None and len(wanted):
      row = int(wanted[0])
      worst = int(differences[row].argmax())
      self.first = Disagreement(
        keys[row],
        _answer(expected[row], labels),
        _answer(found[row], labels),
        float(rows[row]),
        labels[worst],
      )


def _answer(scores: np.ndarray, labels: Sequence[str]) -> Answer:
  best = int(scores.argmax())
  return Answer(labels[best], float(scores[best]))
