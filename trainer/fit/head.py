"""The head, one softmax layer on transformed bottlenecks.

It is in numpy: a training step is two products of a batch with a narrow matrix, bound by memory bandwidth, so that the
overhead per step matters, and numpy has the least.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

_DEVIATION = 0.001  # standard deviation of the initial weights, as in `retrain.py`


class Score(NamedTuple):
  """Predictions of images, added up: cross-entropy in nats, and correct ones."""

  total_loss: float
  correct: float
  images: int

  @property
  def loss(self) -> float:
    """The mean per image; NaN without images, as `accuracy`."""
    return self.total_loss / self.images if self.images else math.nan

  @property
  def accuracy(self) -> float:
    return self.correct / self.images if self.images else math.nan


def total(scores: Iterable[Score]) -> Score:
  """Adds scores up."""
  return Score(*map(sum, zip(Score(0.0, 0, 0), *scores, strict=True)))


class Predictions(NamedTuple):
  """Predictions of n images."""

  losses: np.ndarray  # float32 [n], the cross-entropies
  is_correct: np.ndarray  # bool [n]
  probabilities: np.ndarray  # float32 [n, C], the softmax

  def score(self, of: np.ndarray | slice = slice(None)) -> Score:
    """Returns the score of the images, or of those that are selected."""
    losses, is_correct = self.losses[of], self.is_correct[of]
    return Score(float(losses.sum(dtype=np.float64)), int(np.count_nonzero(is_correct)), len(losses))

  def errors(self, classes: np.ndarray) -> np.ndarray:
    """Turns the probabilities into the gradient of the losses by the logits."""
    self.probabilities[np.arange(len(classes)), classes] -= 1
    return self.probabilities


class LinearHead:
  """float32 [N, D] -> float32 [N, C] logits, without the softmax."""

  def __init__(self, kernel: np.ndarray, bias: np.ndarray):
    self.kernel = kernel  # float32 [D, C]
    self.bias = bias  # float32 [C]

  def get_weights(self) -> list[np.ndarray]:
    return [self.kernel.copy(), self.bias.copy()]

  def set_weights(self, weights: Sequence[np.ndarray]) -> None:
    """Copies into `kernel` and `bias`; raises ValueError if the shapes differ."""
    kernel, bias = weights
    if (kernel.shape, bias.shape) != (self.kernel.shape, self.bias.shape):
      raise ValueError("weights of another head")
    self.kernel[:], self.bias[:] = kernel, bias

  @np.errstate(over="ignore", invalid="ignore", divide="ignore")  # the caller checks that the loss is finite
  def predict(self, vectors: np.ndarray, classes: np.ndarray) -> Predictions:
    """Predicts float32 [n, D] against class indices, int [n]."""
    logits = vectors @ self.kernel
    logits += self.bias
    is_correct = logits.argmax(axis=1) == classes
    logits -= logits.max(axis=1, keepdims=True)
    of_truth = logits[np.arange(len(classes)), classes]
    powers = np.exp(logits, out=logits)
    sums = powers.sum(axis=1, keepdims=True)
    losses = np.log(sums[:, 0]) - of_truth
    powers /= sums
    return Predictions(losses, is_correct, powers)

  def score(self, vectors: np.ndarray, classes: np.ndarray) -> Score:
    """Scores the predictions."""
    return self.predict(vectors, classes).score()

  def differentiate(self, vectors: np.ndarray, classes: np.ndarray) -> tuple[Score, list[np.ndarray]]:
    """Also returns the gradients of the mean cross-entropy by `kernel` and `bias`."""
    predictions = self.predict(vectors, classes)
    errors = predictions.errors(classes)
    errors /= len(classes)
    return predictions.score(), [vectors.T @ errors, errors.sum(axis=0)]


def build_head(dimensions: int, classes: int, seed: int) -> LinearHead:
  """Returns the untrained head, its weights drawn as in `retrain.py`.

  They are normal with standard deviation 0.001, truncated at two of them.
  """
  rng = np.random.default_rng(seed)
  kernel = rng.standard_normal((dimensions, classes))
  while (too_far := np.abs(kernel) > 2).any():
    kernel[too_far] = rng.standard_normal(np.count_nonzero(too_far))
  return LinearHead((kernel * _DEVIATION).astype(np.float32), np.zeros(classes, np.float32))
