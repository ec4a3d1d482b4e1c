"""`beam-retrain train`: runs the trainer, on local copies of remote folders.

TensorFlow cannot read `s3://`, and the trainer does not use Beam, which is imported only for such folders; the trainer
itself only when the flags are right.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from collections.abc import Sequence

from beam_retrain.trainer.request import TrainRequest
from beam_retrain.transforms.core.errors import InputError, first_line
from beam_retrain.transforms.core.log_file import keep_in
from beam_retrain.transforms.core.records.schema import COMPLETED_FILE, CONFIG_FILE, INFO_FILE
from beam_retrain.transforms.core.run.exit_codes import ExitCode, run_command
from beam_retrain.transforms.core.run.flags import ArgumentParser, expand
from beam_retrain.transforms.core.run.output_folder import find_earlier, find_output, read_info, reopen_folder
from beam_retrain.transforms.core.system import scratch

make_parser = TrainRequest.make_parser


def run(argv: Sequence[str]) -> int:
  """Trains; Beam's `--s3_*` options may follow remote folders."""
  expanded = expand(make_parser(), argv)
  if not any("://" in argument for argument in expanded):
    return TrainRequest.run(argv)
  from apache_beam.options.pipeline_options import PipelineOptions, S3Options

  from beam_retrain.transforms.io import files
  from beam_retrain.transforms.io.beam_internals import add_beam_flags

  parser = ArgumentParser(prog=TrainRequest.prog(), add_help=False)
  parser.add_argument("--input")
  parser.add_argument("--output")
  add_beam_flags(parser, S3Options)
  flags, rest = parser.parse_known_args(expanded)
  folders = [path for path in (flags.input, flags.output) if path]
  if len(folders) < 2 or all(files.is_local(path) for path in folders):
    return TrainRequest.run(argv)
  files.use_options(PipelineOptions(flags=[], **{k: v for k, v in vars(flags).items() if k.startswith("s3_")}))
  return execute_remote(TrainRequest.parse([f"--input={flags.input}", f"--output={flags.output}", *rest]))


def execute_remote(request: TrainRequest) -> int:
  """Trains on local copies; replaces a remote output at the end."""
  from beam_retrain.pipelines.jobs.locks import hold_output
  from beam_retrain.transforms.io import files

  request.validate()
  _validate_local_files(request, not files.is_local(request.output))
  folder, output = files.absolute(request.input), files.absolute(request.output)
  files.check_reachable((folder, output))
  request = dataclasses.replace(request, input=find_output(folder, "bottlenecks", files), output=output)
  with hold_output(output, request.prog()):
    return _train_on_copies(request)


def _train_on_copies(request: TrainRequest) -> int:
  from beam_retrain.trainer import task
  from beam_retrain.transforms.io import files
  from beam_retrain.transforms.io.transfer import get_folder

  folder, output = request.input, request.output
  read_info(folder, "bottlenecks", files)
  find_earlier(output, request.command, files)
  request.validate_apart("input")
  if not files.is_local(output):
    files.check_writable(output)
  keep_in(output, files)
  with tempfile.TemporaryDirectory() as root:
    copies = {path: os.path.join(root, name) for path, name in ((folder, "input"), (output, "output"))}
    copies = {path: copy for path, copy in copies.items() if not files.is_local(path)}
    if folder in copies:
      get_folder(folder, copies[folder])
    try:
      code = task.train(request, copies)
    except InputError as error:
      message = str(error)
      for path, copy in copies.items():
        message = message.replace(copy, path)
      raise InputError(message) from error
    if output in copies and code in (ExitCode.DONE, ExitCode.GATE_MISSED):
      try:
        _upload(copies[output], output)
      except Exception as error:
        raise InputError(_keep_model(copies[output], output, error)) from error
  return code


def _validate_local_files(request: TrainRequest, has_remote_output: bool) -> None:
  """Checks that nothing but the output is written to an object store."""
  for name in ("tflite_output_file", "tflite_int8_output_file", "tflite_calibration_input"):
    if (path := getattr(request, name)) and "://" in path:
      raise InputError(f"train: --{name} {path}: only --input and --output may be remote: give a local path.")
  for name in ("tflite_output_file", "tflite_int8_output_file"):
    if has_remote_output and getattr(request, name):
      raise InputError(f"train: --{name} needs a local --output: use one, and copy the files afterwards.")


def _keep_model(copy: str, output: str, error: Exception) -> str:
  """Moves the model to a folder that stays; returns the message."""
  with scratch.outside():
    kept = tempfile.mkdtemp(prefix="beam-retrain-model-")
  os.replace(copy, kept)
  cause = first_line(error).rstrip(".")
  return (
    f"{output}: the model could not be uploaded ({cause}): use or copy the complete model in {kept}; {output} does not"
    " hold a finished one."
  )


def _upload(copy: str, output: str) -> None:
  """Replaces the remote output by the copy: `info.json` first, `COMPLETED` last."""
  from beam_retrain.trainer.export.output_files import OWNED
  from beam_retrain.transforms.core.system.locks import claim_of
  from beam_retrain.transforms.io import files
  from beam_retrain.transforms.io.transfer import put_file, put_folder

  reopen_folder(output, files)
  for name in (INFO_FILE, CONFIG_FILE, *(name for name in OWNED if name != COMPLETED_FILE), COMPLETED_FILE):
    path, target = os.path.join(copy, name), files.join(output, name)
    if name == COMPLETED_FILE:
      claim_of(output).check(files.read_bytes)
    if os.path.isdir(path):
      put_folder(path, target)
    elif os.path.exists(path):
      put_file(path, target)
    else:
      files.delete([target])  # of an earlier model


if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
