"""SGD and Adam on numpy arrays, in place, equal to Keras'."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence

import numpy as np


class Optimizer(abc.ABC):
  """Updates weights from their gradients."""

  def __init__(self) -> None:
    self.variables: list[np.ndarray] = []
    """The optimizer's state: what a step needs besides the weights."""

  @abc.abstractmethod
  def apply(self, gradients: Sequence[np.ndarray], weights: Sequence[np.ndarray], rate: float) -> None:
    """Updates `weights` in place by one step; may overwrite `gradients`."""

  def restore(self, variables: Sequence[np.ndarray]) -> None:
    """Restores `variables`; raises ValueError, and changes nothing, if the shapes differ."""
    if [own.shape for own in self.variables] != [value.shape for value in variables]:
      raise ValueError("variables of another optimizer")
    for own, value in zip(self.variables, variables, strict=True):
      own[...] = value


class Sgd(Optimizer):
  """Plain gradient descent, without momentum."""

  def apply(self, gradients: Sequence[np.ndarray], weights: Sequence[np.ndarray], rate: float) -> None:
    for gradient, weight in zip(gradients, weights, strict=True):
      gradient *= np.float32(rate)
      weight -= gradient


class Adam(Optimizer):
  """Adam, with the bias correction in the learning rate, as in Keras.

  Kingma and Ba, Adam: A Method for Stochastic Optimization, 2015, algorithm 1 and the end of section 2.
  """

  _BETA_1 = 0.9
  _BETA_2 = 0.999
  _EPSILON = 1e-7

  def __init__(self, weights: Sequence[np.ndarray]):
    super().__init__()
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
