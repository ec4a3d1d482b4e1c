"""The head, one softmax layer on transformed bottlenecks, in numpy.

A training step is two products of a batch with a narrow matrix, bound by memory bandwidth: the overhead per step
matters, and numpy has the least.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_DEVIATION = 0.001  # standard deviation of the initial weights, as in `retrain.py`


class Comparison(NamedTuple):
  """Result of a batch's predictions; `loss`: summed cross-entropy, nats."""

  loss: float
  correct: int


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
  def compare(self, vectors: np.ndarray, classes: np.ndarray) -> Comparison:
    """Compares the predictions for float32 [n, D] with class indices, int [n]."""
    return self._compare(vectors, classes)[0]

  def differentiate(self, vectors: np.ndarray, classes: np.ndarray) -> tuple[Comparison, list[np.ndarray]]:
    """Also returns the gradients of the mean cross-entropy by `kernel` and `bias`."""
    compared, errors = self._compare(vectors, classes)
    errors[np.arange(len(classes)), classes] -= 1
    errors /= len(classes)
    return compared, [vectors.T @ errors, errors.sum(axis=0)]

  def _compare(self, vectors: np.ndarray, classes: np.ndarray) -> tuple[Comparison, np.ndarray]:
    """Returns the comparison and the softmax, float32 [n, C]."""
    logits = vectors @ self.kernel
    logits += self.bias
    correct = int(np.count_nonzero(logits.argmax(axis=1) == classes))
    logits -= logits.max(axis=1, keepdims=True)
    of_truth = logits[np.arange(len(classes)), classes]
    powers = np.exp(logits, out=logits)
    sums = powers.sum(axis=1, keepdims=True)
    loss = float((np.log(sums[:, 0]) - of_truth).sum(dtype=np.float64))
    powers /= sums
    return Comparison(loss, correct), powers


def build_head(dimensions: int, classes: int, seed: int) -> LinearHead:
  """Returns the untrained head.

  Args:
    seed: decides the initial weights, drawn as in `retrain.py`: normal with standard deviation 0.001, truncated at
      two of them.
  """
  rng = np.random.default_rng(seed)
  kernel = rng.standard_normal((dimensions, classes))
  while (too_far := np.abs(kernel) > 2).any():
    kernel[too_far] = rng.standard_normal(np.count_nonzero(too_far))
  return LinearHead((kernel * _DEVIATION).astype(np.float32), np.zeros(classes, np.float32))
