"""Fitting the head: rounds over bottlenecks in memory, early stopping, and checkpoints from which a killed run goes on.

Everything random is drawn from (seed, round), and a checkpoint holds all that a round starts from; so a run that was
killed and started again ends with the same weights, bit for bit, as one that was not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from trainer.data import Bottlenecks
from trainer.model import build_head
from transforms.core.errors import InputError
from transforms.core.schema import TRAINING, VALIDATION

_ROWS_PER_EVALUATION = 4096
_MIN_STEPS = 50  # in a round: with few images, one pass is too little to judge by
_ROUNDS_PER_DROP = 2
_DROP = 0.3


@dataclasses.dataclass(frozen=True)
class Plan:
  """How the head is trained. A round is what lies between two looks at the validation images.

  Attributes:
    optimizer: `adam` or `sgd` (plain, without momentum).
    learning_rate: of the first round.
    is_decaying: whether the learning rate falls, to 0.3 of what it was, after every 2 rounds in a row without a better
      validation loss.
    batch_size: images per step.
    rounds: at most so many.
    steps_per_round: steps in a round with batches drawn uniformly over classes, then over the class's images, with
      replacement; None: as many whole passes over the shuffled training images as make 50 steps or more.
    patience: rounds without a better validation loss after which training stops; the best round's weights count. None:
      all rounds are trained, and the last weights count.
    l2: strength of a normal prior on the weights, as 1/C in scikit-learn's LogisticRegression: the penalty is
      l2 / 2 * sum of squares, shared by the training images.
  """

  optimizer: str
  learning_rate: float
  is_decaying: bool
  batch_size: int
  rounds: int
  steps_per_round: int | None
  patience: int | None
  l2: float


@dataclasses.dataclass(frozen=True)
class Round:
  """What one round gave. Losses are mean cross-entropies in nats, accuracies 0..1; those of training are means over the
  round's steps, so from weights that still moved."""

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


def train(
  data: Bottlenecks, plan: Plan, *, seed: int, checkpoint: str, on_round: Callable[[Round], None] = lambda _: None
) -> tuple[keras.Model, list[Round]]:
  """Trains a head, from where `checkpoint` says that it was.

  Args:
    data: the bottlenecks.
    plan: how to train.
    seed: of the initial weights and of the order of the images.
    checkpoint: a file, replaced after every round.
    on_round: called after each round that is trained here.

  Returns:
    The trained head, and all rounds, those before an interruption too.

  Raises:
    InputError: the loss is not finite any more.
  """
  state = _State(data, plan, seed)
  state.restore(checkpoint)
  step = _make_step(state.head, state.optimizer, plan.l2 / len(data.rows[TRAINING]))
  batches = iter(_stream_batches(data, plan, seed, first_round=len(state.rounds)))
  while not _is_over(state.rounds, plan):
    number = len(state.rounds)
    rate = _learning_rate(plan, state.rounds)
    state.optimizer.learning_rate.assign(rate)
    steps = _steps_in_round(data, plan)
    loss = correct = images = 0.0
    for _ in range(steps):
      vectors, classes = next(batches)
      batch_loss, batch_correct = step(vectors, classes)
      loss += float(batch_loss)
      correct += float(batch_correct)
      images += len(classes)
    if not math.isfinite(loss):
      raise InputError(f"training diverged in round {number + 1}: give a --learning_rate below {rate:g}.")
    validated = evaluate(state.head, data, VALIDATION)
    state.finish_round(
      Round(number + 1, steps, rate, loss / images, correct / images, validated.loss, validated.accuracy)
    )
    state.save(checkpoint)
    on_round(state.rounds[-1])
  if plan.patience is not None:
    state.head.set_weights(state.best)
  return state.head, state.rounds


def evaluate(head: keras.Model, data: Bottlenecks, split: str) -> Score:
  """Scores the head on a split; with no image in it, loss and accuracy are NaN."""
  rows = data.rows[split]
  loss = correct = 0.0
  for start in range(0, len(rows), _ROWS_PER_EVALUATION):
    part = rows[start : start + _ROWS_PER_EVALUATION]
    logits = head(tf.constant(data.vectors[part]), training=False)
    classes = tf.constant(data.classes[part])
    loss += float(tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)))
    correct += float(_count_correct(classes, logits))
  images = len(rows)
  return Score(loss / images, correct / images, images) if images else Score(math.nan, math.nan, 0)


def best_round(rounds: Sequence[Round]) -> Round:
  """Returns the round with the lowest validation loss, the first of several."""
  return min(rounds, key=lambda one: one.validation_loss)


def _is_over(rounds: list[Round], plan: Plan) -> bool:
  if len(rounds) >= plan.rounds:
    return True
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


def _steps_in_round(data: Bottlenecks, plan: Plan) -> int:
  return plan.steps_per_round or _passes_in_round(data, plan) * _steps_in_pass(data, plan)


