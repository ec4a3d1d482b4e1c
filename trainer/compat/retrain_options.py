"""What `train --preset retrain` can be asked for as in `retrain.py`: flags, checked before any work. No TensorFlow."""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from typing import Any, NamedTuple

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import FINAL_TENSOR
from beam_retrain.transforms.core.run.cli import positive_int

_VERBOSITIES = ("DEBUG", "INFO", "WARN", "ERROR", "FATAL")
_PATHS = ("summaries_dir", "intermediate_output_graphs_dir", "checkpoint_path")
_SETTINGS = (
  "eval_step_interval",
  "validation_batch_size",
  "summaries_dir",
  "intermediate_output_graphs_dir",
  "intermediate_store_frequency",
  "checkpoint_path",
  "final_tensor_name",
)
NAMES = (*_SETTINGS, "logging_verbosity")

# TensorFlow's own rule: tensorflow/core/framework/node_def_util.cc, IsValidNodeName.
_OPERATION = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_./-]*(>[A-Za-z0-9.][A-Za-z0-9_./-]*)*")
# What `export.frozen_graph` calls its input, and what everything inside is below; to TensorFlow, a and A are one name.
_TAKEN = ("placeholder", "retrained")


class RetrainRequest(NamedTuple):
  """Attributes:
  eval_step_interval: steps between two looks as `retrain.py` took them, the first after step 0; None: as `train` does.
  validation_images: how many of the validation images are drawn for a look; None: all.
  summaries_dir: folder for the curves; None: the output's own.
  intermediate_dir: folder for the graphs of the training so far.
  intermediate_every: one after so many steps; 0: none.
  checkpoint_path: what the names of the checkpoint's files begin with; None: there is none.
  final_tensor_name: operation of the frozen graph that gives the scores.
  is_quiet: the training says nothing.
  settings: flag -> value, of what was given and decides what is written; JSON values.
  """

  eval_step_interval: int | None
  validation_images: int | None
  summaries_dir: str | None
  intermediate_dir: str
  intermediate_every: int
  checkpoint_path: str | None
  final_tensor_name: str
  is_quiet: bool
  settings: dict[str, Any]


def add_retrain_flags(parser: argparse.ArgumentParser) -> None:
  """Adds the flags that `retrain_request` reads; each is None where it is not given."""
  group = parser.add_argument_group(
    "as retrain.py",
    "--preset retrain only. Names and meanings are retrain.py's; none of these changes what is learned.",
  )
  group.add_argument(
    "--eval_step_interval",
    type=positive_int,
    metavar="N",
    help="look after the steps 0, N, 2N, ... and the last, as retrain.py does: print accuracy and cross entropy on"
    " the step's own batch, and accuracy on validation images, in retrain.py's three lines; TensorBoard's training"
    " curve then has a point for every step (default: after every 100 steps, on all validation images, in one line)",
  )
  group.add_argument(
    "--validation_batch_size",
    type=_images_or_all,
    metavar="N",
    help="draw so many validation images for each look, uniformly over the labels, with replacement, others each"
    " time; -1: all of them, once each (default -1)",
  )
  group.add_argument(
    "--summaries_dir",
    metavar="DIR",
    help="TensorBoard's curves, in train/ and validation/ below it (default: logs in --output). Event files"
    " (events.out.tfevents.*) of an earlier run are removed there first, nothing else is",
  )
  group.add_argument(
    "--intermediate_store_frequency",
    type=_steps_or_never,
    metavar="N",
    help="after every N steps, write the graph as trained so far, frozen, as intermediate_<step>.pb into"
    " --intermediate_output_graphs_dir; 0: never (default 0)",
  )
  group.add_argument(
    "--intermediate_output_graphs_dir", metavar="DIR", help="folder for intermediate graphs; made where it is not there"
  )
  group.add_argument(
    "--checkpoint_path",
    metavar="PREFIX",
    help="write the head as a TensorFlow checkpoint too, with each intermediate graph and at the end: PREFIX.index and"
    " PREFIX.data-00000-of-00001, for tf.train.load_checkpoint(PREFIX); the variables are retrain.py's"
    " final_retrain_ops/weights/final_weights and final_retrain_ops/biases/final_biases, to be used on bottlenecks as"
    " the trunk gives them",
  )
  group.add_argument(
    "--final_tensor_name",
    metavar="NAME",
    help=f"operation of retrained_graph.pb that gives the scores (default {FINAL_TENSOR}); label_image calls it"
    " --output_layer",
  )
  group.add_argument(
    "--logging_verbosity",
    choices=_VERBOSITIES,
    help="WARN, ERROR and FATAL: nothing is printed of the training but how it ended (default INFO)",
  )


