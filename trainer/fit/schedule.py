"""What a training is to do: a number of steps, and where the looks at the validation images are. No TensorFlow."""

from __future__ import annotations

import dataclasses
import math

_MIN_STEPS = 50  # in a round of whole passes: with few images, one pass is too little to judge by
_STEPS_PER_BLOCK = 100


@dataclasses.dataclass(frozen=True)
class Plan:
  """How the head is trained: a number of steps, and where the looks at the validation images are.

  Attributes:
    optimizer: `adam` or `sgd` (plain, without momentum).
    learning_rate: of the first round. A round is what lies between two looks.
    is_decaying: whether the learning rate falls, to 0.3 of what it was, after every 2 rounds in a row without a better
      validation loss.
    batch_size: images per step.
    is_balanced: batches are drawn uniformly over classes, then over the class's images, with replacement; else a round
      is whole passes over the shuffled training images.
    steps: at most so many.
    first_look: the step after which the validation images are looked at first, 0..look_every - 1; the first step is 0.
    look_every: steps between one look and the next; one more look is after the last step.
    is_measured_on_batch: what a round says of training is measured on its last step's batch, after that step, as
      `retrain.py` did; else it is the mean over the round's steps.
    validation_images: at each look so many are drawn, uniformly over classes, with replacement; None: all, once each.
    patience: rounds without a better validation loss after which training stops; the best round's weights count. None:
      all steps are trained, and the last weights count.
    l2: strength of a normal prior on the weights, as 1/C in scikit-learn's LogisticRegression: the penalty is
      l2 / 2 * sum of squares, shared by the training images.
  """

  optimizer: str
  learning_rate: float
  is_decaying: bool
  batch_size: int
  is_balanced: bool
  steps: int
  first_look: int
  look_every: int
  is_measured_on_batch: bool
  validation_images: int | None
  patience: int | None
  l2: float

  @property
  def rounds(self) -> int:
    """How many looks there are, if none of them stops the training."""
    return len(range(self.first_look, self.steps - 1, self.look_every)) + 1

  @property
  def steps_per_block(self) -> int:
    return _STEPS_PER_BLOCK if self.is_balanced else self.look_every

  def next_look(self, step: int) -> int:
    """Returns the first step, from `step` on, after which there is a look."""
    return min(step + (self.first_look - step) % self.look_every, self.steps - 1)


def steps_in_round(training_images: int, batch_size: int) -> int:
  """Returns the steps of as many whole passes over the training images as make 50 steps or more."""
  steps_in_pass = math.ceil(training_images / batch_size)
  return steps_in_pass * math.ceil(_MIN_STEPS / steps_in_pass)
