"""`retrain.py`'s output during a training: lines, graphs, checkpoints."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from typing import TextIO

import tensorflow as tf

from beam_retrain.trainer.compat.retrain_options import RetrainOptions
from beam_retrain.trainer.export.exporter import Exporter
from beam_retrain.trainer.fit.callbacks import TrainingCallback
from beam_retrain.trainer.fit.head import LinearHead
from beam_retrain.trainer.fit.results import EvalResult, Score
from beam_retrain.transforms.core.models.head import Head
from beam_retrain.transforms.core.system import local_files

WEIGHTS_NAME = "final_retrain_ops/weights/final_weights"
BIASES_NAME = "final_retrain_ops/biases/final_biases"


class EvalLines(TrainingCallback):
  """Prints the three lines of `retrain.py` for each evaluation.

  Attributes:
    validation_images: the number of images of each evaluation.
  """

  def __init__(
    self, stream: TextIO, validation_images: int, now: Callable[[], datetime.datetime] = datetime.datetime.now
  ):
    self._stream = stream
    self._images = validation_images
    self._now = now

  def on_eval(self, step: int, result: EvalResult) -> None:
    for words in (
      f"Train accuracy = {result.training_accuracy:.1%}",
      f"Cross entropy = {result.training_loss:f}",
      f"Validation accuracy = {result.validation_accuracy:.1%} (N={self._images})",
    ):
      self._stream.write(f"{self._now()}: Step {step}: {words}\n")
    self._stream.flush()


class Snapshots(TrainingCallback):
  """Writes `intermediate_<step>.pb` at intervals, and a TensorFlow checkpoint."""

  def __init__(self, options: RetrainOptions, exporter: Exporter, stream: TextIO):
    self._options = options
    self._exporter = exporter
    self._stream = stream

  def on_step(self, step: int, score: Score, head: LinearHead) -> None:
    """Writes both after every n-th step, as `retrain.py` not after step 0."""
    every = self._options.intermediate_store_frequency
    if every and step and step % every == 0:
      self.finish(head)
      folder = str(self._options.intermediate_output_graphs_dir)
      os.makedirs(folder, exist_ok=True)
      path = os.path.join(folder, f"intermediate_{step}.pb")
      if not self._options.is_quiet:
        self._stream.write(f"Save intermediate result to : {path}\n")
      local_files.write_bytes(path, self._exporter.freeze(head.get_weights()))

  def finish(self, head: LinearHead) -> None:
    """Writes the checkpoint, if requested, replacing an earlier one."""
    if self._options.checkpoint_path is not None:
      path = os.path.abspath(self._options.checkpoint_path)
      os.makedirs(os.path.dirname(path), exist_ok=True)
      save_checkpoint(path, self._exporter.flatten(head))


def save_checkpoint(prefix: str, head: Head) -> None:
  """Writes a TensorFlow checkpoint, for tf.train.load_checkpoint(prefix).

  Its files are `prefix`.index and `prefix`.data-00000-of-00001. The variables have `retrain.py`'s names and meaning, a
  softmax layer on bottlenecks as the trunk computes them: logits = bottleneck @ final_weights + final_biases,
  float32 [D, C] and float32 [C].
  """
  weights, biases = head.fold()
  tf.raw_ops.SaveV2(
    prefix=prefix,
    tensor_names=[WEIGHTS_NAME, BIASES_NAME],
    shape_and_slices=["", ""],
    tensors=[tf.constant(weights, tf.float32), tf.constant(biases, tf.float32)],
  )
