"""JPGs to the network's input for the contenders that bring no decoder of their own: OpenCV, which is what their users
take. Bilinear between pixel centres, without antialiasing, as everywhere here."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from benchmarks.peers.protocol import INPUT_PX

cv2.setNumThreads(1)


def read_batch(paths: Sequence[str], rows: int) -> np.ndarray:
  """Returns float32 [rows, 299, 299, 3], 0..1; what is missing to `rows` is zero."""
  return decode_batch([open(path, "rb").read() for path in paths], rows)


def decode_batch(encoded: Sequence[bytes], rows: int) -> np.ndarray:
  """Likewise, of the files' bytes. Grey images are resized as one channel, and then stored three times."""
  batch = np.zeros((rows, INPUT_PX, INPUT_PX, 3), np.float32)
  for row, data in zip(batch, encoded, strict=False):
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels.ndim == 3:
      pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    # As float before the resize: OpenCV would round to whole grey levels.
    scaled = cv2.resize(pixels.astype(np.float32) / 255, (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_LINEAR)
    row[:] = scaled if scaled.ndim == 3 else scaled[..., None]
  return batch
