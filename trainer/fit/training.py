"""Fits the head to bottlenecks in memory, with early stopping and checkpoints.

The batches of a block of steps are drawn from (seed, block), and a checkpoint after each block holds all that the next
one needs: a killed and resumed run ends with the same weights, bit for bit. Evaluations change neither batches nor
weights, unless they stop the training.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Generator, Iterator, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from beam_retrain.trainer.fit.callbacks import EvalResult, TrainingCallback, best_round
from beam_retrain.trainer.fit.checkpoint import TrainingState
from beam_retrain.trainer.fit.data import Bottlenecks
from beam_retrain.trainer.fit.head import LinearHead, Score
from beam_retrain.trainer.fit.schedule import Schedule
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import VALIDATION
from beam_retrain.transforms.core.system.prefetch import prefetch

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
  callbacks: Sequence[TrainingCallback] = (),
) -> tuple[LinearHead, list[EvalResult]]:
  """Trains a head, resuming from the file `checkpoint` if it exists.

  When a killed run resumes, the steps and evaluations after its last checkpoint come again. The results returned are
  those of all rounds. Raises InputError if the loss is no longer finite.
  """
  state = TrainingState(data, schedule, seed)
  state.restore(checkpoint)
  batches = stream_batches(data, schedule, seed, first_block=state.steps // schedule.steps_per_block)
  with contextlib.closing(batches), _one_blas_thread():
    while not _is_over(state, schedule):
      rate, last = _learning_rate(schedule, state.rounds), schedule.next_eval(state.steps)
      number = len(state.rounds) + 1
      for step in range(state.steps, last + 1):
        vectors, classes = next(batches)
        score = state.take_step(vectors, classes, rate)
        if not math.isfinite(score.loss):
          raise _diverged(rate)
        for one in callbacks:
          one.on_step(step, score, state.head)
        if step < last and state.steps % schedule.steps_per_block == 0:
          state.save(checkpoint)
      trained = state.head.score(vectors, classes) if schedule.is_measured_on_batch else state.score_steps()
      validated = _validate(state.head, data, schedule, seed, last)
      if not all(math.isfinite(score.loss) for score in (trained, validated) if score.images):
        raise _diverged(rate)
      state.finish_round(number, rate, trained, validated)
      for one in callbacks:
        one.on_eval(last, state.rounds[-1])
      if state.steps % schedule.steps_per_block == 0 or _is_over(state, schedule):
        state.save(checkpoint)
  if schedule.patience is not None:
    state.head.set_weights(state.best)
  for one in callbacks:
    one.finish(state.head)
  return state.head, state.rounds


def _diverged(rate: float) -> InputError:
  return InputError(f"training diverged: use a --learning_rate below {rate:g}.")


def _one_blas_thread() -> contextlib.AbstractContextManager[object]:
  """Makes the weights independent of the number of cores."""
  return threadpool_limits(limits=1, user_api="blas")


def evaluate(head: LinearHead, data: Bottlenecks, split: str) -> Score:
  """Scores the head on a split; an empty one gives NaN."""
  rows = data.rows[split]
  parts = [rows[start : start + _ROWS_PER_EVALUATION] for start in range(0, len(rows), _ROWS_PER_EVALUATION)]
  with _one_blas_thread():
    scores = [head.score(data.vectors[part], data.classes[part]) for part in parts]
  return Score(*map(sum, zip(Score(0.0, 0, 0), *scores, strict=True)))


def evaluate_splits(
  head: LinearHead, data: Bottlenecks, splits: Sequence[str], rounds: Sequence[EvalResult]
) -> dict[str, Score]:
  """Scores the trained head; raises InputError if a loss is not finite."""
  scores = {split: evaluate(head, data, split) for split in splits}
  if any(score.images and not math.isfinite(score.loss) for score in scores.values()):
    raise _diverged(rounds[-1].learning_rate)
  return scores


def _validate(head: LinearHead, data: Bottlenecks, schedule: Schedule, seed: int, step: int) -> Score:
  if schedule.validation_images is None:
    return evaluate(head, data, VALIDATION)
  rng = np.random.default_rng([seed, step, _VALIDATION_DRAW])
  rows = next(draw_balanced(data, data.rows[VALIDATION], schedule.validation_images, rng))
  return head.score(data.vectors[rows], data.classes[rows])


def stream_batches(
  data: Bottlenecks, schedule: Schedule, seed: int, first_block: int
) -> Generator[tuple[np.ndarray, np.ndarray]]:
  """Yields (float32 [n, D], int32 [n]), gathered in the background."""

  def gather() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for block in range(first_block, math.ceil(schedule.steps / schedule.steps_per_block)):
      for rows in draw_rows(data, schedule, np.random.default_rng([seed, block])):
        yield data.vectors[rows], data.classes[rows]

  yield from prefetch(gather())


def draw_rows(data: Bottlenecks, schedule: Schedule, rng: np.random.Generator) -> Iterator[np.ndarray]:
  """Yields the rows of each batch of a block."""
  rows, size = data.learned_rows, schedule.batch_size
  if schedule.is_balanced:
    yield from itertools.islice(draw_balanced(data, rows, size, rng), schedule.steps_per_block)
    return
  for _ in range(schedule.steps_per_block // math.ceil(len(rows) / size)):
    order = rng.permutation(rows)
    yield from (order[start : start + size] for start in range(0, len(order), size))


def draw_balanced(data: Bottlenecks, rows: np.ndarray, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
  """Yields `count` of `rows`, endlessly, with replacement.

  Draws uniformly over classes, then within one.
  """
  by_class = rows[np.argsort(data.classes[rows], kind="stable")]
  counts = np.bincount(data.classes[rows], minlength=len(data.labels))
  starts = np.cumsum(counts) - counts
  while True:
    drawn = rng.integers(len(counts), size=count)
    yield by_class[starts[drawn] + (rng.random(count) * counts[drawn]).astype(np.int64)]


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
