"""`train`: a softmax head on stored bottlenecks, exported as one model with everything inside."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from beam_retrain.trainer.export.tflite_flags import tflite_request
from beam_retrain.trainer.options import check, make_parser, make_plan
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.head import HEAD_FILE, encode_head
from beam_retrain.transforms.core.records.schema import (
  FROZEN_GRAPH_FILE,
  LABELS_FILE,
  RETRAINED_LABELS_FILE,
  TESTING,
  TRAINING,
  VALIDATION,
)
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.cli import DONE, GATE_MISSED, guarded
from beam_retrain.transforms.core.run.output_dir import OutputDir
from beam_retrain.transforms.core.run.run_info import RunInfo, describe_run, read_info, read_labels, write_labels
from beam_retrain.transforms.core.system import local_files
from beam_retrain.transforms.core.system.tensorflow import load_tensorflow

__all__ = ["check", "make_parser", "run"]


def run(argv: Sequence[str], copies: Mapping[str, str] | None = None) -> int:
  """Trains, exports, and says how good the model is.

  Args:
    argv: the arguments.
    copies: `--input` or `--output`, as given there -> the local folder that is read or written in its place.

  Raises:
    InputError: an argument or an input cannot be used.
  """
  args, asked = check(argv)
  bottlenecks, output = (_local(path, copies or {}) for path in (args.input, args.output))
  info = read_info(bottlenecks, "bottlenecks")
  percentages = _percentages(args, info)
  labels = read_labels(bottlenecks)
  lite = tflite_request(args, info)

  load_tensorflow()
  import tensorflow as tf

  from beam_retrain.trainer.compat.callbacks import BesideTraining
  from beam_retrain.trainer.export import frozen_graph, output_dir, saved_model, tflite
  from beam_retrain.trainer.export.numpy_head import plain_head
  from beam_retrain.trainer.export.stored_trunk import StoredTrunk
  from beam_retrain.trainer.export.transform_graph import load_transform
  from beam_retrain.trainer.fit import training
  from beam_retrain.trainer.fit.data import load_bottlenecks

  trunk = info.trunk
  dimensions = trunk.dimensions
  transform = load_transform(os.path.join(bottlenecks, "transform"), labels, dimensions)
  data = load_bottlenecks(
    bottlenecks, labels=labels, dimensions=dimensions, percentages=percentages, transform=transform
  )
  # Found before the training: what is missing is told first.
  calibration = tflite.draw_calibration(bottlenecks, percentages, lite) if lite.int8_file else []
  plan = make_plan(args, asked, len(data.learned_rows))
  counts = ", ".join(f"{len(data.rows[split]):,} {split}" for split in (TRAINING, VALIDATION, TESTING))
  print(f"{counts} images of {len(labels)} labels, {dimensions:,} numbers each, from {_describe_trunk(trunk.handle)}")
  if variants := len(data.learned_rows) - len(data.rows[TRAINING]):
    print(f"and {variants:,} distorted variants of the training images, which are drawn from, too")

  settings = {
    "preset": args.preset,
    **dataclasses.asdict(plan),
    **asked.settings,
    "seed": args.seed,
    **percentages.to_settings(),
    "bottlenecks_sha256": data.sha256,
  }
  run_info = describe_run(
    output_dir.STAGE,
    settings,
    argv,
    labels=labels,
    trunk=dataclasses.replace(trunk, bottlenecks_request=info.request),
    preprocessing=info.settings.get("preprocessing"),
    retrain_names=bool(info.settings.get("retrain_names")),
    has_splits=bool(info.has_splits),
  )
  claimed = OutputDir(output)
  goes_on = claimed.claim(run_info, owned=output_dir.OWNED, work_folder=output_dir.CHECKPOINTS)
  if goes_on:
    print(f"going on in {args.output} where an earlier run of the same request was")

  @functools.cache
  def stored_trunk() -> StoredTrunk:
    return StoredTrunk(os.path.join(bottlenecks, "trunk"))

  def assemble(weights: frozen_graph.Weights) -> tf.Module:
    return saved_model.build_exported(
      labels=labels,
      transform=transform,
      weights=weights,
      input_px=trunk.input_px,
      dimensions=dimensions,
    )

  freeze = frozen_graph.freeze_for_any_head(
    lambda weights: frozen_graph.freeze_behind(
      stored_trunk(), assemble(weights).score_bottlenecks, asked.final_tensor_name
    ),
    dimensions,
    len(labels),
  )
  beside = BesideTraining(
    asked,
    plan,
    logs=os.path.join(output, output_dir.LOGS),
    goes_on=goes_on,
    validation_images=len(data.rows[VALIDATION]),
    freeze=freeze,
    flatten=lambda head: plain_head(transform, head, dimensions),
    stream=sys.stdout,
  )
  head, rounds = training.train(
    data,
    plan,
    seed=args.seed,
    checkpoint=os.path.join(output, output_dir.CHECKPOINTS, "head.npz"),
    on_step=beside.on_step,
    on_round=beside.on_round,
  )
  beside.finish(head)

  metrics = _measure(head, data, rounds, seed=args.seed)
  plain = plain_head(transform, head, dimensions)
  exported = assemble(head.get_weights())
  with local_files.folder_becomes(os.path.join(output, output_dir.SAVED_MODEL)) as folder:
    saved_model.save_exported(exported, folder, stored_trunk())
  local_files.write_bytes(os.path.join(output, FROZEN_GRAPH_FILE), freeze(head.get_weights()))
  local_files.write_bytes(os.path.join(output, HEAD_FILE), encode_head(plain))
  output_dir.copy_prepared(os.path.join(bottlenecks, "trunk"), output)
  for name in (LABELS_FILE, RETRAINED_LABELS_FILE):
    write_labels(output, labels, name=name)
  if lite.float_file or lite.int8_file:
    metrics["tflite"] = tflite.write_tflite(
      lite,
      output=output,
      embed=tf.saved_model.load(stored_trunk().folder).embed,
      head=plain,
      input_px=trunk.input_px,
      labels=labels,
      calibration=calibration,
      bottlenecks=bottlenecks,
    )
  local_files.write_text(os.path.join(output, output_dir.METRICS), json.dumps(metrics, indent=2, sort_keys=True) + "\n")
  claimed.complete()
  return _report(metrics, args)


def _local(path: str, copies: Mapping[str, str]) -> str:
  local = copies.get(path, path)
  if "://" in local:
    raise InputError(f"{local} is remote: `beam-retrain train` brings such a folder here, the trainer alone does not.")
  return local


def _percentages(args: argparse.Namespace, info: RunInfo) -> SplitPercentages:
  try:
    planned = SplitPercentages.from_settings(info.settings)
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


def _describe_trunk(handle: str) -> str:
  stand_in = " (the small stand-in that ships with beam-retrain; for real work, use --trunk inception_v3)"
  return f"the trunk {handle}{stand_in if handle == 'bundled' else ''}"


def _measure(head: Any, data: Any, rounds: Sequence[Any], seed: int) -> dict[str, Any]:
  """Returns the contents of `metrics.json`: what the exported weights give on each split.

  Raises:
    InputError: the loss on one of them is not finite.
  """
  from beam_retrain.trainer.fit import training

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
    if score.images and not math.isfinite(score.loss):
      raise training.diverged(rounds[-1].number, rounds[-1].learning_rate)
    metrics[f"{split}_images"] = score.images
    metrics[f"{split}_accuracy"] = score.accuracy if score.images else None
    metrics[f"{split}_loss"] = score.loss if score.images else None
  return metrics


def _report(metrics: dict[str, Any], args: argparse.Namespace) -> int:
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
