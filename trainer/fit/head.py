"""The head, one softmax layer on transformed bottlenecks, and its optimizers.

They are in numpy: a training step is two products of a batch with a narrow matrix, bound by memory bandwidth, so
that the overhead per step matters, and numpy has the least.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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


class LinearHead:
  """float32 [N, D] -> float32 [N, C] logits, without the softmax.

  Attributes:
    kernel: float32 [D, C].
    bias: float32 [C].
  """

  def __init__(self, kernel: np.ndarray, bias: np.ndarray):
    self.kernel = kernel
    self.bias = bias

  def get_weights(self) -> list[np.ndarray]:
    return [self.kernel.copy(), self.bias.copy()]

  def set_weights(self, weights: Sequence[np.ndarray]) -> None:
    """Copies into `kernel` and `bias`; raises ValueError if the shapes differ."""
    kernel, bias = weights
    if (kernel.shape, bias.shape) != (self.kernel.shape, self.bias.shape):
      raise ValueError("weights of another head")
    self.kernel[:], self.bias[:] = kernel, bias

  @np.errstate(over="ignore", invalid="ignore", divide="ignore")  # the caller checks that the loss is finite
  def score(self, vectors: np.ndarray, classes: np.ndarray) -> Score:
    """Scores the predictions for float32 [n, D] against class indices, int [n]."""
    return self._score(vectors, classes)[0]

  def differentiate(self, vectors: np.ndarray, classes: np.ndarray) -> tuple[Score, list[np.ndarray]]:
    """Also returns the gradients of the mean cross-entropy by `kernel` and `bias`."""
    score, errors = self._score(vectors, classes)
    errors[np.arange(len(classes)), classes] -= 1
    errors /= len(classes)
    return score, [vectors.T @ errors, errors.sum(axis=0)]

  def _score(self, vectors: np.ndarray, classes: np.ndarray) -> tuple[Score, np.ndarray]:
    """Also returns the softmax, float32 [n, C]."""
    logits = vectors @ self.kernel
    logits += self.bias
    correct = int(np.count_nonzero(logits.argmax(axis=1) == classes))
    logits -= logits.max(axis=1, keepdims=True)
    of_truth = logits[np.arange(len(classes)), classes]
    powers = np.exp(logits, out=logits)
    sums = powers.sum(axis=1, keepdims=True)
    loss = float((np.log(sums[:, 0]) - of_truth).sum(dtype=np.float64))
    powers /= sums
    return Score(loss, correct, len(classes)), powers


def build_head(dimensions: int, classes: int, seed: int) -> LinearHead:
  """Returns the untrained head, its weights drawn as in `retrain.py`.

  They are normal with standard deviation 0.001, truncated at two of them.
  """
  rng = np.random.default_rng(seed)
  kernel = rng.standard_normal((dimensions, classes))
  while (too_far := np.abs(kernel) > 2).any():
    kernel[too_far] = rng.standard_normal(np.count_nonzero(too_far))
  return LinearHead((kernel * _DEVIATION).astype(np.float32), np.zeros(classes, np.float32))


class GradientDescent:
  """Plain gradient descent, without momentum. Equal to Keras' SGD.

  Attributes:
    variables: what a step needs besides the weights.
  """

  variables: Sequence[np.ndarray] = ()

  def apply(self, gradients: Sequence[np.ndarray], weights: Sequence[np.ndarray], rate: float) -> None:
    """Updates `weights` in place by one step; may overwrite `gradients`."""
    for gradient, weight in zip(gradients, weights, strict=True):
      gradient *= np.float32(rate)
      weight -= gradient

  def restore(self, variables: Sequence[np.ndarray]) -> None:
    """Restores `variables`; raises ValueError, and changes nothing, if the shapes differ."""
    if [own.shape for own in self.variables] != [value.shape for value in variables]:
      raise ValueError("variables of another optimizer")
    for own, value in zip(self.variables, variables, strict=True):
      own[...] = value


class Adam(GradientDescent):
  """Adam, with the bias correction in the learning rate, as in Keras.

  Kingma and Ba, Adam: A Method for Stochastic Optimization, 2015, algorithm 1 and the end of section 2.
  """

  _BETA_1 = 0.9
  _BETA_2 = 0.999
  _EPSILON = 1e-7

  def __init__(self, weights: Sequence[np.ndarray]):
    self._steps = np.zeros((), np.int64)
    self._means = [np.zeros_like(weight) for weight in weights]
    self._squares = [np.zeros_like(weight) for weight in weights]
    self.variables = [self._steps, *self._means, *self._squares]

  def apply(self, gradients: Sequence[np.ndarray], weights: Sequence[np.ndarray], rate: float) -> None:
    self._steps += 1
    steps = int(self._steps)
    step_size = np.float32(rate * math.sqrt(1 - self._BETA_2**steps) / (1 - self._BETA_1**steps))
    for gradient, weight, mean, square in zip(gradients, weights, self._means, self._squares, strict=True):
      mean += (gradient - mean) * np.float32(1 - self._BETA_1)
      gradient *= gradient
      square += (gradient - square) * np.float32(1 - self._BETA_2)
      weight -= step_size * mean / (np.sqrt(square) + np.float32(self._EPSILON))