def _steps_in_pass(data: Bottlenecks, plan: Plan) -> int:
  return math.ceil(len(data.rows[TRAINING]) / plan.batch_size)


def _passes_in_round(data: Bottlenecks, plan: Plan) -> int:
  return math.ceil(_MIN_STEPS / _steps_in_pass(data, plan))


def _stream_batches(data: Bottlenecks, plan: Plan, seed: int, first_round: int) -> tf.data.Dataset:
  """Element: (float32 [n, D], int32 [n]). One batch is gathered while another one is trained on."""

  def gather() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for number in range(first_round, plan.rounds):
      for rows in _draw_rows(data, plan, np.random.default_rng([seed, number])):
        yield data.vectors[rows], data.classes[rows]

  signature = (tf.TensorSpec([None, data.dimensions], tf.float32), tf.TensorSpec([None], tf.int32))
  return tf.data.Dataset.from_generator(gather, output_signature=signature).prefetch(2)


def _draw_rows(data: Bottlenecks, plan: Plan, rng: np.random.Generator) -> Iterator[np.ndarray]:
  """Yields the rows of a round's batches."""
  rows = data.rows[TRAINING]
  if plan.steps_per_round is None:
    for _ in range(_passes_in_round(data, plan)):
      order = rng.permutation(rows)
      yield from (order[start : start + plan.batch_size] for start in range(0, len(order), plan.batch_size))
    return
  by_class = rows[np.argsort(data.classes[rows], kind="stable")]
  counts = data.counts(TRAINING)
  starts = np.cumsum(counts) - counts
  for _ in range(plan.steps_per_round):
    drawn = rng.integers(len(counts), size=plan.batch_size)
    yield by_class[starts[drawn] + (rng.random(plan.batch_size) * counts[drawn]).astype(np.int64)]


def _make_step(
  head: keras.Model, optimizer: keras.optimizers.Optimizer, penalty: float
) -> Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
  """Returns a function (float32 [n, D], int32 [n]) -> (summed cross-entropy, number of correct ones)."""
  (kernel, _) = head.trainable_variables

  @tf.function(
    input_signature=[tf.TensorSpec([None, head.input_shape[1]], tf.float32), tf.TensorSpec([None], tf.int32)]
  )
  def step(vectors: tf.Tensor, classes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    with tf.GradientTape() as tape:
      logits = head(vectors, training=True)
      losses = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
      objective = tf.reduce_mean(losses) + penalty * tf.nn.l2_loss(kernel.value)
    gradients = tape.gradient(objective, head.trainable_variables)
    optimizer.apply(gradients, head.trainable_variables)
    return tf.reduce_sum(losses), _count_correct(classes, logits)

  return step


def _count_correct(classes: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
  return tf.reduce_sum(tf.cast(tf.argmax(logits, axis=1, output_type=tf.int32) == classes, tf.float32))


class _State:
  """Everything that a round starts from."""

  def __init__(self, data: Bottlenecks, plan: Plan, seed: int):
    self.head = build_head(data.dimensions, len(data.labels), seed)
    optimizer_class = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}[plan.optimizer]
    self.optimizer = optimizer_class(plan.learning_rate)
    self.optimizer.build(self.head.trainable_variables)
    self.best: list[np.ndarray] = self.head.get_weights()
    self.rounds: list[Round] = []

  def finish_round(self, finished: Round) -> None:
    self.rounds.append(finished)
    if best_round(self.rounds) is finished:
      self.best = self.head.get_weights()

  def save(self, path: str) -> None:
    """Writes one .npz, to a temporary name first: a kill at any moment leaves the old one or the new one."""
    history = json.dumps([dataclasses.asdict(one) for one in self.rounds]).encode()
    arrays = {
      **{f"head_{index}": array for index, array in enumerate(self.head.get_weights())},
      **{f"best_{index}": array for index, array in enumerate(self.best)},
      **{f"optimizer_{index}": variable.numpy() for index, variable in enumerate(self.optimizer.variables)},
      "rounds": np.frombuffer(history, np.uint8),
    }
    with open(path + ".tmp", "wb") as file:
      np.savez(file, **arrays)
    os.replace(path + ".tmp", path)

  def restore(self, path: str) -> None:
    """Goes back to what `save` wrote; a file that is not there, or cannot be read, means a start from the beginning."""
    with contextlib.suppress(FileNotFoundError, zipfile.BadZipFile, KeyError, ValueError, EOFError):
      with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
      rounds = [Round(**fields) for fields in json.loads(arrays["rounds"].tobytes())]
      head = [arrays[f"head_{index}"] for index in range(len(self.best))]
      best = [arrays[f"best_{index}"] for index in range(len(self.best))]
      optimizer = [arrays[f"optimizer_{index}"] for index in range(len(self.optimizer.variables))]
      self.head.set_weights(head)
      for variable, value in zip(self.optimizer.variables, optimizer, strict=True):
        variable.assign(value)
      self.best, self.rounds = best, rounds
