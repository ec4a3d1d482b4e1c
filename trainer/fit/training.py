"""Fits the head to bottlenecks in memory, with early stopping and checkpoints.

The batches of a block of steps are drawn from (seed, block), and a checkpoint after each block holds all that the next
one needs: a killed and resumed run ends with the same weights, bit for bit. Evaluations change neither batches nor
weights, unless they stop the training.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from beam_retrain.trainer.fit.batches import draw_balanced, stream_batches
from beam_retrain.trainer.fit.callbacks import TrainingCallback
from beam_retrain.trainer.fit.checkpoint import TrainingState
from beam_retrain.trainer.fit.data import Bottlenecks
from beam_retrain.trainer.fit.head import Comparison, LinearHead
from beam_retrain.trainer.fit.results import EvalResult, Score, best_round, mean_score
from beam_retrain.trainer.fit.schedule import Schedule
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import VALIDATION

_ROWS_PER_EVALUATION = 4096
_VALIDATION_DRAW = 1  # with seed and step: a random stream separate from the batches'
_ROUNDS_PER_DROP = 2
_DROP = 0.3


def train(
  data: Bottlenecks,
  schedule: Schedule,
  *,
  seed: int,
  checkpoint: str,
  callback: TrainingCallback | None = None,
) -> tuple[LinearHead, list[EvalResult]]:
  """Trains a head, resuming from `checkpoint` if it exists.

  Args:
    seed: decides the initial weights and the order of the images.
    checkpoint: a file, replaced after every block of steps.
    callback: observes the steps and evaluations. When a killed run resumes, those after its last checkpoint come
      again.

  Returns:
    The trained head, and the results of all rounds, including those before an interruption.

  Raises:
    InputError: the loss is no longer finite.
  """
  callback = callback or TrainingCallback()
  state = TrainingState(data, schedule, seed)
  state.restore(checkpoint)
  batches = stream_batches(data, schedule, seed, first_block=state.steps // schedule.steps_per_block)
  with contextlib.closing(batches), _one_blas_thread():
    while not _is_over(state, schedule):
      rate, last = _learning_rate(schedule, state.rounds), schedule.next_eval(state.steps)
      number = len(state.rounds) + 1
      for step in range(state.steps, last + 1):
        vectors, classes = next(batches)
        compared = state.take_step(vectors, classes, rate)
        if not math.isfinite(compared.loss):
          raise diverged(number, rate)
        callback.on_step(step, mean_score(compared, len(classes)), state.head)
        if step < last and state.steps % schedule.steps_per_block == 0:
          state.save(checkpoint)
      trained = state.mean_of_steps()
      if schedule.is_measured_on_batch:
        trained = mean_score(state.head.compare(vectors, classes), len(classes))
      state.finish_round(_result(number, state, rate, trained, _validate(state.head, data, schedule, seed, last)))
      callback.on_eval(last, state.rounds[-1])
      if state.steps % schedule.steps_per_block == 0 or _is_over(state, schedule):
        state.save(checkpoint)
  if schedule.patience is not None:
    state.head.set_weights(state.best)
  return state.head, state.rounds


def _result(number: int, state: TrainingState, rate: float, trained: Score, validated: Score) -> EvalResult:
  """Raises an `InputError` if one of the losses is not finite."""
  if not all(math.isfinite(score.loss) for score in (trained, validated) if score.images):
    raise diverged(number, rate)
  return EvalResult(
    number=number,
    steps=state.steps - state.steps_in_rounds,
    learning_rate=rate,
    training_loss=trained.loss,
    training_accuracy=trained.accuracy,
    validation_loss=validated.loss,
    validation_accuracy=validated.accuracy,
  )


def diverged(number: int, rate: float) -> InputError:
  """Returns the error for a loss that is not finite."""
  return InputError(f"training diverged in round {number}: use a --learning_rate below {rate:g}.")


def _one_blas_thread() -> contextlib.AbstractContextManager[object]:
  """Limits BLAS to one thread: a step is too short to share.

  So the weights do not depend on the number of cores.
  """
  return threadpool_limits(limits=1, user_api="blas")


def evaluate(head: LinearHead, data: Bottlenecks, split: str) -> Score:
  """Scores the head on a split; an empty one gives NaN."""
  rows = data.rows[split]
  loss, correct = 0.0, 0
  with _one_blas_thread():
    for start in range(0, len(rows), _ROWS_PER_EVALUATION):
      part = rows[start : start + _ROWS_PER_EVALUATION]
      compared = head.compare(data.vectors[part], data.classes[part])
      loss += compared.loss
      correct += compared.correct
  return mean_score(Comparison(loss, correct), len(rows))


def evaluate_splits(
  head: LinearHead, data: Bottlenecks, splits: Sequence[str], rounds: Sequence[EvalResult]
) -> dict[str, Score]:
  """Scores the trained head on each of `splits`.

  Raises:
    InputError: a loss is not finite.
  """
  scores = {split: evaluate(head, data, split) for split in splits}
  if any(score.images and not math.isfinite(score.loss) for score in scores.values()):
    raise diverged(rounds[-1].number, rounds[-1].learning_rate)
  return scores


def _validate(head: LinearHead, data: Bottlenecks, schedule: Schedule, seed: int, step: int) -> Score:
  if schedule.validation_images is None:
    return evaluate(head, data, VALIDATION)
  rng = np.random.default_rng([seed, step, _VALIDATION_DRAW])
  rows = next(draw_balanced(data, data.rows[VALIDATION], schedule.validation_images, rng))
  return mean_score(head.compare(data.vectors[rows], data.classes[rows]), len(rows))


def _is_over(state: TrainingState, schedule: Schedule) -> bool:
  if state.steps >= schedule.steps:
    return True
  rounds = state.rounds
  return schedule.patience is not None and bool(rounds) and len(rounds) - best_round(rounds).number >= schedule.patience


def _learning_rate(schedule: Schedule, rounds: list[EvalResult]) -> float:
  if not schedule.is_decaying:
    return schedule.learning_rate
  best, without_better, drops = math.inf, 0, 0
  for one in rounds:
    without_better = 0 if one.validation_loss < best else without_better + 1
    best = min(best, one.validation_loss)
    drops += without_better > 0 and without_better % _ROUNDS_PER_DROP == 0
  return schedule.learning_rate * _DROP**drops
