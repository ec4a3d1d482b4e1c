"""`train`: a softmax head on stored bottlenecks, exported as one model with everything inside."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import Any

from trainer import retrain_flags
from trainer.plan import Plan, steps_in_round
from trainer.retrain_flags import RetrainRequest, retrain_request
from trainer.tflite_flags import add_tflite_flags, tflite_request
from transforms.core.command_line import (
  DONE,
  GATE_MISSED,
  ArgumentParser,
  fraction,
  guarded,
  positive_int,
  refuse_unknown,
)
from transforms.core.errors import InputError
from transforms.core.finished import read_info, read_labels
from transforms.core.head import HEAD_FILE, Head, encode_head
from transforms.core.quiet_tensorflow import load_tensorflow
from transforms.core.schema import COMPLETED_FILE, LABELS_FILE, TESTING, TRAINING, VALIDATION
from transforms.core.splits import SplitPercentages

_STEPS_PER_LOOK = 100  # of --preset retrain, where --eval_step_interval is not given

_DESCRIPTION = """\
Trains a softmax head on the bottlenecks that `beam-retrain bottlenecks` wrote, and exports one SavedModel that takes
picture bytes and gives labels. A run that was killed goes on where it was, if started again with the same arguments.

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
  parser.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, same model (default 0)")
  parser.add_argument(
    "--assert_accuracy_at_least",
    type=fraction,
    metavar="A",
    help="exit code 1 where the testing images are predicted less accurately than this, 0..1; all is written first",
  )
  retrain_flags.add_retrain_flags(parser)
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


