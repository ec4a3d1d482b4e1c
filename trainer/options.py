"""What `train` is asked for: its flags, and the plan that they make. No TensorFlow."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from beam_retrain.trainer.compat import retrain_options
from beam_retrain.trainer.compat.retrain_options import RetrainRequest, retrain_request
from beam_retrain.trainer.export.tflite_flags import add_tflite_flags
from beam_retrain.trainer.fit.schedule import Plan, steps_in_round
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.cli import ArgumentParser, fraction, positive_int, refuse_unknown

_STEPS_PER_LOOK = 100  # of --preset retrain, where --eval_step_interval is not given

_DESCRIPTION = """\
Trains a softmax head on the bottlenecks that `beam-retrain bottlenecks` wrote, and exports one SavedModel that takes
image bytes and gives labels. A run that was killed goes on where it was, if started again with the same arguments.

  beam-retrain train --input work/bottlenecks --output work/model
  beam-retrain train --input work/bottlenecks --output work/model --preset retrain

--preset adam, the default, trains until the validation images are not predicted better any more. --preset retrain
trains as retrain.py did: gradient descent, batches drawn uniformly over the labels, a fixed number of steps.

Written to --output: saved_model/, retrained_labels.txt, retrained_graph.pb (frozen, for scripts made for retrain.py's),
head.npz (the head alone, for `reevaluate`), metrics.json, logs/ (tensorboard --logdir), checkpoints/, info.json and,
last, COMPLETED."""


def make_parser() -> argparse.ArgumentParser:
  parser = ArgumentParser(prog="beam-retrain train", description=_DESCRIPTION)
  parser.add_argument("--input", required=True, metavar="DIR", help="what `beam-retrain bottlenecks` wrote")
  parser.add_argument(
    "--output", required=True, metavar="DIR", help="folder for the model; new, empty, or of this command"
  )
  parser.add_argument("--preset", choices=("adam", "retrain"), default="adam", help="how to train (default adam)")
  parser.add_argument(
    "--learning_rate", type=_positive_float, metavar="R", help="of the first step (adam 0.001, retrain 0.01)"
  )
  parser.add_argument(
    "--batch_size",
    "--train_batch_size",
    type=positive_int,
    metavar="N",
    help="images per training step (adam 512, retrain 100; retrain.py's --train_batch_size)",
  )
  parser.add_argument(
    "--rounds",
    type=positive_int,
    metavar="N",
    help="adam only: rounds, at most; a round is one pass over the training images, or as many as make 50 steps"
    " (default 100)",
  )
  parser.add_argument(
    "--patience",
    type=positive_int,
    metavar="N",
    help="adam only: rounds without a better validation loss before training stops (default 6)",
  )
  parser.add_argument(
    "--l2",
    type=_not_negative_float,
    metavar="S",
    help="adam only: how strongly weights are kept small, as 1/C in scikit-learn's LogisticRegression (default 10)",
  )
  parser.add_argument(
    "--training_steps",
    "--how_many_training_steps",
    type=positive_int,
    metavar="N",
    help="retrain only: steps (default 4000; retrain.py's --how_many_training_steps)",
  )
  parser.add_argument(
    "--validation_percentage",
    type=float,
    metavar="P",
    help="images held back to see when to stop, in percent of all (default: what `bottlenecks` planned)",
  )
  parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="same seed, same model (default 0)")
  parser.add_argument(
    "--assert_accuracy_at_least",
    type=fraction,
    metavar="A",
    help="exit code 1 where the testing images are predicted less accurately than this, 0..1; all is written first",
  )
  retrain_options.add_retrain_flags(parser)
  add_tflite_flags(parser)
  return parser


def _positive_float(text: str) -> float:
  value = float(text)
  if not 0 < value < float("inf"):
    raise argparse.ArgumentTypeError(f"{text} is not above 0")
  return value


def _not_negative_float(text: str) -> float:
  value = float(text)
  if not 0 <= value < float("inf"):
    raise argparse.ArgumentTypeError(f"{text} is below 0")
  return value


def _seed(text: str) -> int:
  value = int(text)
  if not 0 <= value < 1 << 63:
    raise argparse.ArgumentTypeError(f"{text} is not between 0 and {(1 << 63) - 1}")
  return value


_ONLY_OF_PRESET = {
  **dict.fromkeys(("rounds", "patience", "l2"), "adam"),
  **dict.fromkeys(("training_steps", *retrain_options.NAMES), "retrain"),
}


def refuse_other_presets(args: argparse.Namespace) -> None:
  """Raises an `InputError` for a flag that the preset has no use for."""
  for name, preset in _ONLY_OF_PRESET.items():
    if getattr(args, name) is not None and args.preset != preset:
      raise InputError(f"--{name} belongs to --preset {preset}, this is --preset {args.preset}: leave it out.")


def make_plan(args: argparse.Namespace, asked: RetrainRequest, training_images: int) -> Plan:
  """Returns what the preset, and the flags that change it, ask for."""
  if args.preset == "retrain":
    look_every = asked.eval_step_interval or _STEPS_PER_LOOK
    return Plan(
      optimizer="sgd",
      learning_rate=args.learning_rate or 0.01,
      is_decaying=False,
      batch_size=args.batch_size or 100,
      is_balanced=True,
      steps=args.training_steps or 4000,
      first_look=0 if asked.eval_step_interval else look_every - 1,
      look_every=look_every,
      is_measured_on_batch=bool(asked.eval_step_interval),
      validation_images=asked.validation_images,
      patience=None,
      l2=0.0,
    )
  batch_size = args.batch_size or 512
  steps = steps_in_round(training_images, batch_size)
  return Plan(
    optimizer="adam",
    learning_rate=args.learning_rate or 0.001,
    is_decaying=True,
    batch_size=batch_size,
    is_balanced=False,
    steps=(args.rounds or 100) * steps,
    first_look=steps - 1,
    look_every=steps,
    is_measured_on_batch=False,
    validation_images=None,
    patience=args.patience or 6,
    l2=10.0 if args.l2 is None else args.l2,
  )


def check(argv: Sequence[str]) -> tuple[argparse.Namespace, RetrainRequest]:
  """Reads the arguments and looks whether they can be used, whatever the input is; nothing is made or written.

  Raises:
    InputError: one cannot.
  """
  args = refuse_unknown(make_parser(), argv)
  refuse_other_presets(args)
  return args, retrain_request(args)
