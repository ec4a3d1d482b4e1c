"""Scores images with a TensorFlow Lite file.

The interpreter is TensorFlow's own. It warns that a later TensorFlow will drop it: `setup.py` pins a version that has
it, and `ai-edge-litert` has the same class under the same name.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from beam_retrain.transforms.core.errors import InputError, first_line
from beam_retrain.transforms.core.system.plain_path import plain_path
from beam_retrain.transforms.core.system.stderr import native_stderr_captured


@contextlib.contextmanager
def quiet_interpreter() -> Iterator[None]:
  """Hides TensorFlow's messages about each new interpreter, except on failure."""
  with warnings.catch_warnings(), native_stderr_captured():
    warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter is deprecated", category=UserWarning)
    yield


class LiteModel:
  """A loaded TensorFlow Lite model."""

  def __init__(self, path: str):
    self.path = path
    if not os.path.isfile(path):
      raise InputError(f"{path} does not exist: give a file written by `beam-retrain train --tflite_output_file`.")
    try:
      with quiet_interpreter(), plain_path(path) as plain:
        # The default is one thread.
        self._interpreter = tf.lite.Interpreter(model_path=plain, num_threads=os.cpu_count())
        self._interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
      first = first_line(error)
      raise InputError(
        f"{path} cannot be loaded as a TensorFlow Lite file ({first}): write it again with"
        " `beam-retrain train --tflite_output_file`."
      ) from error
    inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
    shape = inputs[0]["shape_signature"].tolist()
    is_ours = len(inputs) == len(outputs) == 1 and len(shape) == 4 and shape[0] == -1 and shape[3] == 3
    if not is_ours or {inputs[0]["dtype"], outputs[0]["dtype"]} != {np.float32}:
      raise InputError(
        f"{path} does not map float images to float scores: give a file written by"
        " `beam-retrain train --tflite_output_file`."
      )
    self.input_px = int(shape[1])
    # With weights in int8, scores are only close to the float model's.
    self.is_quantized = any(detail["dtype"] == np.int8 for detail in self._interpreter.get_tensor_details())
    self._input, self._output = inputs[0]["index"], outputs[0]["index"]
    self._count = int(inputs[0]["shape"][0])

  def score(self, images: np.ndarray) -> np.ndarray:
    """Returns scores, float32 [N, C], of float32 [N, S, S, 3]."""
    if len(images) != self._count:
      self._interpreter.resize_tensor_input(self._input, images.shape)
      self._interpreter.allocate_tensors()
      self._count = len(images)
    self._interpreter.set_tensor(self._input, images)
    self._interpreter.invoke()
    scores: np.ndarray = self._interpreter.get_tensor(self._output)
    return scores
