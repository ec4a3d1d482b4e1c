"""`train` with folders on an object store: the trainer knows no Beam, and TensorFlow reads no `s3://`, so it works on
local copies, which are brought here first and taken back when it is done.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions, S3Options

from beam_retrain.pipelines.jobs import output_dir
from beam_retrain.transforms.core.errors import InputError, first_line
from beam_retrain.transforms.core.records.schema import COMPLETED_FILE, INFO_FILE
from beam_retrain.transforms.core.run.cli import DONE, GATE_MISSED, ArgumentParser
from beam_retrain.transforms.core.run.output_dir import OutputDir
from beam_retrain.transforms.core.run.run_info import read_info
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.access import check_reachable, check_writable
from beam_retrain.transforms.io.beam_internals import add_beam_flags
from beam_retrain.transforms.io.transfer import get_folder, put_file, put_folder

_STAGE = "train"


def is_remote(argv: Sequence[str]) -> bool:
  """Says whether `train` is given a folder that is none on this machine."""
  flags, _ = _parser(required=False).parse_known_args(argv)
  return any(path is not None and not files.is_local(path) for path in (flags.input, flags.output))


def run(argv: Sequence[str], trainer: Any, owned: Sequence[str]) -> int:
  """Trains; returns the exit code. An output that was there is replaced when the new model is whole.

  Args:
    argv: the arguments of `train`; options of Beam's for `s3://` may be among them.
    trainer: the trainer's module, with `check` and `run`, which may be given local copies of its folders.
    owned: what the trainer may write, directly in its folder.

  Raises:
    InputError: an argument or a folder cannot be used.
  """
  flags, of_trainer = _parser(required=True).parse_known_args(argv)
  trainer.check([f"--input={flags.input}", f"--output={flags.output}", *of_trainer])
  _refuse_elsewhere(of_trainer, not files.is_local(flags.output))
  files.use_options(PipelineOptions(flags=[], **{k: v for k, v in vars(flags).items() if k.startswith("s3_")}))
  check_reachable(flags.input, flags.output)
  folder, output = files.absolute(flags.input), files.absolute(flags.output)
  read_info(folder, "bottlenecks", files)
  output_dir.find_earlier(output, _STAGE)
  output_dir.validate_apart(folder, output)
  if not files.is_local(output):
    check_writable(output)
  with tempfile.TemporaryDirectory(prefix="beam-retrain-") as scratch:
    copies = {path: os.path.join(scratch, name) for path, name in ((folder, "input"), (output, "output"))}
    copies = {path: copy for path, copy in copies.items() if not files.is_local(path)}
    if folder in copies:
      get_folder(folder, copies[folder])
    try:
      code: int = trainer.run([f"--input={folder}", f"--output={output}", *of_trainer], copies)
    except InputError as error:
      sentence = str(error)
      for path, copy in copies.items():
        sentence = sentence.replace(copy, path)
      raise InputError(sentence) from error
    if output in copies and code in (DONE, GATE_MISSED):
      try:
        _take_back(copies[output], output, owned)
      except Exception as error:
        raise InputError(_kept_here(copies[output], output, error)) from error
  return code


def _parser(required: bool) -> ArgumentParser:
  parser = ArgumentParser(prog="beam-retrain train", add_help=False)
  for name in ("--input", "--output"):
    parser.add_argument(name, required=required)
  add_beam_flags(parser, S3Options)
  return parser


def _refuse_elsewhere(of_trainer: Sequence[str], has_remote_output: bool) -> None:
  """Checks that the trainer writes nowhere but to its output, where that is not on this machine."""
  for argument in of_trainer:
    flag, _, value = argument.partition("=")
    if "://" in (value or flag):
      raise InputError(f"train: {argument}: of its folders only --input and --output may be remote: give a local one.")
    if has_remote_output and flag in ("--tflite_output_file", "--tflite_int8_output_file"):
      raise InputError(f"train: {flag} goes with a local --output only: give one, and copy what is there afterwards.")


def _kept_here(copy: str, output: str, error: Exception) -> str:
  """Keeps the model where it was made; returns what the user is told."""
  kept = tempfile.mkdtemp(prefix="beam-retrain-model-")
  os.replace(copy, kept)
  why = first_line(error).rstrip(".")
  return (
    f"{output}: the model could not be taken there ({why}): it is whole in {kept}, to be used or copied from there;"
    f" what is in {output} is no finished model."
  )


def _take_back(copy: str, output: str, owned: Sequence[str]) -> None:
  """Makes the remote output what the local copy is: `info.json` first, `COMPLETED` last, as in every stage."""
  claimed = OutputDir(output, files)
  claimed.reopen()
  put_file(os.path.join(copy, INFO_FILE), files.join(output, INFO_FILE))
  for name in owned:
    path, target = os.path.join(copy, name), files.join(output, name)
    if os.path.isdir(path):
      put_folder(path, target)
    elif name == COMPLETED_FILE:
      continue
    elif os.path.exists(path):
      put_file(path, target)
    else:
      files.delete([target])  # an earlier model's
  claimed.complete()
