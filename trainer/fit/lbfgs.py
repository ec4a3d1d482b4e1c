"""Limited-memory BFGS with a preconditioner, one evaluation at a time.

J. Nocedal and S. J. Wright, Numerical Optimization, 2006: algorithms 7.4, of which the preconditioner, scaled as in
7.20, is the initial inverse Hessian, and 3.1. scipy's takes no preconditioner, and cannot be stopped and go on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from beam_retrain.transforms.core.system.prefetch import batched

_PAIRS = 10
_DECREASE = 1e-4  # of the loss, of what the slope promises
_ROUNDING = 1e-7  # of a loss that is added up from float32
_SHORTER = 0.3


class Lbfgs:
  """Moves weights in place towards the minimum of a convex function."""

  def __init__(self, weights: np.ndarray):
    self.weights = weights  # float32, where the function is to be evaluated next
    self.length = 0.0  # of the step from the last accepted point to `weights`; 1: a whole one
    self.promised = np.inf  # the decrease of the loss that a whole step promises
    self._loss = np.inf
    self._point = weights.copy()
    self._gradient = np.zeros_like(weights)
    self._direction = np.zeros_like(weights)
    self._pairs: list[tuple[np.ndarray, np.ndarray]] = []

  def advance(self, loss: float, gradient: np.ndarray, precondition: Callable[[np.ndarray], np.ndarray]) -> None:
    """Moves `weights`, where the function has this loss and gradient.

    `precondition` multiplies by a symmetric approximation of the inverse Hessian.
    """
    bound = self._loss - 2 * _DECREASE * self.length * self.promised + _ROUNDING * abs(loss)
    if self.length and not loss <= bound:
      self.length *= _SHORTER
    else:
      if self.length:
        self._remember(self.weights - self._point, gradient - self._gradient)
      self._point[...], self._gradient[...], self._loss, self.length = self.weights, gradient, loss, 1.0
      self._direction = -self._multiply(gradient, precondition)
      self.promised = -float(np.vdot(self._direction, gradient)) / 2
    np.add(self._point, np.float32(self.length) * self._direction, out=self.weights)

  @property
  def variables(self) -> list[np.ndarray]:
    """Returns what the next step needs; nothing before the first."""
    if not self.length:
      return []
    state = np.array([self.length, self.promised, self._loss])
    return [state, self._point, self._gradient, self._direction, *itertools.chain.from_iterable(self._pairs)]

  def restore(self, variables: Sequence[np.ndarray]) -> None:
    """Inverse of `variables`; the first is enough once it is over."""
    if variables:
      self.length, self.promised, self._loss = variables[0].tolist()
    if len(variables) > 1:
      _, self._point, self._gradient, self._direction, *pairs = variables
      self._pairs = [(step, change) for step, change in batched(pairs, 2)]

  def _remember(self, step: np.ndarray, change: np.ndarray) -> None:
    """Keeps a pair unless rounding made its curvature negative."""
    if np.vdot(step, change) > 1e-10 * np.vdot(step, step):
      self._pairs = [*self._pairs[1 - _PAIRS :], (step, change)]

  def _multiply(self, gradient: np.ndarray, precondition: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Multiplies by the approximated inverse Hessian."""
    result, factors = gradient.copy(), []
    for step, change in reversed(self._pairs):
      factors.append(np.vdot(step, result) / np.vdot(step, change))
      result -= factors[-1] * change
    result = precondition(result)
    if self._pairs:
      step, change = self._pairs[-1]
      result *= np.vdot(step, change) / np.vdot(change, precondition(change))
    for (step, change), factor in zip(self._pairs, reversed(factors), strict=True):
      result += (factor - np.vdot(change, result) / np.vdot(step, change)) * step
    return result
