"""What goes on beside the steps of a training: progress, curves, and, as in `retrain.py`, three lines at each look,
graphs of the training so far, and TensorFlow checkpoints.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from typing import TextIO

import numpy as np
import tensorflow as tf

from beam_retrain.trainer.compat.progress import ProgressLine
from beam_retrain.trainer.compat.retrain_options import RetrainRequest
from beam_retrain.trainer.export.frozen_graph import Weights
from beam_retrain.trainer.fit.head import LinearHead
from beam_retrain.trainer.fit.schedule import Plan
from beam_retrain.trainer.fit.tensorboard import Summaries
from beam_retrain.trainer.fit.training import Round, Score
from beam_retrain.transforms.core.models.head import Head
from beam_retrain.transforms.core.system import local_files

WEIGHTS_NAME = "final_retrain_ops/weights/final_weights"
BIASES_NAME = "final_retrain_ops/biases/final_biases"


class LookLines:
  """Says of each look what `retrain.py` said, in its words."""

  def __init__(
    self,
    stream: TextIO,
    validation_images: int,
    now: Callable[[], datetime.datetime] = datetime.datetime.now,
  ):
    """
    Args:
      stream: where it is said.
      validation_images: how many of them each look is taken on.
      now: the clock.
    """
    self._stream = stream
    self._images = validation_images
    self._now = now

  def show(self, step: int, finished: Round) -> None:
    for words in (
      f"Train accuracy = {finished.training_accuracy:.1%}",
      f"Cross entropy = {finished.training_loss:f}",
      f"Validation accuracy = {finished.validation_accuracy:.1%} (N={self._images})",
    ):
      self._stream.write(f"{self._now()}: Step {step}: {words}\n")
    self._stream.flush()


class Snapshots:
  """The training so far, for others: `intermediate_<step>.pb` every so many steps, and a TensorFlow checkpoint."""

  def __init__(
    self,
    asked: RetrainRequest,
    *,
    freeze: Callable[[Weights], bytes],
    flatten: Callable[[LinearHead], Head],
    stream: TextIO,
  ):
    """
    Args:
      asked: which, where, and how often.
      freeze: a head's weights -> the frozen graph's file.
      flatten: head -> the same as arrays, with what the transform graph does.
      stream: each graph is told there.
    """
    self._asked = asked
    self._freeze = freeze
    self._flatten = flatten
    self._stream = stream

  def on_step(self, step: int, head: LinearHead) -> None:
    """As in `retrain.py`, the first step, 0, leaves none."""
    every = self._asked.intermediate_every
    if every and step and step % every == 0:
      self.save_checkpoint(head)
      os.makedirs(self._asked.intermediate_dir, exist_ok=True)
      path = os.path.join(self._asked.intermediate_dir, f"intermediate_{step}.pb")
      if not self._asked.is_quiet:
        self._stream.write(f"Save intermediate result to : {path}\n")
      local_files.write_bytes(path, self._freeze(head.get_weights()))

  def save_checkpoint(self, head: LinearHead) -> None:
    """Writes the checkpoint, if one is asked for; an earlier one stays whole until the new one is."""
    if self._asked.checkpoint_path is not None:
      path = os.path.abspath(self._asked.checkpoint_path)
      os.makedirs(os.path.dirname(path), exist_ok=True)
      save_checkpoint(path, self._flatten(head))


class BesideTraining:
  """Listens to `beam_retrain.trainer.fit.training.train`, and does all that was asked for."""

  def __init__(
    self,
    asked: RetrainRequest,
    plan: Plan,
    *,
    logs: str,
    goes_on: bool,
    validation_images: int,
    freeze: Callable[[Weights], bytes],
    flatten: Callable[[LinearHead], Head],
    stream: TextIO,
  ):
    """
    Args:
      asked: what is wanted as in `retrain.py`.
      plan: of the training.
      logs: folder for the curves, if no other is asked for.
      goes_on: a killed run goes on: its curves are kept.
      validation_images: all that there are.
      freeze: a head's weights -> the frozen graph's file.
      flatten: head -> the same as arrays, with what the transform graph does.
      stream: what is said goes there.
    """
    self._line = self._looks = None
    if not asked.is_quiet:
      if asked.eval_step_interval:
        self._looks = LookLines(stream, asked.validation_images or validation_images)
      else:
        self._line = ProgressLine(stream, plan.rounds)
    self._summaries = Summaries(
      asked.summaries_dir or logs, is_every_step=bool(asked.eval_step_interval), goes_on=goes_on
    )
    self._snapshots = Snapshots(asked, freeze=freeze, flatten=flatten, stream=stream)

  def on_step(self, step: int, score: Score, head: LinearHead) -> None:
    self._summaries.on_step(step, score)
    self._snapshots.on_step(step, head)

  def on_round(self, step: int, finished: Round) -> None:
    for shown in (self._line, self._looks):
      if shown:
        shown.show(step, finished)
    self._summaries.on_round(step, finished)

  def finish(self, head: LinearHead) -> None:
    if self._line:
      self._line.close()
    self._summaries.close()
    self._snapshots.save_checkpoint(head)


def save_checkpoint(prefix: str, head: Head) -> None:
  """Writes `prefix`.index and `prefix`.data-00000-of-00001, for tf.train.load_checkpoint(prefix).

  The variables are called as `retrain.py` called them and mean what they meant there: a softmax layer on bottlenecks
  as the trunk gives them, logits = bottleneck @ final_weights + final_biases, float32 [D, C] and float32 [C].
  """
  # (b * scale + offset) @ kernel + bias = b @ (scale * kernel) + (offset @ kernel + bias)
  kernel = head.kernel.astype(np.float64)
  weights = head.scale.astype(np.float64)[:, np.newaxis] * kernel
  biases = head.offset.astype(np.float64) @ kernel + head.bias
  tf.raw_ops.SaveV2(
    prefix=prefix,
    tensor_names=[WEIGHTS_NAME, BIASES_NAME],
    shape_and_slices=["", ""],
    tensors=[tf.constant(weights, tf.float32), tf.constant(biases, tf.float32)],
  )
