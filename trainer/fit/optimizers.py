"""Gradient descent, plain and Adam's, on numpy arrays in place; the numbers are those of Keras' optimizers."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence

import numpy as np


class Optimizer(abc.ABC):
  """Moves weights against a gradient."""

  def __init__(self) -> None:
    self.variables: list[np.ndarray] = []
    """What the next step starts from, beside the weights."""

  @abc.abstractmethod
  def apply(self, gradients: Sequence[np.ndarray], weights: Sequence[np.ndarray], rate: float) -> None:
    """Moves `weights` one step, in place; `gradients` may be written over."""

  def restore(self, variables: Sequence[np.ndarray]) -> None:
    """Goes back to what `variables` were; raises ValueError, and changes nothing, where the shapes differ."""
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
  """Kingma and Ba, Adam: A Method for Stochastic Optimization, 2015, algorithm 1, with the bias correction in the rate
  (the end of their section 2), as Keras has it."""

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
