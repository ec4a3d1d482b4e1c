"""The command line of `retrain`: `retrain.py`'s 25 flags and ours."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence

from beam_retrain.pipelines.options.flags import DistortionFlags, precision_option, runtime_option
from beam_retrain.pipelines.options.request import separate_beam_options
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import FINAL_TENSOR
from beam_retrain.transforms.core.records.splits import SPLIT_HASHES, STABLE
from beam_retrain.transforms.core.run.argparse_internals import FlagGroup
from beam_retrain.transforms.core.run.flags import (
  ArgumentParser,
  add_option,
  max_bad_option,
  positive_int,
  positive_number,
  seed_number,
  whole_number,
)
from beam_retrain.transforms.core.system.imports import load_command

PROG = "beam-retrain retrain"
_HUB_MODULE = "https://tfhub.dev/google/imagenet/inception_v3/feature_vector/3"
_whole = whole_number()
_percent = whole_number(0)
_VERBOSITIES = ("DEBUG", "INFO", "WARN", "ERROR", "FATAL")

_DESCRIPTION = """\
Does what retrain.py did, on Beam: trains a classifier on a folder of images per label. Takes all flags of retrain.py,
with its names, defaults and meanings; runs `bottlenecks`, `train --preset retrain` and `evaluate`, and writes the
graph, the labels, the summaries, the checkpoint and the SavedModel where retrain.py wrote them.

Started again, it resumes: finished and unchanged stages are kept, and the trunk runs only over images that were added.
Text files that retrain.py cached in --bottleneck_dir are used, too."""

_EPILOG = """\
example, the command line of the article:
  beam-retrain retrain --bottleneck_dir=bottlenecks/ --how_many_training_steps=500 --model_dir=inception/ \\
    --summaries_dir=training_summaries/basic --output_graph=retrained_graph.pb \\
    --output_labels=retrained_labels.txt --image_dir=mnist_jpg/training

