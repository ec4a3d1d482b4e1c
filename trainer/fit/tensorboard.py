"""Writes TensorBoard curves into `train` and `validation`, as `retrain.py` did.

An event file is a TFRecord file of `Event` protos (tensorflow/core/util/event.proto). tf.summary takes twenty times as
long per point, and `retrain.py`'s training curve has a point for every step.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping

import tensorflow as tf

from beam_retrain.trainer.fit.callbacks import EvalResult, TrainingCallback
from beam_retrain.trainer.fit.head import LinearHead, Score

_PREFIX = "events.out.tfevents."


class EventFile:
  """An event file of scalars; each point is flushed at once."""

  def __init__(self, folder: str, clock: Callable[[], float] = time.time):
    os.makedirs(folder, exist_ok=True)
    # TensorBoard reads a folder's files in the order of their names.
    started = int(clock())
    names = (os.path.join(folder, f"{_PREFIX}{started + later:010d}.beam_retrain") for later in itertools.count())
    # As bytes: TensorFlow encodes texts as UTF-8 alone.
    self._file = tf.io.TFRecordWriter(os.fsencode(next(name for name in names if not os.path.exists(name))))
    self._clock = clock
    self._values: dict[str, tf.compat.v1.Summary.Value] = {}
    self._append(tf.compat.v1.Event(file_version="brain.Event:2"))

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Adds a point at `step` to each curve, tag -> value."""
    event = tf.compat.v1.Event(step=step)
    for tag, value in values.items():
      scalar = self._values.setdefault(tag, _scalar(tag))
      scalar.tensor.float_val[0] = value
      event.summary.value.append(scalar)
    self._append(event)

  def _append(self, event: tf.compat.v1.Event) -> None:
    event.wall_time = self._clock()
    self._file.write(event.SerializeToString())
    self._file.flush()

  def close(self) -> None:
    self._file.close()


def _scalar(tag: str) -> tf.compat.v1.Summary.Value:
  # With this metadata TensorBoard draws a curve.
  plugin = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
  metadata = tf.compat.v1.SummaryMetadata(plugin_data=plugin, data_class=1)
  return tf.compat.v1.Summary.Value(tag=tag, tensor=tf.make_tensor_proto(0.0, tf.float32), metadata=metadata)


class Summaries(TrainingCallback):
  """Writes the curves `accuracy` and `cross_entropy` of training and validation.

  A point of `train` is a round's mean, at the number of steps trained, with the learning rate as a third curve. With
  `is_every_step` it is, as in `retrain.py`, one step's batch before that step, at the step's number, from 0.
  """

  def __init__(self, folder: str, *, is_every_step: bool, resumes: bool):
    """Opens new event files; removes earlier ones, unless it `resumes` their run."""
    folders = [os.path.join(folder, name) for name in ("train", "validation")]
    if not resumes:
      for path in itertools.chain.from_iterable(map(_event_files, folders)):
        os.unlink(path)
    self._train, self._validation = (EventFile(one) for one in folders)
    self._is_every_step = is_every_step

  def on_step(self, step: int, score: Score, head: LinearHead) -> None:
    if self._is_every_step:
      self._train.write(step, {"accuracy": score.accuracy, "cross_entropy": score.loss})

  def on_eval(self, step: int, result: EvalResult) -> None:
    if not self._is_every_step:
      step += 1
      values = {"accuracy": result.training_accuracy, "cross_entropy": result.training_loss}
      self._train.write(step, {**values, "learning_rate": result.learning_rate})
    values = {"accuracy": result.validation_accuracy, "cross_entropy": result.validation_loss}
    self._validation.write(step, values)

  def finish(self, head: LinearHead) -> None:
    self._train.close()
    self._validation.close()


def _event_files(folder: str) -> list[str]:
  if not os.path.isdir(folder):
    return []
  with os.scandir(folder) as entries:
    return [one.path for one in entries if one.name.startswith(_PREFIX) and one.is_file(follow_symlinks=False)]
