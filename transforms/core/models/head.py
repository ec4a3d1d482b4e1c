"""The exported model's head in numpy, to score stored bottlenecks.

The trainer writes it beside the SavedModel; a test compares the two. Scoring a hundred thousand images takes less time
than loading TensorFlow.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np

from beam_retrain.transforms.core.system.small_files import read_small

HEAD_FILE = "head.npz"


class Head(NamedTuple):
  """scores = softmax((bottleneck * scale + offset) @ kernel + bias).

  float32: scale and offset [D], the z-score learned by tensorflow-transform; kernel [D, C]; bias [C].
  """

  scale: np.ndarray
  offset: np.ndarray
  kernel: np.ndarray
  bias: np.ndarray

  def score(self, bottlenecks: np.ndarray) -> np.ndarray:
    """Returns the scores, float32 [N, C], 0..1, of float32 [N, D].

    Summed in float64, so that an image's scores do not depend on the rest of the batch.
    """
    logits = (bottlenecks.astype(np.float64) * self.scale + self.offset) @ self.kernel.astype(np.float64) + self.bias
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)

  def fold(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns float64 kernel [D, C] and bias [C] for raw bottlenecks.

    (b * scale + offset) @ kernel + bias = b @ (scale * kernel) + (offset @ kernel + bias)
    """
    kernel = self.kernel.astype(np.float64)
    return self.scale.astype(np.float64)[:, np.newaxis] * kernel, self.offset.astype(np.float64) @ kernel + self.bias


def encode_head(head: Head) -> bytes:
  """Returns the contents of `head.npz`: four arrays, no pickle."""
  file = io.BytesIO()
  np.savez(file, **head._asdict())
  return file.getvalue()


def decode_head(data: bytes, path: str) -> Head:
  """Inverse of `encode_head`."""
  return read_small(path, _decode, "run `beam-retrain train` again", lambda path: data)


def _decode(data: bytes) -> Head:
  with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
    head = Head(*(np.asarray(arrays[name], np.float32) for name in Head._fields))
  (dimensions, classes) = head.kernel.shape
  if (head.scale.shape, head.offset.shape, head.bias.shape) != ((dimensions,), (dimensions,), (classes,)):
    raise ValueError("its arrays do not fit together")
  if not all(np.isfinite(array).all() for array in head):
    raise ValueError("its numbers are not finite")
  return head
