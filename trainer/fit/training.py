"""Fitting the head: steps over bottlenecks in memory, looks at the validation images, early stopping, and checkpoints
from which a killed run goes on.

The batches of a block of steps are drawn from (seed, block), and a checkpoint is written where a block ends, with all
that the next one starts from; so a run that was killed and started again ends with the same weights, bit for bit, as
one that was not. Where the looks are changes neither batches nor weights, as long as none of them stops the training.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import zipfile
from collections.abc import Callable, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from beam_retrain.trainer.fit.batches import draw_balanced, stream_batches
from beam_retrain.trainer.fit.data import Bottlenecks
from beam_retrain.trainer.fit.head import Comparison, LinearHead, build_head
from beam_retrain.trainer.fit.optimizers import Adam, Optimizer, Sgd
from beam_retrain.trainer.fit.schedule import Plan
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import TRAINING, VALIDATION
from beam_retrain.transforms.core.system.local_files import becomes

_ROWS_PER_EVALUATION = 4096
_VALIDATION_DRAW = 1  # beside seed and step: another stream than that of the batches
_ROUNDS_PER_DROP = 2
_DROP = 0.3


@dataclasses.dataclass(frozen=True)
class Round:
  """What one round gave. Losses are mean cross-entropies in nats, accuracies 0..1; for those of training, see
  `Plan.is_measured_on_batch`: a mean over steps is one over weights that still moved."""

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


OnStep = Callable[[int, Score, LinearHead], None]
OnRound = Callable[[int, Round], None]


def train(
  data: Bottlenecks,
  plan: Plan,
  *,
  seed: int,
  checkpoint: str,
  on_step: OnStep = lambda *_: None,
  on_round: OnRound = lambda *_: None,
) -> tuple[LinearHead, list[Round]]:
  """Trains a head, from where `checkpoint` says that it was.

  Args:
    data: the bottlenecks.
    plan: how to train.
    seed: of the initial weights and of the order of the images.
    checkpoint: a file, replaced after every block of steps.
    on_step: called after each step that is trained here: its number, the first is 0; how its batch was predicted
      before it; and the head after it.
    on_round: called after each round that is trained here, with its last step. What was trained after the last
      checkpoint is trained again, and told again, where a killed run goes on.

  Returns:
    The trained head, and all rounds, those before an interruption too.

  Raises:
    InputError: the loss is not finite any more.
  """
  state = _State(data, plan, seed)
  state.restore(checkpoint)
  penalty = np.float32(plan.l2 / len(data.rows[TRAINING]))
  batches = stream_batches(data, plan, seed, first_block=state.steps // plan.steps_per_block)
  with contextlib.closing(batches), _one_blas_thread():
    while not _is_over(state, plan):
      number = len(state.rounds) + 1
      rate = _learning_rate(plan, state.rounds)
      last = plan.next_look(state.steps)
      for step in range(state.steps, last + 1):
        vectors, classes = next(batches)
        compared = state.take_step(vectors, classes, rate, penalty)
        if not math.isfinite(compared.loss):
          raise diverged(number, rate)
        on_step(step, _mean(compared, len(classes)), state.head)
        if step < last and state.steps % plan.steps_per_block == 0:
          state.save(checkpoint)
      trained = state.mean_of_steps()
      if plan.is_measured_on_batch:
        trained = _mean(state.head.compare(vectors, classes), len(classes))
      validated = _validate(state.head, data, plan, seed, last)
      if not all(math.isfinite(score.loss) for score in (trained, validated) if score.images):
        raise diverged(number, rate)
      state.finish_round(
        Round(
          number,
          state.steps - state.steps_in_rounds,
          rate,
          trained.loss,
          trained.accuracy,
          validated.loss,
          validated.accuracy,
        )
      )
      on_round(last, state.rounds[-1])
      if state.steps % plan.steps_per_block == 0 or _is_over(state, plan):
        state.save(checkpoint)
  if plan.patience is not None:
    state.head.set_weights(state.best)
  return state.head, state.rounds


def diverged(number: int, rate: float) -> InputError:
  """Returns what a user is told where a loss is not finite in round `number`, of learning rate `rate`, or after it."""
  return InputError(f"training diverged in round {number}: give a --learning_rate below {rate:g}.")


def _one_blas_thread() -> contextlib.AbstractContextManager[object]:
  """A step is a millisecond: threads that wait for each other in it take longer, and much longer where another process
  has the cores. And the numbers do not depend on how many there are."""
  return threadpool_limits(limits=1, user_api="blas")


def evaluate(head: LinearHead, data: Bottlenecks, split: str) -> Score:
  """Scores the head on a split; with no image in it, loss and accuracy are NaN."""
  rows = data.rows[split]
  loss, correct = 0.0, 0
  with _one_blas_thread():
    for start in range(0, len(rows), _ROWS_PER_EVALUATION):
      part = rows[start : start + _ROWS_PER_EVALUATION]
      compared = head.compare(data.vectors[part], data.classes[part])
      loss += compared.loss
      correct += compared.correct
  return _mean(Comparison(loss, correct), len(rows))


def _mean(compared: Comparison, images: int) -> Score:
  return Score(compared.loss / images, compared.correct / images, images) if images else Score(math.nan, math.nan, 0)


def _validate(head: LinearHead, data: Bottlenecks, plan: Plan, seed: int, step: int) -> Score:
  if plan.validation_images is None:
    return evaluate(head, data, VALIDATION)
  rng = np.random.default_rng([seed, step, _VALIDATION_DRAW])
  rows = next(draw_balanced(data, data.rows[VALIDATION], plan.validation_images, rng))
  return _mean(head.compare(data.vectors[rows], data.classes[rows]), len(rows))


def best_round(rounds: Sequence[Round]) -> Round:
  """Returns the round with the lowest validation loss, the first of several."""
  return min(rounds, key=lambda one: one.validation_loss)


def _is_over(state: _State, plan: Plan) -> bool:
  if state.steps >= plan.steps:
    return True
  rounds = state.rounds
  return plan.patience is not None and bool(rounds) and len(rounds) - best_round(rounds).number >= plan.patience


def _learning_rate(plan: Plan, rounds: list[Round]) -> float:
  if not plan.is_decaying:
    return plan.learning_rate
  best, without_better, drops = math.inf, 0, 0
  for one in rounds:
    without_better = 0 if one.validation_loss < best else without_better + 1
    best = min(best, one.validation_loss)
    drops += without_better > 0 and without_better % _ROUNDS_PER_DROP == 0
  return plan.learning_rate * _DROP**drops


def _to_json(finished: Round) -> str:
  return json.dumps(dataclasses.asdict(finished))


class _State:
  """Everything that a step starts from."""

  def __init__(self, data: Bottlenecks, plan: Plan, seed: int):
    self.head = build_head(data.dimensions, len(data.labels), seed)
    self._weights = [self.head.kernel, self.head.bias]
    self._optimizer: Optimizer = Adam(self._weights) if plan.optimizer == "adam" else Sgd()
    self.best: list[np.ndarray] = self.head.get_weights()
    self.steps = 0
    # There may be a round for every step: what is asked of all of them at each is carried along.
    self.rounds: list[Round] = []
    self.steps_in_rounds = 0
    self._lowest = math.inf
    self._history: list[str] = []
    # Of the steps since the last look: summed cross-entropy, number of correct ones, images.
    self._sums = np.zeros(3)

  @np.errstate(over="ignore", invalid="ignore", divide="ignore")  # the caller looks whether the loss is finite
  def take_step(self, vectors: np.ndarray, classes: np.ndarray, rate: float, penalty: np.float32) -> Comparison:
    """Moves the head against the gradient of: mean cross-entropy + `penalty` / 2 * sum of the kernel's squares."""
    compared, gradients = self.head.differentiate(vectors, classes)
    gradients[0] += penalty * self.head.kernel
    self._optimizer.apply(gradients, self._weights, rate)
    self.steps += 1
    self._sums += (compared.loss, compared.correct, len(classes))
    return compared

  def mean_of_steps(self) -> Score:
    loss, correct, images = self._sums.tolist()
    return Score(loss / images, correct / images, int(images))

  def finish_round(self, finished: Round) -> None:
    self._sums[:] = 0
    self.rounds.append(finished)
    self._history.append(_to_json(finished))
    self.steps_in_rounds += finished.steps
    if finished.validation_loss < self._lowest:
      self._lowest = finished.validation_loss
      self.best = self.head.get_weights()

  def _set_rounds(self, rounds: list[Round]) -> None:
    self.rounds = rounds
    self.steps_in_rounds = sum(one.steps for one in rounds)
    self._lowest = min((one.validation_loss for one in rounds), default=math.inf)
    self._history = [_to_json(one) for one in rounds]

  def save(self, path: str) -> None:
    """Writes one .npz, to a temporary name first: a kill at any moment leaves the old one or the new one."""
    history = f"[{', '.join(self._history)}]".encode()
    arrays = {
      **{f"head_{index}": array for index, array in enumerate(self.head.get_weights())},
      **{f"best_{index}": array for index, array in enumerate(self.best)},
      **{f"optimizer_{index}": array for index, array in enumerate(self._optimizer.variables)},
      "rounds": np.frombuffer(history, np.uint8),
      "steps": np.array(self.steps),
      "sums": self._sums,
    }
    with becomes(path) as temporary, open(temporary, "wb") as file:
      np.savez(file, allow_pickle=False, **arrays)

  def restore(self, path: str) -> None:
    """Goes back to what `save` wrote; a file that is not there, or cannot be read, means a start from the beginning."""
    with contextlib.suppress(FileNotFoundError, zipfile.BadZipFile, KeyError, ValueError, EOFError):
      with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
      rounds = [Round(**fields) for fields in json.loads(arrays["rounds"].tobytes())]
      head = [arrays[f"head_{index}"] for index in range(len(self.best))]
      best = [arrays[f"best_{index}"] for index in range(len(self.best))]
      optimizer = [arrays[f"optimizer_{index}"] for index in range(len(self._optimizer.variables))]
      steps, sums = int(arrays["steps"]), arrays["sums"]
      # All of it or nothing: Keras' Adam, of which earlier versions kept the variables, is refused before the head is.
      self._optimizer.restore(optimizer)
      self.head.set_weights(head)
      self.best = best
      self._set_rounds(rounds)
      self.steps, self._sums = steps, sums
