"""The head's loss and gradient over all images, block by block.

A block is computed by one thread, and the blocks' sums are added in their order, in float64: no bit depends on the
number of threads, nor on where the blocks come from. The validation images of a block are scored in the same pass.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from beam_retrain.trainer.fit.data import Bottlenecks
from beam_retrain.trainer.fit.head import LinearHead, Score, total
from beam_retrain.transforms.core.records.schema import TRAINING, VALIDATION
from beam_retrain.transforms.core.system.machine import available_cores
from beam_retrain.transforms.core.system.prefetch import map_ahead

_ROWS = 1024  # of a block
_SAMPLED = 4  # images for each number of a vector


@dataclasses.dataclass(frozen=True)
class Block:
  """Rows that follow each other."""

  data: Bottlenecks
  rows: slice
  classes: np.ndarray  # int [n]
  is_learned: np.ndarray  # bool [n], those learned from
  is_validation: np.ndarray  # bool [n]

  def read(self) -> np.ndarray:
    """Returns float32 [n, D]; from a file, in the thread that computes."""
    return self.data.vectors[self.rows]


class Evaluation(NamedTuple):
  trained: Score
  validated: Score
  loss: float
  gradient: np.ndarray  # float32 [D + 1, C], by the kernel and, last, by the bias


def blocks_of(data: Bottlenecks) -> Iterator[Block]:
  """Yields views of the rows, without blocks that are only for testing."""
  is_learned, is_validation = np.zeros((2, len(data.vectors)), bool)
  is_learned[data.learned_rows] = is_validation[data.rows[VALIDATION]] = True
  for start in range(0, len(data.vectors), _ROWS):
    part = slice(start, start + _ROWS)
    if (is_learned[part] | is_validation[part]).any():
      yield Block(data, part, data.classes[part], is_learned[part], is_validation[part])


class Objective:
  """Mean cross-entropy + l2 / 2n * kernel squares, of n images."""

  def __init__(self, data: Bottlenecks, l2: float):
    self._data = data
    self.images = len(data.learned_rows)  # distorted variants too
    self.penalty = l2 / len(data.rows[TRAINING])

  def evaluate(self, head: LinearHead) -> Evaluation:
    """Evaluates the head in one pass over the images."""
    parts = map_ahead(functools.partial(_evaluate, head), blocks_of(self._data), available_cores())
    gradient, sums = np.zeros((self._data.dimensions + 1, len(self._data.labels))), []
    for of_block, *of_images in parts:
      gradient += of_block
      sums.append(of_images)
    trained, validated = map(total, zip(*sums, strict=True))
    gradient /= self.images
    gradient[:-1] += self.penalty * head.kernel
    squares = float(np.square(head.kernel, dtype=np.float64).sum())
    loss = trained.loss + self.penalty / 2 * squares
    return Evaluation(trained, validated, loss, gradient.astype(np.float32))

  def second_moments(self) -> np.ndarray:
    """Returns float32 [D, D], the mean of x x^T of some images."""
    every = max(1, self.images // (_SAMPLED * self._data.dimensions))
    moments = np.zeros((self._data.dimensions, self._data.dimensions), np.float32)
    images = 0
    for count, part in map_ahead(functools.partial(_square, every), blocks_of(self._data), available_cores()):
      moments += part
      images += count
    moments /= images
    return moments


@np.errstate(over="ignore", invalid="ignore")  # the caller checks that they are finite
def _square(every: int, block: Block) -> tuple[int, np.ndarray]:
  sample = block.read()[block.is_learned][::every]
  return len(sample), sample.T @ sample


def _evaluate(head: LinearHead, block: Block) -> tuple[np.ndarray, Score, Score]:
  """Returns a block's gradient, float32 [D + 1, C], and scores."""
  vectors = block.read()
  predictions = head.predict(vectors, block.classes)
  trained, validated = predictions.score(block.is_learned), predictions.score(block.is_validation)
  if not trained.images:
    return np.zeros(1, np.float32), trained, validated
  errors = predictions.errors(block.classes)
  errors[~block.is_learned] = 0
  return np.vstack([(errors.T @ vectors).T, errors.sum(axis=0)]), trained, validated
