"""Extracts the head's four arrays, to score without TensorFlow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from beam_retrain.trainer.fit.head import LinearHead
from beam_retrain.transforms.core.models.head import Head

_FAR = 1024.0  # far from 0, so that the difference of two values keeps all digits of float32


def numpy_head(transform: Callable[[tf.Tensor], tf.Tensor], head: LinearHead, dimensions: int) -> Head:
  """Returns the transform's scale and offset, the head's kernel and bias.

  Args:
    transform: float32 [N, D] -> float32 [N, D]; scales and shifts each number by itself.
    head: float32 [N, D] -> float32 [N, C] logits.

  Raises:
    ValueError: `transform` does something else.
  """
  offset = transform(tf.zeros([1, dimensions])).numpy()[0]
  scale = (transform(tf.fill([1, dimensions], _FAR)).numpy()[0] - offset) / np.float32(_FAR)
  probe = np.linspace(-3, 3, 5 * dimensions, dtype=np.float32).reshape(5, dimensions)
  if not np.allclose(transform(tf.constant(probe)).numpy(), probe * scale + offset, rtol=1e-4, atol=1e-4):
    raise ValueError("the transform graph does more than scale and shift each number")
  kernel, bias = head.get_weights()
  return Head(scale, offset, kernel, bias)
