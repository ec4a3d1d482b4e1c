"""Fits the head to bottlenecks, with early stopping and checkpoints.

A checkpoint holds all that the next epoch or block of steps needs, the batches of a block are drawn from (seed, block):
a killed and resumed run ends with the same weights, bit for bit.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np

from beam_retrain.trainer.fit.callbacks import EvalResult, TrainingCallback, best_round
from beam_retrain.trainer.fit.checkpoint import TrainingState
from beam_retrain.trainer.fit.curvature import MAX_DIMENSIONS, Curvature
from beam_retrain.trainer.fit.data import Bottlenecks
from beam_retrain.trainer.fit.head import LinearHead, Score, total
from beam_retrain.trainer.fit.lbfgs import Lbfgs
from beam_retrain.trainer.fit.objective import Objective
from beam_retrain.trainer.fit.schedule import FullBatch, Schedule
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import VALIDATION
from beam_retrain.transforms.core.system.machine import one_blas_thread
from beam_retrain.transforms.core.system.prefetch import prefetch

_ROWS_PER_EVALUATION = 4096
_VALIDATION_DRAW = 1  # with seed and step: a random stream separate from the batches'
_CONVERGED = 5e-3  # of the loss, what one more step promises
_TOO_LARGE = (
  "training diverged: some bottlenecks are too large for float32, even scaled: look for them with `beam-retrain"
  " export`, and run `bottlenecks` again without their images."
)


def train(
  data: Bottlenecks,
  schedule: Schedule | FullBatch,
  *,
  seed: int,
  checkpoint: str,
  callbacks: Sequence[TrainingCallback] = (),
) -> tuple[LinearHead, list[EvalResult]]:
  """Trains a head, resuming from the file `checkpoint` if it exists.

  When a killed run resumes, the steps and evaluations after its last checkpoint come again. The results returned are
  those of all rounds. Raises InputError if the loss is no longer finite.
  """
  state = TrainingState(data, seed)
  with one_blas_thread():
    if isinstance(schedule, FullBatch):
      _descend_whole(state, data, schedule, checkpoint, callbacks)
    else:
      _descend_in_steps(state, data, schedule, seed, checkpoint, callbacks)
  for one in callbacks:
    one.finish(state.head)
  return state.head, state.rounds


def _descend_whole(
  state: TrainingState,
  data: Bottlenecks,
  schedule: FullBatch,
  checkpoint: str,
  callbacks: Sequence[TrainingCallback],
) -> None:
  """Evaluates the head on all images, moves it, and so on."""
  objective = Objective(data, schedule.l2)
  weights = np.vstack([state.head.kernel, state.head.bias])
  state.head.kernel, state.head.bias = weights[:-1], weights[-1]
  optimizer = Lbfgs(weights)
  optimizer.restore(state.restore(checkpoint))
  divide: Callable[[np.ndarray], np.ndarray] = np.copy
  if data.dimensions <= MAX_DIMENSIONS:
    moments = objective.second_moments()
    if not np.isfinite(moments).all():
      raise _diverged(schedule)
    divide = Curvature(moments, len(data.labels), objective.penalty).divide
  if not state.steps:
    untrained = objective.evaluate(state.head)
    optimizer.advance(untrained.loss, untrained.gradient, divide)
  while not _is_over(state, schedule, optimizer):
    found = objective.evaluate(state.head)
    if not math.isfinite(found.loss + found.validated.loss):
      raise _diverged(schedule)
    state.steps += 1
    state.finish_round(state.steps, optimizer.length, found.trained, found.validated)
    for one in callbacks:
      one.on_eval(state.steps - 1, state.rounds[-1])
    optimizer.advance(found.loss, found.gradient, divide)
    # What the pairs of a thousand labels take is not left behind.
    state.save(checkpoint, optimizer.variables[: 1 if _is_over(state, schedule, optimizer) else None])
  state.head.set_weights(state.best)


def _is_over(state: TrainingState, schedule: FullBatch, optimizer: Lbfgs) -> bool:
  if not (rounds := state.rounds):
    return False
  without_better = len(rounds) - best_round(rounds).number
  has_converged = optimizer.promised <= _CONVERGED * rounds[-1].training_loss
  return len(rounds) >= schedule.epochs or without_better >= schedule.patience or has_converged


def _descend_in_steps(
  state: TrainingState,
  data: Bottlenecks,
  schedule: Schedule,
  seed: int,
  checkpoint: str,
  callbacks: Sequence[TrainingCallback],
) -> None:
  state.restore(checkpoint)
  rate = schedule.learning_rate
  batches = stream_batches(data, schedule, seed, first_block=state.steps // schedule.steps_per_block)
  with contextlib.closing(batches):
    while state.steps < schedule.steps:
      last = schedule.next_eval(state.steps)
      for step in range(state.steps, last + 1):
        vectors, classes = next(batches)
        score = state.take_step(vectors, classes, rate)
        if not math.isfinite(score.loss):
          raise _diverged(schedule)
        for one in callbacks:
          one.on_step(step, score, state.head)
        if step < last and state.steps % schedule.steps_per_block == 0:
          state.save(checkpoint)
      trained = state.head.score(vectors, classes) if schedule.is_measured_on_batch else state.score_steps()
      validated = _validate(state.head, data, schedule, seed, last)
      if not all(math.isfinite(score.loss) for score in (trained, validated) if score.images):
        raise _diverged(schedule)
      state.finish_round(len(state.rounds) + 1, rate, trained, validated)
      for one in callbacks:
        one.on_eval(last, state.rounds[-1])
      if state.steps % schedule.steps_per_block == 0 or state.steps == schedule.steps:
        state.save(checkpoint)


def _diverged(schedule: Schedule | FullBatch) -> InputError:
  if isinstance(schedule, FullBatch):
    return InputError(_TOO_LARGE)
  return InputError(f"training diverged: use a --learning_rate below {schedule.learning_rate:g}.")


def evaluate(head: LinearHead, data: Bottlenecks, split: str) -> Score:
  """Scores the head on a split; an empty one gives NaN."""
  rows = data.rows[split]
  parts = [rows[start : start + _ROWS_PER_EVALUATION] for start in range(0, len(rows), _ROWS_PER_EVALUATION)]
  with one_blas_thread():
    return total(head.score(data.vectors[part], data.classes[part]) for part in parts)


def evaluate_splits(
  head: LinearHead, data: Bottlenecks, splits: Sequence[str], schedule: Schedule | FullBatch
) -> dict[str, Score]:
  """Scores the trained head; raises InputError if a loss is not finite."""
  scores = {split: evaluate(head, data, split) for split in splits}
  if any(score.images and not math.isfinite(score.loss) for score in scores.values()):
    raise _diverged(schedule)
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
      drawn = draw_balanced(data, data.learned_rows, schedule.batch_size, np.random.default_rng([seed, block]))
      for rows in itertools.islice(drawn, schedule.steps_per_block):
        yield data.vectors[rows], data.classes[rows]

  yield from prefetch(gather())


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
