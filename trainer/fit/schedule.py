"""Length of the training, and times of its evaluations. No TensorFlow."""

from __future__ import annotations

import dataclasses
import math

_MIN_STEPS = 50  # per epoch: with few images, one pass is too short
_STEPS_PER_BLOCK = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
  """How the head is trained, and when it is validated.

  Attributes:
    optimizer: `adam` or `sgd`.
    learning_rate: that of the first epoch, or of the first steps until an evaluation: a round.
    is_decaying: the learning rate is multiplied by 0.3 after every 2 rounds in a row without a lower validation loss.
    is_balanced: batches are drawn uniformly over classes, then over the class's images, with replacement; otherwise a
      round is whole passes over the shuffled training images.
    first_eval: the step after which the head is first evaluated, 0..eval_every - 1; the first step is 0.
    eval_every: steps between evaluations; the last step is always followed by one.
    is_measured_on_batch: a round's training score is that of its last step's batch, after that step, as in
      `retrain.py`; otherwise it is the mean over the round's steps.
    validation_images: images drawn for each evaluation, as with `is_balanced`; None: all, once each.
    patience: rounds without a lower validation loss before training stops with the best round's weights; None: all
      steps are trained, and the last weights are kept.
    l2: strength of the penalty, 1/C of scikit-learn's LogisticRegression: l2 / 2 * sum of squares, shared by the
      training images.
  """

  optimizer: str
  learning_rate: float
  is_decaying: bool = False
  batch_size: int
  is_balanced: bool = False
  steps: int
  first_eval: int
  eval_every: int
  is_measured_on_batch: bool = False
  validation_images: int | None = None
  patience: int | None = None
  l2: float = 0.0

  def to_settings(self) -> dict[str, str | float | None]:
    """Returns the entries of `info.json`, some by earlier names."""
    settings = dataclasses.asdict(self)
    settings["first_look"], settings["look_every"] = settings.pop("first_eval"), settings.pop("eval_every")
    return settings

  @property
  def rounds(self) -> int:
    """The number of evaluations, unless training stops early."""
    return len(range(self.first_eval, self.steps - 1, self.eval_every)) + 1

  @property
  def steps_per_block(self) -> int:
    """Steps whose batches are drawn together, before each checkpoint."""
    return _STEPS_PER_BLOCK if self.is_balanced else self.eval_every

  def next_eval(self, step: int) -> int:
    """Returns the first step from `step` on that is evaluated."""
    return min(step + (self.first_eval - step) % self.eval_every, self.steps - 1)


def steps_in_epoch(training_images: int, batch_size: int) -> int:
  """Returns the steps of whole passes, at least 50."""
  steps_in_pass = math.ceil(training_images / batch_size)
  return steps_in_pass * math.ceil(_MIN_STEPS / steps_in_pass)
