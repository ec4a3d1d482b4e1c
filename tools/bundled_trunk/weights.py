"""Writes the weights of the bundled trunk."""

from __future__ import annotations

import pathlib

import keras
import numpy as np


def save_weights(model: keras.Model, path: pathlib.Path) -> None:
  """Writes every variable as float16 under its path, for `inception.load_weights`."""
  arrays: dict[str, np.ndarray] = {}
  for variable in model.variables:
    array = np.asarray(keras.ops.convert_to_numpy(variable), np.float32).astype(np.float16)
    if not np.isfinite(array).all():
      raise ValueError(f"{variable.path} has values that float16 cannot hold: the weights are not saved.")
    arrays[variable.path] = array
  with open(path, "wb") as file:
    np.savez_compressed(file, **arrays)
