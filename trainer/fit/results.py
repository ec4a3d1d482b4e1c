"""Results of a training and its evaluations."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from beam_retrain.trainer.fit.head import Comparison


@dataclasses.dataclass(frozen=True)
class EvalResult:
  """The result of one round: losses in nats, accuracies 0..1.

  Training loss and accuracy are means over steps whose weights still moved, unless `Schedule.is_measured_on_batch`.
  """

  number: int
  steps: int
  learning_rate: float
  training_loss: float
  training_accuracy: float
  validation_loss: float
  validation_accuracy: float


@dataclasses.dataclass(frozen=True)
class Score:
  """`loss` in nats, `accuracy` 0..1, over `images` images."""

  loss: float
  accuracy: float
  images: int


def mean_score(compared: Comparison, images: int) -> Score:
  return Score(compared.loss / images, compared.correct / images, images) if images else Score(math.nan, math.nan, 0)


def best_round(rounds: Sequence[EvalResult]) -> EvalResult:
  """Returns the first round with the lowest validation loss."""
  return min(rounds, key=lambda one: one.validation_loss)
