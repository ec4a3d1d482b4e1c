"""The request and the flags of `train`. No TensorFlow."""

from __future__ import annotations

import argparse
import dataclasses
from typing import ClassVar

# The old scripts' layer is registered here.
from beam_retrain.trainer.compat.retrain_options import RetrainOptions
from beam_retrain.trainer.export.tflite_options import TfliteOptions
from beam_retrain.trainer.fit.schedule import FullBatch, Schedule
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.flags import (
  byte_count,
  fraction,
  option,
  positive_int,
  positive_number,
  seed_number,
)
from beam_retrain.transforms.core.run.request import Request

PRESETS = ("lbfgs", "retrain")
_PRESET_OF = {
  **dict.fromkeys(("epochs", "patience", "l2"), "lbfgs"),
  **dict.fromkeys(("learning_rate", "batch_size", "training_steps"), "retrain"),
}
_RETRAIN_EVAL_EVERY = 100  # steps, unless --eval_step_interval is given

_DESCRIPTION = """\
Trains a softmax head on the bottlenecks that `beam-retrain bottlenecks` wrote, and exports one SavedModel that takes
image bytes and returns labels. A killed run resumes when it is started again with the same arguments.

  beam-retrain train --input work/bottlenecks --output work/model
  beam-retrain train --input work/bottlenecks --output work/model --preset retrain

--preset lbfgs, the default, passes over all images until the validation loss stops falling. --preset retrain trains as
retrain.py did: gradient descent, batches drawn uniformly over the labels, a fixed number of steps.

Written to --output: saved_model/, retrained_labels.txt, retrained_graph.pb (frozen, for scripts written for
retrain.py's), head.npz (the head alone, for `reevaluate`), trained_on.bin (a digest of the training and validation
images, by which evaluations know them), metrics.json, logs/ (tensorboard --logdir), checkpoints/, info.json and, last,
COMPLETED."""

WRITTEN = ("summaries_dir", "intermediate_output_graphs_dir", "tflite_output_file", "tflite_int8_output_file")
"""Fields with paths that are written besides `output`."""


def _not_negative_float(text: str) -> float:
  value = float(text)
  if not 0 <= value < float("inf"):
    raise argparse.ArgumentTypeError(f"{text} is below 0")
  return value


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainRequest(Request, RetrainOptions, TfliteOptions):
  """The flags of `train`; None: the preset's default."""

  command: ClassVar[str] = "train"
  module: ClassVar[str] = "beam_retrain.trainer.task"
  description: ClassVar[str] = _DESCRIPTION

  input: str = option(help="output folder of `beam-retrain bottlenecks`, or of `run`", metavar="DIR")
  output: str = option(help="folder for the model; new, empty, or written by this command", metavar="DIR")
  preset: str = option("lbfgs", "how to train (default %(default)s)", choices=PRESETS)
  learning_rate: float | None = option(
    None, "retrain only: learning rate (default 0.01)", type=positive_number, metavar="R"
  )
  batch_size: int | None = option(
    None,
    "retrain only: images per training step (default 100; retrain.py's --train_batch_size)",
    "--train_batch_size",
    type=positive_int,
    metavar="N",
  )
  epochs: int | None = option(
    None,
    "lbfgs only: maximum number of epochs, passes over the training images (default 100)",
    "--rounds",
    type=positive_int,
    metavar="N",
  )
  patience: int | None = option(
    None,
    "lbfgs only: epochs without a lower validation loss before training stops (default 6)",
    type=positive_int,
    metavar="N",
  )
  l2: float | None = option(
    None,
    "lbfgs only: strength of the L2 penalty, as 1/C in scikit-learn's LogisticRegression (default 30)",
    type=_not_negative_float,
    metavar="S",
  )
  training_steps: int | None = option(
    None,
    "retrain only: number of steps (default 4000; retrain.py's --how_many_training_steps)",
    "--how_many_training_steps",
    type=positive_int,
    metavar="N",
  )
  validation_percentage: float | None = option(
    None,
    "images held back to decide when to stop, in percent of all (default: as planned by `bottlenecks`)",
    type=float,
    metavar="P",
  )
  seed: int = option(0, "same seed, same model (default %(default)d)", type=seed_number, metavar="N")
  memory_limit: int | None = option(
    None,
    "memory for the bottlenecks, such as 8G; if they take more, they are kept in a temporary file, in TMPDIR;"
    " the model is the same (default: half of the available memory)",
    type=byte_count,
    metavar="SIZE",
  )
  assert_accuracy_at_least: float | None = option(
    None,
    "exit code 1 if the testing accuracy, 0..1, is below this; the model is written nevertheless",
    type=fraction,
    metavar="A",
  )

  def validate(self) -> None:
    """Checks what does not depend on the input; writes nothing."""
    for name in [name for name in _PRESET_OF if getattr(self, name) is not None] + self.given_options():
      if (preset := _PRESET_OF.get(name, "retrain")) != self.preset:
        raise InputError(f"--{name} belongs to --preset {preset}, not to --preset {self.preset}: leave it out.")
    self.validate_options()

  def make_schedule(self) -> FullBatch | Schedule:
    if self.preset == "lbfgs":
      l2 = 30.0 if self.l2 is None else self.l2
      return FullBatch(epochs=self.epochs or 100, patience=self.patience or 6, l2=l2)
    eval_every = self.eval_step_interval or _RETRAIN_EVAL_EVERY
    return Schedule(
      learning_rate=self.learning_rate or 0.01,
      batch_size=self.batch_size or 100,
      steps=self.training_steps or 4000,
      first_eval=0 if self.eval_step_interval else eval_every - 1,
      eval_every=eval_every,
      is_measured_on_batch=bool(self.eval_step_interval),
      validation_images=self.validation_images,
    )
