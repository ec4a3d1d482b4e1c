"""The head: one softmax layer on the transformed bottleneck, and its gradient. numpy: no TensorFlow.

A step of this layer is two products of a batch with a narrow matrix. They take as long as memory takes to bring the
batch, so that whatever is done around them for each step counts, and numpy does the least.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_DEVIATION = 0.001  # of the initial weights, as in `retrain.py`


class Comparison(NamedTuple):
  """How a batch was predicted.

  Attributes:
    loss: summed cross-entropy, nats.
    correct: how many were right.
  """

  loss: float
  correct: int


class LinearHead:
  """float32 [N, D] -> float32 [N, C], logits: the softmax is part of the loss and of the exported model.

  Attributes:
    kernel: float32 [D, C].
    bias: float32 [C].
  """

  def __init__(self, kernel: np.ndarray, bias: np.ndarray):
    self.kernel = kernel
    self.bias = bias

  def get_weights(self) -> list[np.ndarray]:
    """Returns copies of `kernel` and `bias`."""
    return [self.kernel.copy(), self.bias.copy()]

  def set_weights(self, weights: Sequence[np.ndarray]) -> None:
    """Copies into `kernel` and `bias`; raises ValueError where the shapes differ."""
    kernel, bias = weights
    if (kernel.shape, bias.shape) != (self.kernel.shape, self.bias.shape):
      raise ValueError("weights of another head")
    self.kernel[:], self.bias[:] = kernel, bias

  @np.errstate(over="ignore", invalid="ignore", divide="ignore")  # the caller looks whether the loss is finite
  def compare(self, vectors: np.ndarray, classes: np.ndarray) -> Comparison:
    """Predicts float32 [n, D] and compares with int [n], class indices."""
    return self._compare(vectors, classes)[0]

  def differentiate(self, vectors: np.ndarray, classes: np.ndarray) -> tuple[Comparison, list[np.ndarray]]:
    """As `compare`; also returns the gradient of the mean cross-entropy by `kernel` and by `bias`."""
    compared, errors = self._compare(vectors, classes)
    errors[np.arange(len(classes)), classes] -= 1
    errors /= len(classes)
    return compared, [vectors.T @ errors, errors.sum(axis=0)]

  def _compare(self, vectors: np.ndarray, classes: np.ndarray) -> tuple[Comparison, np.ndarray]:
    """Returns the comparison, and float32 [n, C]: the softmax."""
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
    dimensions: D.
    classes: C.
    seed: of the initial weights, which are drawn as in `retrain.py`: normal, standard deviation 0.001, none farther
      out than two of them.
  """
  rng = np.random.default_rng(seed)
  kernel = rng.standard_normal((dimensions, classes))
  while (too_far := np.abs(kernel) > 2).any():
    kernel[too_far] = rng.standard_normal(np.count_nonzero(too_far))
  return LinearHead((kernel * _DEVIATION).astype(np.float32), np.zeros(classes, np.float32))
