"""`retrain.py`'s options of `train --preset retrain`. No TensorFlow."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import FINAL_TENSOR
from beam_retrain.transforms.core.run.flags import option, positive_int, whole_number

if TYPE_CHECKING:
  from beam_retrain.trainer.export.exporter import Exporter
  from beam_retrain.trainer.fit.callbacks import TrainingCallback

_PATHS = ("summaries_dir", "intermediate_output_graphs_dir", "checkpoint_path")

# TensorFlow's own rule: tensorflow/core/framework/node_def_util.cc, IsValidNodeName.
_OPERATION = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_./-]*(>[A-Za-z0-9.][A-Za-z0-9_./-]*)*")
# Used by `export.frozen_graph`: its input, and the prefix of everything inside. TensorFlow ignores case here.
_RESERVED = ("placeholder", "retrained")

_GROUP = (
  "as retrain.py",
  "--preset retrain only. Names and meanings are retrain.py's; none of these changes the trained weights.",
)


def _at_least_1_or(special: int, meaning: str) -> Callable[[str], int]:
  def parse(text: str) -> int:
    value = whole_number()(text)
    if value < 1 and value != special:
      raise argparse.ArgumentTypeError(f"{text} is not at least 1, or {special} for {meaning}")
    return value

  return parse


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrainOptions:
  """The flags of the same names; None if they are left out."""

  eval_step_interval: int | None = option(
    None,
    "evaluate after the steps 0, N, 2N, ... and the last, as retrain.py does: print accuracy and cross entropy on the"
    " step's own batch, and accuracy on validation images, in retrain.py's three lines; TensorBoard's training curve"
    " then has a point for every step (default: after every 100 steps, on all validation images, in one line)",
    type=positive_int,
    metavar="N",
    group=_GROUP,
  )
  validation_batch_size: int | None = option(
    None,
    "number of validation images drawn for each evaluation, uniformly over the labels, with replacement, different ones"
    " each time; -1: all of them, once each (default -1)",
    type=_at_least_1_or(-1, "all"),
    metavar="N",
    group=_GROUP,
  )
  summaries_dir: str | None = option(
    None,
    "TensorBoard's curves, in train/ and validation/ below it (default: logs in --output). Event files"
    " (events.out.tfevents.*) of an earlier run are removed there first, nothing else is",
    metavar="DIR",
    group=_GROUP,
  )
  intermediate_output_graphs_dir: str | None = option(
    None, "folder for intermediate graphs; created if needed", metavar="DIR", group=_GROUP
  )
  intermediate_store_frequency: int | None = option(
    None,
    "after every N steps, write the graph as trained so far, frozen, as intermediate_<step>.pb into"
    " --intermediate_output_graphs_dir; 0: never (default 0)",
    type=_at_least_1_or(0, "never"),
    metavar="N",
    group=_GROUP,
  )
  checkpoint_path: str | None = option(
    None,
    "also write the head as a TensorFlow checkpoint, with each intermediate graph and at the end: PREFIX.index and"
    " PREFIX.data-00000-of-00001, for tf.train.load_checkpoint(PREFIX). The variables are those of retrain.py,"
    " final_retrain_ops/weights/final_weights and final_retrain_ops/biases/final_biases; they apply to bottlenecks as"
    " the trunk computes them",
    metavar="PREFIX",
    group=_GROUP,
  )
  final_tensor_name: str | None = option(
    None,
    f"operation of retrained_graph.pb that returns the scores (default {FINAL_TENSOR}); label_image calls it"
    " --output_layer",
    metavar="NAME",
    group=_GROUP,
  )
  logging_verbosity: str | None = option(
    None,
    "WARN, ERROR and FATAL print only the result of the training (default INFO)",
    choices=("DEBUG", "INFO", "WARN", "ERROR", "FATAL"),
    group=_GROUP,
  )

  @property
  def validation_images(self) -> int | None:
    return None if self.validation_batch_size == -1 else self.validation_batch_size

  @property
  def output_name(self) -> str:
    return FINAL_TENSOR if self.final_tensor_name is None else self.final_tensor_name

  @property
  def is_quiet(self) -> bool:
    return self.logging_verbosity in ("WARN", "ERROR", "FATAL")

  def given_options(self) -> list[str]:
    return [field.name for field in dataclasses.fields(RetrainOptions) if getattr(self, field.name) is not None]

  def option_settings(self) -> dict[str, str | int]:
    """Returns the options that decide the output."""
    values = {name: getattr(self, name) for name in self.given_options() if name != "logging_verbosity"}
    return {name: os.path.abspath(value) if name in _PATHS else value for name, value in values.items()}

  def validate_options(self) -> None:
    """Checks the options; leaves nothing on the disk."""
    folder, every = self.intermediate_output_graphs_dir, self.intermediate_store_frequency
    if every and folder is None:
      raise InputError(
        f"--intermediate_store_frequency {every} needs a folder for the graphs: add --intermediate_output_graphs_dir."
      )
    if folder is not None and every is None:
      raise InputError(
        f"--intermediate_output_graphs_dir {folder} needs the number of steps between two graphs, or 0 for none: add"
        " --intermediate_store_frequency."
      )
    if self.summaries_dir is not None:
      for name in ("", "train", "validation"):
        _validate_writable("summaries_dir", self.summaries_dir, os.path.join(self.summaries_dir, name))
    if every:
      _validate_writable("intermediate_output_graphs_dir", str(folder), str(folder))
    prefix = self.checkpoint_path
    if prefix is not None:
      if os.path.isdir(prefix) or prefix.endswith(os.sep):
        raise InputError(
          f"--checkpoint_path {prefix} is a folder: give a prefix for the files' names, such as"
          f" {os.path.join(prefix, 'checkpoint')}."
        )
      _validate_writable("checkpoint_path", prefix, os.path.dirname(prefix))
    _validate_operation(self.output_name)

  def make_callbacks(self, exporter: Exporter, validation_images: int, stream: TextIO) -> list[TrainingCallback]:
    """Returns what `retrain.py` did during a training."""
    from beam_retrain.trainer.compat.callbacks import EvalLines, Snapshots

    callbacks: list[TrainingCallback] = [Snapshots(self, exporter, stream)]
    if self.eval_step_interval and not self.is_quiet:
      callbacks.insert(0, EvalLines(stream, self.validation_images or validation_images))
    return callbacks


def _validate_writable(flag: str, value: str, folder: str) -> None:
  """Tries to write into `folder`, or where it would be created."""
  if not value or "://" in value:
    raise InputError(f"--{flag} {value or repr('')} is not a path on a local disk: give another path.")
  existing = os.path.abspath(folder)
  while not os.path.lexists(existing):
    existing = os.path.dirname(existing)
  try:
    if not os.path.isdir(existing):
      raise InputError(f"--{flag} {value} cannot be written: {existing} is not a folder; give another path.")
    with tempfile.TemporaryFile(dir=existing):
      pass
  except OSError as error:
    raise InputError(f"--{flag} {value} cannot be written: {existing}: {error.strerror}; give another path.") from error


def _validate_operation(name: str) -> None:
  if not _OPERATION.fullmatch(name) or name.endswith("/"):
    raise InputError(
      f"--final_tensor_name {name!r} is not a valid name of a TensorFlow operation: use letters, digits and _ . / -,"
      " and begin with a letter or a digit."
    )
  if name.split("/")[0].lower() in _RESERVED:
    raise InputError(
      f"--final_tensor_name {name} is reserved: the graph's input is Placeholder, and its other operations are below"
      " retrained/; give another name."
    )
