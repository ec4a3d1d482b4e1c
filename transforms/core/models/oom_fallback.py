"""Halves the batch size after an out-of-memory error."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from beam_retrain.transforms.core.models.inference import LoadedModel, Outputs
from beam_retrain.transforms.core.system.memory import is_out_of_memory


def load_with_oom_fallback(load: Callable[[int], LoadedModel], batch_size: int) -> LoadedModel:
  """Loads a model that halves its batches when memory runs out.

  `load` is called again for each smaller size, down to one image; larger batches are then split. Results change by the
  last bits of float32 at most.
  """
  halving = _Halving(load, batch_size)
  return dataclasses.replace(halving.model, infer=halving.infer, largest_batch=lambda: halving.batch_size)


class _Halving:
  def __init__(self, load: Callable[[int], LoadedModel], batch_size: int):
    self._load = load
    self._lock = threading.Lock()
    self.batch_size = batch_size
    self.model = load(batch_size)

  def infer(self, pixels: Any) -> Outputs:
    while True:
      with self._lock:
        model, size = self.model, self.batch_size
      try:
        return _in_parts(model, pixels, size)
      except Exception as error:
        if size == 1 or not is_out_of_memory(error):
          raise
        self._halve(size)

  def _halve(self, size: int) -> None:
    with self._lock:
      if self.batch_size == size:  # else another thread has halved it
        self.batch_size = size // 2
        self.model = self._load(self.batch_size)


def _in_parts(model: LoadedModel, pixels: Any, size: int) -> Outputs:
  count = int(pixels.shape[0])
  if count <= size:
    return model.infer(pixels)
  parts = [model.infer(pixels[start : start + size]) for start in range(0, count, size)]
  return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