Any Beam option may follow, for example --runner=FlinkRunner, or
  --direct_running_mode=multi_processing --direct_num_workers=2   for two processes on this machine."""


def make_parser() -> argparse.ArgumentParser:
  parser = ArgumentParser(prog=PROG, description=_DESCRIPTION, epilog=_EPILOG)
  _add_flags_of_script(parser.add_argument_group("flags of retrain.py"))
  _add_own_flags(parser.add_argument_group("flags that retrain.py did not have"))
  return parser


def run(argv: Sequence[str]) -> int:
  """Runs a command line; loads Beam when its flags are right."""
  separate_beam_options(make_parser(), argv)
  code: int = load_command("beam_retrain.pipelines.compat.retrain").run(argv)
  return code


def _add_flags_of_script(group: FlagGroup) -> None:
  def add(name: str, type: Callable[[str], object], default: object, metavar: str, what: str) -> None:
    shown = f"{what} (default: {'none' if default == '' else '%(default)s'})"
    group.add_argument(f"--{name}", type=type, default=default, metavar=metavar, help=shown)

  group.add_argument("--image_dir", metavar="DIR", help="folder of folders of images, one per label; required")
  add("output_graph", _path, "/tmp/output_graph.pb", "FILE", "the trained graph, frozen")
  add("intermediate_output_graphs_dir", str, "/tmp/intermediate_graph/", "DIR", "folder for intermediate_<step>.pb")
  add("intermediate_store_frequency", _frequency, 0, "N", "steps between two of these graphs; 0: none")
  add("output_labels", _path, "/tmp/output_labels.txt", "FILE", "the labels, one per line, in the scores' order")
  add("summaries_dir", _path, "/tmp/retrain_logs", "DIR", "TensorBoard's summaries, in train/ and validation/")
  add("how_many_training_steps", positive_int, 4000, "N", "steps of training")
  add("learning_rate", positive_number, 0.01, "R", "learning rate of gradient descent")
  add("testing_percentage", _percentage, 10, "P", "percent of the images for the test")
  add("validation_percentage", _percentage, 10, "P", "percent of the images for validation")
  add("eval_step_interval", positive_int, 10, "N", "steps between evaluations")
  add("train_batch_size", positive_int, 100, "N", "images per step")
  add("test_batch_size", _number_or_all, -1, "N", "images of the test, drawn uniformly over the labels; -1: all")
  add("validation_batch_size", _number_or_all, 100, "N", "images of each validation; -1: all")
  group.add_argument("--print_misclassified_test_images", action="store_true", help="list them at the end")
  add("bottleneck_dir", _path, "/tmp/bottleneck", "DIR", "where bottlenecks are kept")
  add("final_tensor_name", str, FINAL_TENSOR, "NAME", "operation of the graph that returns the scores")
  group.add_argument("--flip_left_right", action="store_true", help="distort: mirror half of the training images")
  add("random_crop", _percent, 0, "PERCENT", "distort: margin to crop off at random")
  add("random_scale", _percent, 0, "PERCENT", "distort: largest random enlargement")
  add("random_brightness", _percent, 0, "PERCENT", "distort: largest random change of brightness")
  add("tfhub_module", _trunk, _HUB_MODULE, "TRUNK", "any --trunk of `beam-retrain bottlenecks`")
  add("saved_model_dir", str, "", "DIR", "folder for a SavedModel of the whole model; new or empty")
  group.add_argument(
    "--logging_verbosity", choices=_VERBOSITIES, default="INFO", help="verbosity (default: %(default)s)"
  )
  add("checkpoint_path", _path, "/tmp/_retrain_checkpoint", "PREFIX", "a TensorFlow checkpoint of the head")


def _add_own_flags(group: FlagGroup) -> None:
  group.add_argument(
    "--work_dir",
    type=_path,
    metavar="DIR",
    help="folder for the stages' own outputs: bottlenecks/, train/, evaluate/ (default: beam_retrain in"
    " --bottleneck_dir)",
  )
  group.add_argument(
    "--split_hash",
    choices=SPLIT_HASHES,
    default=STABLE,
    help="legacy: retrain.py's splits, if --image_dir is typed the same; stable: the same splits wherever the folder"
    " is (default: %(default)s)",
  )
  group.add_argument(
    "--distortion_copies", type=positive_int, metavar="K", help="distorted variants of each training image"
  )
  group.add_argument("--distortion_seed", type=_whole, metavar="N", help="seed of the variants")
  group.add_argument(
    "--on_leak",
    choices=("warn", "drop", "fail"),
    help="what to do about identical images with two labels, or in training and testing (default: warn)",
  )
  group.add_argument(
    "--seed", type=seed_number, default=0, metavar="N", help="same seed, same model (default: %(default)s)"
  )
  group.add_argument("--trunk_weights", metavar="FILE", help="local weights of --tfhub_module=keras:...")
  group.add_argument("--trunk_input_px", type=positive_int, metavar="PX", help="input size of a trunk that takes any")
  add_option(group, "precision", precision_option(of_model=False))
  add_option(group, "runtime", runtime_option(of_model=False))
  group.add_argument("--model_dir", metavar="DIR", help="does nothing, as in retrain.py: ignored with a warning")
  add_option(group, "max_bad_fraction", max_bad_option())


def check_flags(flags: argparse.Namespace) -> None:
  """Checks what the flags alone show."""
  if not flags.image_dir:
    raise InputError(f"{PROG}: --image_dir is missing: give a folder of folders of images, one per label.")
  if flags.testing_percentage + flags.validation_percentage >= 100:
    raise InputError(
      f"{PROG}: --testing_percentage {flags.testing_percentage} and --validation_percentage"
      f" {flags.validation_percentage} leave nothing to train on: their sum must be below 100."
    )
  names = [field.name for field in dataclasses.fields(DistortionFlags)]
  _ = DistortionFlags(**{name: getattr(flags, name) for name in names}).distortions  # validates them
  for name in ("image_dir", "output_graph", "output_labels", "bottleneck_dir", "saved_model_dir", "work_dir"):
    path = getattr(flags, name)
    if path and "://" in path:
      raise InputError(f"{PROG}: --{name} {path} is remote: give a path on a local disk.")


def work_dir(flags: argparse.Namespace) -> str:
  return os.path.abspath(flags.work_dir or os.path.join(flags.bottleneck_dir, "beam_retrain"))


def _not_empty(what: str, text: str) -> str:
  if not text:
    raise argparse.ArgumentTypeError(f"the {what} is empty")
  return text


_path, _trunk = (functools.partial(_not_empty, what) for what in ("path", "trunk"))


def _percentage(text: str) -> int:
  if not 1 <= (value := _whole(text)) <= 98:
    raise argparse.ArgumentTypeError(f"{value} leaves one of training, validation and testing without images")
  return value


def _frequency(text: str) -> int:
  """As in `retrain.py`, a negative number means never."""
  return max(_whole(text), 0)


def _number_or_all(text: str) -> int:
  """As in `retrain.py`, a negative number means all."""
  if (value := _whole(text)) == 0:
    raise argparse.ArgumentTypeError("0 is too few; -1 takes all images")
  return max(value, -1)
