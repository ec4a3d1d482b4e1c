"""What a person sees of a training: one progress line, and TensorBoard's curves."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

import tensorflow as tf

from trainer.training import Round

# What makes TensorBoard draw a curve; tf.summary.scalar would set it too, but needs TensorBoard installed to write.
_SCALAR = tf.compat.v1.SummaryMetadata(
  plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"), data_class=1
)


class ProgressLine:
  """One line that is written over on a terminal; one line per round anywhere else."""

  def __init__(self, stream: TextIO, rounds: int, clock: Callable[[], float] = time.monotonic):
    self._stream = stream
    self._rounds = rounds
    self._clock = clock
    self._start = clock()

  def show(self, finished: Round) -> None:
    line = (
      f"round {finished.number}/{self._rounds} ({finished.steps} steps): training loss {finished.training_loss:.4f},"
      f" accuracy {finished.training_accuracy:.2%}; validation loss {finished.validation_loss:.4f},"
      f" accuracy {finished.validation_accuracy:.2%}; {self._clock() - self._start:.1f} s"
    )
    # \x1b[K clears what a longer line left to the right.
    self._stream.write(f"\r{line}\x1b[K" if self._stream.isatty() else f"{line}\n")
    self._stream.flush()

  def close(self) -> None:
    if self._stream.isatty():
      self._stream.write("\n")


class Summaries:
  """TensorBoard event files, in `train` and `validation` as in `retrain.py`, one point per round."""

  def __init__(self, folder: str):
    self._writers = {name: tf.summary.create_file_writer(f"{folder}/{name}") for name in ("train", "validation")}

  def write(self, step: int, finished: Round) -> None:
    points = {
      "train": {
        "accuracy": finished.training_accuracy,
        "cross_entropy": finished.training_loss,
        "learning_rate": finished.learning_rate,
      },
      "validation": {"accuracy": finished.validation_accuracy, "cross_entropy": finished.validation_loss},
    }
    for name, values in points.items():
      with self._writers[name].as_default():
        for tag, value in values.items():
          tf.summary.write(tag, tf.constant(value, tf.float32), step=step, metadata=_SCALAR)
      # A killed run keeps its curve.
      self._writers[name].flush()

  def close(self) -> None:
    for writer in self._writers.values():
      writer.close()
