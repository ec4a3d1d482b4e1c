"""How near two kinds of one trunk are: the cosine of what they give for the same images. Plain numpy."""

from __future__ import annotations

import numpy as np


def cosines(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
  """Returns float64 [N], -1..1: 1 where two bottlenecks point the same way, and where both are nothing but zeros; -1
  where one holds values that are not finite.

  Args:
    vectors: float [N, D].
    others: float [N, D].
  """
  ours, theirs = vectors.astype(np.float64), others.astype(np.float64)
  with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    found = np.einsum("nd,nd->n", ours, theirs) / lengths
  both_zero = ~ours.any(axis=1) & ~theirs.any(axis=1)
  found = np.where(lengths == 0, np.where(both_zero, 1.0, 0.0), found)
  return np.where(np.isfinite(found), np.clip(found, -1, 1), -1.0)
