"""The head: one softmax layer on the transformed bottleneck."""

from __future__ import annotations

import keras


def build_head(dimensions: int, classes: int, seed: int) -> keras.Model:
  """Builds the untrained head.

  Args:
    dimensions: D.
    classes: C.
    seed: of the initial weights, which are as small as in `retrain.py` (normal, standard deviation 0.001).

  Returns:
    A model float32 [N, D] -> float32 [N, C], logits: the softmax is part of the loss and of the exported model.
  """
  initial = keras.initializers.TruncatedNormal(stddev=0.001, seed=seed)
  return keras.Sequential(
    [
      keras.Input((dimensions,), name="bottleneck"),
      keras.layers.Dense(classes, kernel_initializer=initial, name="logits"),
    ],
    name="head",
  )
