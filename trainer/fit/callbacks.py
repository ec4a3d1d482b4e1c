"""Results of a training's rounds, and their observers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from beam_retrain.trainer.fit.head import LinearHead, Score
from beam_retrain.trainer.fit.schedule import FullBatch, Schedule
from beam_retrain.transforms.core.printing import Level, is_terminal, level, say
from beam_retrain.transforms.core.run.progress_line import show_bar


@dataclasses.dataclass(frozen=True)
class EvalResult:
  """The result of one round: losses in nats, accuracies 0..1.

  Of gradient descent, training loss and accuracy are means over steps whose weights still moved, unless
  `Schedule.is_measured_on_batch`. Of L-BFGS a round is an epoch, and `learning_rate` the length of the step before it.
  """

  number: int
  steps: int
  learning_rate: float
  training_loss: float
  training_accuracy: float
  validation_loss: float
  validation_accuracy: float


def best_round(rounds: Sequence[EvalResult]) -> EvalResult:
  """Returns the first round with the lowest validation loss."""
  return min(rounds, key=lambda one: one.validation_loss)


class TrainingCallback:
  """Observes a training; does nothing by default. Steps are counted from 0."""

  def on_step(self, step: int, score: Score, head: LinearHead) -> None:
    """Called after a step, with its batch's score before the update."""

  def on_eval(self, step: int, result: EvalResult) -> None:
    """Called after the evaluation that follows `step`."""

  def finish(self, head: LinearHead) -> None:
    """Called with the trained head."""


class EpochLine(TrainingCallback):
  """Prints a line per evaluation; a terminal gets a bar."""

  def __init__(self, stream: TextIO, schedule: FullBatch | Schedule, clock: Callable[[], float] = time.monotonic):
    self._stream = stream
    self._schedule = schedule
    self._clock = clock
    self._start = clock()
    self._line = ""

  def on_eval(self, step: int, result: EvalResult) -> None:
    accuracy, secs = f"accuracy {result.validation_accuracy:.2%}", f"{self._clock() - self._start:.1f} s"
    where = self._schedule.place(result.number, step)
    self._line = (
      f"{where}: training loss {result.training_loss:.4f}, accuracy {result.training_accuracy:.2%};"
      f" validation loss {result.validation_loss:.4f}, {accuracy}; {secs}"
    )
    if is_terminal(self._stream) and level() >= Level.NORMAL:
      text = f"{where}, validation {accuracy}, {secs}"
      show_bar("train", text, result.number, self._schedule.rounds, self._stream)
    else:
      say(self._line, file=self._stream)

  def finish(self, head: LinearHead) -> None:
    if self._line and is_terminal(self._stream):
      say(self._line, file=self._stream)
