"""The request and the flags of `train`. No TensorFlow."""

from __future__ import annotations

import argparse
import dataclasses
from typing import ClassVar

# The old scripts' layer is registered here.
from beam_retrain.trainer.compat.retrain_options import RetrainOptions, add_retrain_flags
from beam_retrain.trainer.export.tflite_options import TfliteOptions, add_tflite_flags
from beam_retrain.trainer.fit.schedule import Schedule, steps_in_epoch
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.flags import fraction, positive_int, positive_number, seed_number
from beam_retrain.transforms.core.run.request import Request

_RETRAIN_EVAL_EVERY = 100  # steps, unless --eval_step_interval is given

_DESCRIPTION = """\
Trains a softmax head on the bottlenecks that `beam-retrain bottlenecks` wrote, and exports one SavedModel that takes
image bytes and returns labels. A killed run resumes when it is started again with the same arguments.

  beam-retrain train --input work/bottlenecks --output work/model
  beam-retrain train --input work/bottlenecks --output work/model --preset retrain

--preset adam, the default, trains until the validation loss stops falling. --preset retrain trains as retrain.py did:
gradient descent, batches drawn uniformly over the labels, a fixed number of steps.

Written to --output: saved_model/, retrained_labels.txt, retrained_graph.pb (frozen, for scripts written for
retrain.py's), head.npz (the head alone, for `reevaluate`), trained_on.bin (a digest of the training and validation
images, by which evaluations know them), metrics.json, logs/ (tensorboard --logdir), checkpoints/, info.json and, last,
COMPLETED."""

WRITTEN = ("summaries_dir", "intermediate_output_graphs_dir", "tflite_output_file", "tflite_int8_output_file")
"""Fields with paths that are written besides `output`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainRequest(Request, RetrainOptions, TfliteOptions):
  """The flags of `train`; None: the preset's default."""

  command: ClassVar[str] = "train"
  module: ClassVar[str] = "beam_retrain.trainer.task"
  description: ClassVar[str] = _DESCRIPTION

  input: str
  output: str
  preset: str = "adam"
  learning_rate: float | None = None
  batch_size: int | None = None
  epochs: int | None = None
  patience: int | None = None
  l2: float | None = None
  training_steps: int | None = None
  validation_percentage: float | None = None
  seed: int = 0
  assert_accuracy_at_least: float | None = None

  @classmethod
  def add_flags(cls, parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", required=True, metavar="DIR", help="output folder of `beam-retrain bottlenecks`")
    parser.add_argument(
      "--output", required=True, metavar="DIR", help="folder for the model; new, empty, or written by this command"
    )
    parser.add_argument("--preset", choices=("adam", "retrain"), help="how to train (default %(default)s)")
    _add_fit_flags(parser)
    parser.add_argument(
      "--validation_percentage",
      type=float,
      metavar="P",
      help="images held back to decide when to stop, in percent of all (default: as planned by `bottlenecks`)",
    )
    parser.add_argument("--seed", type=seed_number, metavar="N", help="same seed, same model (default %(default)d)")
    parser.add_argument(
      "--assert_accuracy_at_least",
      type=fraction,
      metavar="A",
      help="exit code 1 if the testing accuracy, 0..1, is below this; the model is written nevertheless",
    )
    add_retrain_flags(parser)
    add_tflite_flags(parser)

  def validate(self) -> None:
    """Checks what does not depend on the input; writes nothing."""
    presets = {"epochs": "adam", "patience": "adam", "l2": "adam", "training_steps": "retrain"}
    for name in [name for name in presets if getattr(self, name) is not None] + self.given_options():
      if (preset := presets.get(name, "retrain")) != self.preset:
        raise InputError(f"--{name} belongs to --preset {preset}, not to --preset {self.preset}: leave it out.")
    self.validate_options()

  def make_schedule(self, training_images: int) -> Schedule:
    if self.preset == "retrain":
      eval_every = self.eval_step_interval or _RETRAIN_EVAL_EVERY
      return Schedule(
        optimizer="sgd",
        learning_rate=self.learning_rate or 0.01,
        batch_size=self.batch_size or 100,
        is_balanced=True,
        steps=self.training_steps or 4000,
        first_eval=0 if self.eval_step_interval else eval_every - 1,
        eval_every=eval_every,
        is_measured_on_batch=bool(self.eval_step_interval),
        validation_images=self.validation_images,
      )
    batch_size = self.batch_size or 512
    steps = steps_in_epoch(training_images, batch_size)
    return Schedule(
      optimizer="adam",
      learning_rate=self.learning_rate or 0.001,
      is_decaying=True,
      batch_size=batch_size,
      steps=(self.epochs or 100) * steps,
      first_eval=steps - 1,
      eval_every=steps,
      patience=self.patience or 6,
      l2=10.0 if self.l2 is None else self.l2,
    )


def _add_fit_flags(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--learning_rate", type=positive_number, metavar="R", help="initial learning rate (adam 0.001, retrain 0.01)"
  )
  parser.add_argument(
    "--batch_size",
    "--train_batch_size",
    type=positive_int,
    metavar="N",
    help="images per training step (adam 512, retrain 100; retrain.py's --train_batch_size)",
  )
  parser.add_argument(
    "--epochs",
    "--rounds",
    type=positive_int,
    metavar="N",
    help="adam only: maximum number of epochs; an epoch is one pass over the training images, or more until 50 steps"
    " (default 100)",
  )
  parser.add_argument(
    "--patience",
    type=positive_int,
    metavar="N",
    help="adam only: epochs without a lower validation loss before training stops (default 6)",
  )
  parser.add_argument(
    "--l2",
    type=_not_negative_float,
    metavar="S",
    help="adam only: strength of the L2 penalty, as 1/C in scikit-learn's LogisticRegression (default 10)",
  )
  parser.add_argument(
    "--training_steps",
    "--how_many_training_steps",
    type=positive_int,
    metavar="N",
    help="retrain only: number of steps (default 4000; retrain.py's --how_many_training_steps)",
  )


def _not_negative_float(text: str) -> float:
  value = float(text)
  if not 0 <= value < float("inf"):
    raise argparse.ArgumentTypeError(f"{text} is below 0")
  return value