def _images_or_all(text: str) -> int:
  value = int(text)
  if value == 0 or value < -1:
    raise argparse.ArgumentTypeError(f"{text} is neither at least 1 nor -1, all of them")
  return value


def _steps_or_never(text: str) -> int:
  value = int(text)
  if value < 0:
    raise argparse.ArgumentTypeError(f"{text} is neither at least 1 nor 0, never")
  return value


def retrain_request(args: argparse.Namespace) -> RetrainRequest:
  """Reads the flags. Nothing is made or written.

  Args:
    args: with the flags of `add_retrain_flags`.

  Raises:
    InputError: flags that do not go together, a folder or file that cannot be written, or a name that TensorFlow does
      not take.
  """
  folder, every = args.intermediate_output_graphs_dir, args.intermediate_store_frequency
  if every and folder is None:
    raise InputError(
      f"--intermediate_store_frequency {every}: give with --intermediate_output_graphs_dir where the graphs go."
    )
  if folder is not None and every is None:
    raise InputError(
      f"--intermediate_output_graphs_dir {folder}: give with --intermediate_store_frequency after how many steps a"
      " graph is written there, or 0 for never."
    )
  if args.summaries_dir is not None:
    for path in (args.summaries_dir, *(os.path.join(args.summaries_dir, name) for name in ("train", "validation"))):
      _refuse_unwritable("summaries_dir", args.summaries_dir, path)
  if every:
    _refuse_unwritable("intermediate_output_graphs_dir", folder, folder)
  prefix = args.checkpoint_path
  if prefix is not None:
    if os.path.isdir(prefix) or prefix.endswith(os.sep):
      raise InputError(
        f"--checkpoint_path {prefix} is a folder: give what the files' names begin with, such as"
        f" {os.path.join(prefix, 'checkpoint')}."
      )
    _refuse_unwritable("checkpoint_path", prefix, os.path.dirname(prefix))
  name = FINAL_TENSOR if args.final_tensor_name is None else args.final_tensor_name
  _refuse_final_tensor(name)
  given = {flag: value for flag in _SETTINGS if (value := getattr(args, flag)) is not None}
  images = args.validation_batch_size
  return RetrainRequest(
    eval_step_interval=args.eval_step_interval,
    validation_images=None if images == -1 else images,
    summaries_dir=args.summaries_dir,
    intermediate_dir=folder or "",
    intermediate_every=every or 0,
    checkpoint_path=prefix,
    final_tensor_name=name,
    is_quiet=args.logging_verbosity in ("WARN", "ERROR", "FATAL"),
    settings={flag: os.path.abspath(value) if flag in _PATHS else value for flag, value in given.items()},
  )


def _refuse_unwritable(flag: str, given: str, folder: str) -> None:
  """Tries to write where `folder` is, or where it would be made; nothing is left there."""
  if not given or "://" in given:
    raise InputError(f"--{flag} {given or repr('')} is no path on a local disk: give another.")
  existing = os.path.abspath(folder)
  while not os.path.lexists(existing):
    existing = os.path.dirname(existing)
  try:
    if not os.path.isdir(existing):
      raise InputError(f"--{flag} {given} cannot be written: {existing} is not a folder; give another.")
    with tempfile.TemporaryFile(dir=existing):
      pass
  except OSError as error:
    raise InputError(f"--{flag} {given} cannot be written: {existing}: {error.strerror}; give another.") from error


def _refuse_final_tensor(name: str) -> None:
  if not _OPERATION.fullmatch(name) or name.endswith("/"):
    raise InputError(
      f"--final_tensor_name {name!r} is no name for a TensorFlow operation: letters, digits and _ . / - make one, and"
      " it begins with a letter or a digit."
    )
  if name.split("/")[0].lower() in _TAKEN:
    raise InputError(
      f"--final_tensor_name {name} is taken: the graph's input is Placeholder, and all between is below retrained/;"
      " give another."
    )