_ONLY_OF_PRESET = {
  **dict.fromkeys(("rounds", "patience", "l2"), "adam"),
  **dict.fromkeys(("training_steps", *retrain_flags.NAMES), "retrain"),
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


def run(argv: Sequence[str]) -> int:
  """Trains, exports, and says how good the model is.

  Raises:
    InputError: an argument or an input cannot be used.
  """
  args = refuse_unknown(make_parser(), argv)
  refuse_other_presets(args)
  asked = retrain_request(args)
  info = read_info(args.input, "bottlenecks")
  percentages = _percentages(args, info)
  labels = read_labels(args.input)
  lite = tflite_request(args, info)

  load_tensorflow()
  import tensorflow as tf

  from trainer import output_folder, progress, tflite, training
  from trainer.data import load_bottlenecks
  from trainer.plain_head import plain_head
  from trainer.transform_graph import load_transform

  dimensions = int(info["trunk"]["dimensions"])
  transform = load_transform(os.path.join(args.input, "transform"), labels, dimensions)
  data = load_bottlenecks(
    args.input, labels=labels, dimensions=dimensions, percentages=percentages, transform=transform
  )
  # Found before the training: what is missing is told first.
  calibration = tflite.draw_calibration(args.input, percentages, lite) if lite.int8_file else []
  plan = make_plan(args, asked, len(data.rows[TRAINING]))
  counts = ", ".join(f"{len(data.rows[split]):,} {split}" for split in (TRAINING, VALIDATION, TESTING))
  print(f"{counts} images of {len(labels)} labels, {dimensions:,} numbers each, from {_describe_trunk(info)}")

  settings = {
    "preset": args.preset,
    **dataclasses.asdict(plan),
    **asked.settings,
    "seed": args.seed,
    **percentages.to_settings(),
    "bottlenecks_sha256": data.sha256,
  }
  trunk = {**info["trunk"], "bottlenecks_request": info["request"]}
  goes_on = output_folder.claim(
    args.output,
    settings,
    argv,
    labels=labels,
    trunk=trunk,
    preprocessing=info["settings"].get("preprocessing"),
    retrain_names=bool(info["settings"].get("retrain_names")),
  )
  if goes_on:
    print(f"going on in {args.output} where an earlier run of the same request was")

  line = progress.ProgressLine(sys.stdout, plan.rounds)
  summaries = progress.Summaries(os.path.join(args.output, output_folder.LOGS))

  def on_round(step: int, finished: training.Round) -> None:
    line.show(finished)
    summaries.write(step + 1, finished)

  head, rounds = training.train(
    data,
    plan,
    seed=args.seed,
    checkpoint=os.path.join(args.output, output_folder.CHECKPOINTS, "head.npz"),
    on_round=on_round,
  )
  line.close()
  summaries.close()

  metrics = _measure(head, data, rounds, seed=args.seed)
  trunk_model = tf.saved_model.load(os.path.join(args.input, "trunk"))
  plain = plain_head(transform, head, dimensions)
  _export(args.output, labels, trunk_model.embed, transform, head, plain, int(trunk["input_px"]))
  if lite.float_file or lite.int8_file:
    metrics["tflite"] = tflite.write_tflite(
      lite,
      output=args.output,
      embed=trunk_model.embed,
      head=plain,
      input_px=int(trunk["input_px"]),
      labels=labels,
      calibration=calibration,
      bottlenecks=args.input,
    )
  output_folder.write_json(os.path.join(args.output, output_folder.METRICS), metrics)
  output_folder.write_bytes(os.path.join(args.output, COMPLETED_FILE), b"")
  return _report(metrics, args, info)


def _percentages(args: argparse.Namespace, info: dict[str, Any]) -> SplitPercentages:
  try:
    planned = SplitPercentages.from_settings(info["settings"])
  except ValueError as error:
    raise InputError(f"{args.input} was made by another version of beam-retrain: {error}: make it again.") from error
  validation = planned.validation if args.validation_percentage is None else args.validation_percentage
  if validation != planned.validation and planned.legacy_root is not None:
    raise InputError(
      f"--validation_percentage {validation:g}: with --split_hash legacy it decides which images are for testing too:"
      f" leave it out, or run `bottlenecks` with it (it was {planned.validation:g} there)."
    )
  try:
    return dataclasses.replace(planned, validation=validation)
  except ValueError as error:
    raise InputError(f"--validation_percentage: {error}.") from error


def _describe_trunk(info: dict[str, Any]) -> str:
  handle = info["trunk"]["handle"]
  stand_in = " (the small stand-in that ships with beam-retrain; for real work, use --trunk inception_v3)"
  return f"the trunk {handle}{stand_in if handle == 'bundled' else ''}"


def _measure(head: Any, data: Any, rounds: Sequence[Any], seed: int) -> dict[str, Any]:
  """Returns the contents of `metrics.json`: what the exported weights give on each split."""
  from trainer import training

  metrics: dict[str, Any] = {
    "labels": len(data.labels),
    "seed": seed,
    "rounds_trained": len(rounds),
    "best_round": training.best_round(rounds).number,
    "steps_trained": sum(one.steps for one in rounds),
    "rounds": [dataclasses.asdict(one) for one in rounds],
  }
  for split in (TRAINING, VALIDATION, TESTING):
    score = training.evaluate(head, data, split)
    metrics[f"{split}_images"] = score.images
    metrics[f"{split}_accuracy"] = score.accuracy if score.images else None
    metrics[f"{split}_loss"] = score.loss if score.images else None
  return metrics


def _export(
  output: str, labels: Sequence[str], embed: Any, transform: Any, head: Any, plain: Head, input_px: int
) -> None:
  from trainer import export, frozen_graph, output_folder

  exported = export.build_exported(
    labels=labels, embed=embed, transform=transform, head=head, input_px=input_px, dimensions=len(plain.scale)
  )
  output_folder.replace_folder(
    os.path.join(output, output_folder.SAVED_MODEL), lambda folder: export.save_exported(exported, folder)
  )
  graph = frozen_graph.freeze_scores(exported.score_images)
  output_folder.write_bytes(
    os.path.join(output, output_folder.FROZEN_GRAPH), graph.SerializeToString(deterministic=True)
  )
  output_folder.write_bytes(os.path.join(output, HEAD_FILE), encode_head(plain))
  lines = "".join(f"{label}\n" for label in labels).encode()
  for name in (LABELS_FILE, output_folder.RETRAINED_LABELS):
    output_folder.write_bytes(os.path.join(output, name), lines)


def _report(metrics: dict[str, Any], args: argparse.Namespace, info: dict[str, Any]) -> int:
  tested = metrics["testing_accuracy"]
  where = f"{args.output}/saved_model"
  if tested is None:
    print(
      f"validation accuracy {metrics['validation_accuracy']:.2%}; there are no testing images; the model is in {where}"
    )
  else:
    print(f"testing accuracy {tested:.2%} of {metrics['testing_images']:,} images; the model is in {where}")
  for kind, lite in metrics.get("tflite", {}).items():
    path = os.path.normpath(os.path.join(args.output, lite["file"]))
    of = f"testing accuracy {lite['testing_accuracy']:.2%}, " if lite.get("testing_accuracy") is not None else ""
    print(f"TensorFlow Lite, {kind}: {of}{lite['bytes']:,} bytes, in {path}")
  wanted = args.assert_accuracy_at_least
  if wanted is None:
    return DONE
  if tested is None or tested < wanted:
    found = "there are no testing images" if tested is None else f"testing accuracy is {tested:.4f}"
    print(f"beam-retrain: {found}, --assert_accuracy_at_least asked for {wanted:g}.", file=sys.stderr)
    return GATE_MISSED
  return DONE


def main() -> None:
  sys.exit(guarded(run, sys.argv[1:]))


if __name__ == "__main__":
  main()
