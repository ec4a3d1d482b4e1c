"""TensorBoard's curves of a training, in `train` and `validation` as `retrain.py` left them.

An event file is a TFRecord file of `Event` protos (tensorflow/core/util/event.proto). Written here and not by
tf.summary, which takes twenty times as long for a point; `retrain.py`'s training curve has one for every step.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping

import tensorflow as tf

from beam_retrain.trainer.fit.training import Round, Score

_PREFIX = "events.out.tfevents."
_FOLDERS = ("train", "validation")


class EventFile:
  """One event file of scalars. A point is in the file when `write` returns: a killed run keeps its curve."""

  def __init__(self, folder: str, clock: Callable[[], float] = time.time):
    os.makedirs(folder, exist_ok=True)
    # TensorBoard reads the files of a folder in the order of their names, and notices new ones.
    started = int(clock())
    names = (os.path.join(folder, f"{_PREFIX}{started + later:010d}.beam_retrain") for later in itertools.count())
    self._file = tf.io.TFRecordWriter(next(name for name in names if not os.path.exists(name)))
    self._clock = clock
    self._values: dict[str, tf.compat.v1.Summary.Value] = {}
    self._append(tf.compat.v1.Event(file_version="brain.Event:2"))

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Adds a point of each curve, tag -> value, at `step`."""
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
  # The metadata make TensorBoard draw a curve.
  plugin = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
  metadata = tf.compat.v1.SummaryMetadata(plugin_data=plugin, data_class=1)
  return tf.compat.v1.Summary.Value(tag=tag, tensor=tf.make_tensor_proto(0.0, tf.float32), metadata=metadata)


class Summaries:
  """The curves `accuracy` and `cross_entropy` of both folders.

  A point of `train` is either a round's mean, at the number of steps trained, with the learning rate as a third curve;
  or one step's batch before that step, at the step's number, the first is 0, as in `retrain.py`.
  """

  def __init__(self, folder: str, *, is_every_step: bool, goes_on: bool):
    """
    Args:
      folder: made where it is not there.
      is_every_step: the training curve has a point for every step, not for every round.
      goes_on: the curves go on where a killed run left them; otherwise event files that are in `train` and in
        `validation` are removed, and nothing else is.
    """
    folders = [os.path.join(folder, name) for name in _FOLDERS]
    if not goes_on:
      for one in folders:
        _remove_event_files(one)
    self._train, self._validation = (EventFile(one) for one in folders)
    self._is_every_step = is_every_step

  def on_step(self, step: int, score: Score) -> None:
    if self._is_every_step:
      self._train.write(step, {"accuracy": score.accuracy, "cross_entropy": score.loss})

  def on_round(self, step: int, finished: Round) -> None:
    if not self._is_every_step:
      step += 1
      values = {"accuracy": finished.training_accuracy, "cross_entropy": finished.training_loss}
      self._train.write(step, {**values, "learning_rate": finished.learning_rate})
    values = {"accuracy": finished.validation_accuracy, "cross_entropy": finished.validation_loss}
    self._validation.write(step, values)

  def close(self) -> None:
    self._train.close()
    self._validation.close()


def _remove_event_files(folder: str) -> None:
  if os.path.isdir(folder):
    with os.scandir(folder) as entries:
      for path in [one.path for one in entries if one.name.startswith(_PREFIX) and one.is_file(follow_symlinks=False)]:
        os.unlink(path)
