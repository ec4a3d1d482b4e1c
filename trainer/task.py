"""`train`: trains a softmax head on bottlenecks and exports the model."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence

from beam_retrain.trainer.export.output_files import Int8File, TrainMetrics
from beam_retrain.trainer.export.tflite_options import TfliteOptions
from beam_retrain.trainer.request import WRITTEN, TrainRequest
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics.wording import accuracy_line
from beam_retrain.transforms.core.printing import print
from beam_retrain.transforms.core.records.schema import TESTING, VALIDATION
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.exit_codes import ExitCode, run_command
from beam_retrain.transforms.core.run.next_steps import beside, say_next
from beam_retrain.transforms.core.run.output_folder import find_output, read_info, read_labels
from beam_retrain.transforms.core.run.run_info import RunInfo
from beam_retrain.transforms.core.system import local_files
from beam_retrain.transforms.core.system.imports import load_tensorflow
from beam_retrain.transforms.core.system.locks import hold_folder
from beam_retrain.transforms.core.system.scratch import own_temporary_files

run = TrainRequest.run


@dataclasses.dataclass(frozen=True)
class Job:
  request: TrainRequest
  bottlenecks: str  # the folder to read; `info` and `labels` are its own
  output: str
  info: RunInfo
  labels: Sequence[str]
  percentages: SplitPercentages  # as planned, with the requested validation percentage
  tflite: TfliteOptions


def execute(request: TrainRequest) -> int:
  """Trains into the output folder, which it holds; returns the exit code."""
  request = dataclasses.replace(request, input=find_output(request.input, "bottlenecks"))
  with hold_folder(request.output, request.prog()), own_temporary_files(request.output):
    return train(request, {})


def train(request: TrainRequest, copies: Mapping[str, str]) -> int:
  """Trains, exports and reports; the caller holds the output.

  `copies`: `input` or `output` of the request -> the local folder used instead.
  """
  job = plan(request, copies)
  load_tensorflow()
  from beam_retrain.trainer.work import train_and_export

  return report(train_and_export(job), job)


def plan(request: TrainRequest, copies: Mapping[str, str]) -> Job:
  """Checks all that needs no TensorFlow; writes nothing."""
  request.validate()
  bottlenecks, output = (copies.get(path, path) for path in (request.input, request.output))
  for path in (bottlenecks, output):
    if "://" in path:
      raise InputError(f"{path} is remote: use `beam-retrain train`, which copies such a folder; the trainer does not.")
  request.validate_apart("input", "tflite_calibration_input")
  for written in WRITTEN:
    request.validate_apart("input", writes=written)
  info = read_info(bottlenecks, "bottlenecks")
  return Job(
    request,
    bottlenecks=bottlenecks,
    output=output,
    info=info,
    percentages=_split_percentages(request, info),
    labels=read_labels(bottlenecks),
    tflite=request.resolve_tflite(str(info.settings.get("input", ""))),
  )


def _split_percentages(request: TrainRequest, info: RunInfo) -> SplitPercentages:
  try:
    planned = SplitPercentages.from_settings(info.settings)
  except ValueError as error:
    raise InputError(
      f"{request.input} was written by another version of beam-retrain: {error}: run `bottlenecks` again."
    ) from error
  validation = planned.validation if request.validation_percentage is None else request.validation_percentage
  if validation != planned.validation and planned.legacy_root is not None:
    raise InputError(
      f"--validation_percentage {validation:g}: with --split_hash legacy it also decides which images are for testing:"
      f" leave it out, or run `bottlenecks` with it (it was {planned.validation:g} there)."
    )
  try:
    return dataclasses.replace(planned, validation=validation)
  except ValueError as error:
    raise InputError(f"--validation_percentage: {error}.") from error


def report(metrics: TrainMetrics, job: Job) -> int:
  tested, request = metrics.scores[TESTING], job.request
  where = f"{request.output}/saved_model"
  if tested.images:
    print(f"{accuracy_line(round(tested.correct), tested.images, ' of the testing images')}; the model is in {where}")
  else:
    validated = metrics.scores[VALIDATION]
    line = accuracy_line(round(validated.correct), validated.images, " of the validation images")
    print(f"{line}; there are no testing images; the model is in {where}")
  for kind, lite in metrics.tflite.items():
    path = os.path.normpath(os.path.join(request.output, lite.file))
    accuracy = lite.testing_accuracy if isinstance(lite, Int8File) else None
    measured = f"testing accuracy {accuracy:.2%}, " if accuracy is not None else ""
    print(f"TensorFlow Lite, {kind}: {measured}{lite.bytes:,} bytes, in {path}")
  wanted = request.assert_accuracy_at_least
  if wanted is None or (tested.images and tested.accuracy >= wanted):
    if tested.images:
      _say_next(job)
    return ExitCode.DONE
  measured = f"testing accuracy is {tested.accuracy:.4f}" if tested.images else "there are no testing images"
  print(f"beam-retrain: {measured}, but --assert_accuracy_at_least is {wanted:g}.", file=sys.stderr)
  return ExitCode.GATE_MISSED


def _say_next(job: Job) -> None:
  """Names the evaluation of the images, or of their bottlenecks."""
  settings, output = job.info.settings, job.request.output
  exists = os.path.exists if "://" not in output else lambda path: False
  words = ["evaluate", "--model", output, "--output", beside(output, "evaluation", exists)]
  images = str(settings.get("input", ""))
  if os.path.exists(images):
    words += ["--input", local_files.shown(images), "--split", "testing"]
    words += [f"--class_names={settings['class_names']}"] if settings.get("class_names") else []
    words += ["--transpose"] if settings.get("transpose") else []
  else:
    words += ["--input", job.request.input]
  say_next(*words)


if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
