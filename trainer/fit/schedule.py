"""Lengths of trainings, and times of their evaluations. No TensorFlow."""

from __future__ import annotations

import dataclasses

_STEPS_PER_BLOCK = 100

Settings = dict[str, str | float | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FullBatch:
  """L-BFGS; an epoch is one pass over the images.

  `l2` is the strength of the penalty, 1/C of scikit-learn's LogisticRegression: l2 / 2 * sum of squares, shared by the
  training images.
  """

  epochs: int  # the most of them
  patience: int  # epochs without a lower validation loss before training stops; the best epoch's weights are kept
  l2: float

  def to_settings(self) -> Settings:
    """Returns the entries of `info.json`."""
    return {"optimizer": "lbfgs", **dataclasses.asdict(self)}

  def place(self, number: int, step: int) -> str:
    """Returns where a training is, for its progress line."""
    return f"epoch {number}/{self.epochs}"

  @property
  def rounds(self) -> int:
    """The number of evaluations, unless training stops early."""
    return self.epochs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
  """Gradient descent on drawn batches, as in `retrain.py`, to the last step.

  Batches are drawn uniformly over classes, then over the class's images, with replacement.

  Attributes:
    first_eval: the step after which the head is first evaluated, 0..eval_every - 1; the first step is 0.
    eval_every: steps between evaluations; the last step is always followed by one.
    is_measured_on_batch: a round's training score is that of its last step's batch, after that step, as in
      `retrain.py`; otherwise it is the mean over the round's steps.
    validation_images: images drawn for each evaluation, as for a batch; None: all, once each.
  """

  learning_rate: float
  batch_size: int
  steps: int
  first_eval: int
  eval_every: int
  is_measured_on_batch: bool = False
  validation_images: int | None = None

  def to_settings(self) -> Settings:
    """Returns the entries of `info.json`, as of earlier versions."""
    settings = dataclasses.asdict(self)
    settings["first_look"], settings["look_every"] = settings.pop("first_eval"), settings.pop("eval_every")
    return {"optimizer": "sgd", "is_decaying": False, "is_balanced": True, "patience": None, "l2": 0.0, **settings}

  def place(self, number: int, step: int) -> str:
    return f"step {step + 1}/{self.steps}"

  @property
  def rounds(self) -> int:
    """The number of evaluations."""
    return len(range(self.first_eval, self.steps - 1, self.eval_every)) + 1

  @property
  def steps_per_block(self) -> int:
    """Steps whose batches are drawn together, before each checkpoint."""
    return _STEPS_PER_BLOCK

  def next_eval(self, step: int) -> int:
    """Returns the first step from `step` on that is evaluated."""
    return min(step + (self.first_eval - step) % self.eval_every, self.steps - 1)
