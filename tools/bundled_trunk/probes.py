"""How good a trunk is: on fonts that it has not met, and on scikit-learn's digits, real handwriting at 8 x 8.

These two choose between versions. MNIST does not: `beam-retrain run --data mnist --trunk bundled` measures it once,
when nothing can be changed any more.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn import datasets, linear_model, model_selection, preprocessing

from tools.bundled_trunk import glyphs, warps

_BATCH = 256


def vectors(trunk: keras.Model, images: np.ndarray) -> np.ndarray:
  """float32 [N, 28, 28] in 0..1 -> the trunk's float32 [N, D], in batches of one shape."""
  call = tf.function(lambda batch: trunk(warps.trunk_input(batch, trunk.input_shape[1]), training=False))
  padded = np.concatenate([images, np.zeros((-len(images) % _BATCH, *images.shape[1:]), np.float32)])
  parts = [call(tf.constant(padded[start : start + _BATCH])).numpy() for start in range(0, len(padded), _BATCH)]
  return np.concatenate(parts)[: len(images)]


def scikit_digits() -> tuple[np.ndarray, np.ndarray]:
  """1,797 digits, enlarged to 20 of 28 pixels: (float32 [N, 28, 28] in 0..1, int labels [N])."""
  digits = datasets.load_digits()
  small = digits.images.astype(np.float32) / 16
  large = [np.asarray(Image.fromarray(each).resize((20, 20), Image.Resampling.BICUBIC)) for each in small]
  return np.clip(np.pad(np.stack(large), ((0, 0), (4, 4), (4, 4))), 0, 1), digits.target


def few_shot_accuracy(features: np.ndarray, labels: np.ndarray) -> float:
  """A linear head fitted to one fifth and tried on the other four, five times: mean accuracy, 0..1."""
  folds = model_selection.StratifiedKFold(5, shuffle=True, random_state=0)
  scores = []
  for most, few in folds.split(features, labels):
    scaler = preprocessing.StandardScaler().fit(features[few])
    head = linear_model.LogisticRegression(C=0.05, max_iter=300).fit(scaler.transform(features[few]), labels[few])
    scores.append(head.score(scaler.transform(features[most]), labels[most]))
  return float(np.mean(scores))


def group_accuracy(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
  """Accuracy (digits, letters), each told from its own kind only, 0..1; NaN for a kind that is absent."""
  is_digit = labels < glyphs.DIGITS
  right = np.where(
    is_digit,
    logits[:, : glyphs.DIGITS].argmax(1) == labels,
    logits[:, glyphs.DIGITS :].argmax(1) + glyphs.DIGITS == labels,
  )
  digits, letters = (float(right[kind].mean()) if kind.any() else float("nan") for kind in (is_digit, ~is_digit))
  return digits, letters
