"""`retrain.py`'s output during a training: lines, graphs, checkpoints."""

from __future__ import annotations

import datetime
import os
from typing import TextIO

import tensorflow as tf

from beam_retrain.trainer.compat.retrain_options import RetrainOptions
from beam_retrain.trainer.export.exporter import Exporter
from beam_retrain.trainer.fit.callbacks import EvalResult, TrainingCallback
from beam_retrain.trainer.fit.head import LinearHead, Score
from beam_retrain.transforms.core.printing import print
from beam_retrain.transforms.core.system import local_files

WEIGHTS_NAME = "final_retrain_ops/weights/final_weights"
BIASES_NAME = "final_retrain_ops/biases/final_biases"


class EvalLines(TrainingCallback):
  """Prints the three lines of `retrain.py` for each evaluation."""

  def __init__(self, stream: TextIO, validation_images: int):
    self._stream = stream
    self._images = validation_images

  def on_eval(self, step: int, result: EvalResult) -> None:
    for words in (
      f"Train accuracy = {result.training_accuracy:.1%}",
      f"Cross entropy = {result.training_loss:f}",
      f"Validation accuracy = {result.validation_accuracy:.1%} (N={self._images})",
    ):
      self._stream.write(f"{datetime.datetime.now()}: Step {step}: {words}\n")
    self._stream.flush()


class Snapshots(TrainingCallback):
  """Writes `intermediate_<step>.pb` at intervals, and a TensorFlow checkpoint.

  The checkpoint is for `tf.train.load_checkpoint`. Its variables have `retrain.py`'s names and meaning, a softmax layer
  on bottlenecks as the trunk computes them: logits = bottleneck @ final_weights + final_biases, float32 [D, C] and [C].
  """

  def __init__(self, options: RetrainOptions, exporter: Exporter, stream: TextIO):
    self._options = options
    self._exporter = exporter
    self._stream = stream

  def on_step(self, step: int, score: Score, head: LinearHead) -> None:
    """Writes both after every n-th step, except step 0."""
    every = self._options.intermediate_store_frequency
    if every and step and step % every == 0:
      self.finish(head)
      folder = str(self._options.intermediate_output_graphs_dir)
      os.makedirs(folder, exist_ok=True)
      path = os.path.join(folder, f"intermediate_{step}.pb")
      if not self._options.is_quiet:
        print(f"Save intermediate result to : {path}", file=self._stream)
      local_files.write_bytes(path, self._exporter.freeze(head.get_weights()))

  def finish(self, head: LinearHead) -> None:
    """Writes the checkpoint, if requested, replacing an earlier one."""
    if self._options.checkpoint_path is None:
      return
    path = os.path.abspath(self._options.checkpoint_path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    tf.raw_ops.SaveV2(
      prefix=os.fsencode(path),
      tensor_names=[WEIGHTS_NAME, BIASES_NAME],
      shape_and_slices=["", ""],
      tensors=[tf.constant(array, tf.float32) for array in self._exporter.flatten(head).fold()],
    )
