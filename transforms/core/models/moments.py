"""Means and variances of bottlenecks, with the bits of tensorflow-transform.

A batch is summed in float32 as TensorFlow's `reduce_sum` does, and batches are merged in float64 by the update formula
of `WeightedMeanAndVarCombiner` (tensorflow_transform/analyzers.py).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

BATCH_SIZE = 1024
"""Of tensorflow-transform's batches here: other ones would give other last bits."""


_PACKET, _LEAST_IN_TURNS = 8, 16


class Moments(NamedTuple):
  """Number, means and variances of some bottlenecks: float64 [D] each."""

  size: int
  mean: np.ndarray
  variance: np.ndarray


def of_batch(vectors: np.ndarray) -> Moments:
  """Returns the moments of a batch, float32 [N, D]."""
  count = np.float32(len(vectors))
  mean = _sum(vectors) / count
  variance = _sum(np.square(vectors - mean)) / count
  return Moments(len(vectors), mean.astype(np.float64), variance.astype(np.float64))


def merge(moments: Iterable[Moments]) -> Moments:
  """Returns the moments of all, whose order decides the last bits."""
  return functools.reduce(_merge, moments)


def _merge(first: Moments, second: Moments) -> Moments:
  if first.size < second.size:
    first, second = second, first
  total = first.size + second.size
  share = second.size / total
  apart = second.mean - first.mean
  mean = first.mean + share * apart
  variance = first.variance + share * (second.variance - first.variance + (second.mean - mean) * apart)
  return Moments(total, mean, variance)


def _sum(rows: np.ndarray) -> np.ndarray:
  """Adds up rows as Eigen's `InnerMostDimPreserver`.

  With AVX: whole packets of columns in four turns, the others row by row.
  """
  total: np.ndarray = rows.sum(axis=0)
  whole, columns = len(rows) // 4 * 4, rows.shape[1] // _PACKET * _PACKET
  if len(rows) < _LEAST_IN_TURNS:
    return total
  first, *others = (rows[turn:whole:4, :columns].sum(axis=0) for turn in range(4))
  total[:columns] = functools.reduce(np.add, [*others, *rows[whole:, :columns]], first)
  return total
