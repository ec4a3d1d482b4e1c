"""`beam-retrain evaluate`: scores images or stored bottlenecks with a model."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from beam_retrain.pipelines.engines.dataflow import describe_built_job, validate_single_job
from beam_retrain.pipelines.evaluation.images import find_images, holds_bottlenecks, open_bottlenecks
from beam_retrain.pipelines.evaluation.planned import FILES, Evaluation
from beam_retrain.pipelines.evaluation.results import judged
from beam_retrain.pipelines.jobs.locks import holds_output
from beam_retrain.pipelines.jobs.runner import run_command
from beam_retrain.pipelines.models.trained import Model
from beam_retrain.pipelines.options.engine import check_paths
from beam_retrain.pipelines.requests.evaluation import EvaluateRequest, EvaluationRequest
from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.metrics.figures import MODEL
from beam_retrain.transforms.core.metrics.predictions import Row, read_predictions
from beam_retrain.transforms.core.printing import detail, is_stage, print
from beam_retrain.transforms.core.records.csv_format import unescape_cell
from beam_retrain.transforms.core.records.schema import LEAKS_FILE, QUARANTINE_FILE
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from beam_retrain.transforms.core.run.next_steps import say_next
from beam_retrain.transforms.core.run.run_info import RunInfo, describe_run
from beam_retrain.transforms.core.runtimes.variant import AUTO
from beam_retrain.transforms.evaluation.classifier import EvaluateClassifier
from beam_retrain.transforms.evaluation.compare_nights import CompareNights
from beam_retrain.transforms.evaluation.evaluate import PREDICTIONS_FILE
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.records import RecordsSource

STAGE = "evaluate"

run = EvaluateRequest.run


class Job(NamedTuple):
  """A planned evaluation; `compare` slices the predictions, None without a manifest."""

  evaluation: Evaluation
  output: str
  compare: CompareNights | None
  info: RunInfo


@holds_output
def execute(request: EvaluateRequest) -> int:
  """Runs the command; returns the exit code."""
  job = plan(request)
  step = job.evaluation.begin(
    job.info, job.output, also_owned=(LEAKS_FILE,), compare=job.compare, finds_errors=request.label_errors
  )
  job.evaluation.run(step, STAGE)
  return report(job, step)


def plan(request: EvaluateRequest) -> Job:
  """Checks the model, the images and reusable bottlenecks; changes nothing.

  Raises:
    InputError: an option, model or input cannot be used.
  """
  options = request.pipeline_options()
  arguments, request = request.to_argv(), request.with_absolute_paths()
  request.validate_apart(*EvaluationRequest.paths)
  check_paths(
    options, request.model, request.input, request.output, request.reuse, request.manifest, request.corrections
  )
  validate_single_job(options, request.output)
  model = Model(request.model)
  is_stored = holds_bottlenecks(request.input)
  if request.label_errors and not (is_stored or request.reuse):
    raise InputError(
      "--label_errors looks at stored bottlenecks: give the output of `beam-retrain bottlenecks` with --reuse, or as"
      " --input."
    )
  source = _stored_bottlenecks(request, model) if is_stored else find_images(request.input, request, model)
  evaluation = Evaluation.plan(
    request, options, {MODEL: model}, source, is_stored=is_stored, keeps_bottlenecks=bool(request.reuse)
  )
  compare = None
  if request.manifest:
    compare = CompareNights(
      output=request.output,
      models=[MODEL],
      manifest=request.manifest,
      min_slice_size=request.min_slice_size,
      slices_only=True,
    )
  trunk = model.info.trunk if is_stored else evaluation.trunks[MODEL].info
  settings = {
    **evaluation.settings(),
    "trunk": model.info.trunk.handle,
    "stored_bottlenecks": is_stored,
    "model_fingerprint": model.fingerprint,
    "trunk_fingerprint": trunk.fingerprint,
    "reuse": bool(request.reuse),
    **({"label_errors": True} if request.label_errors else {}),
  }
  execution = {} if is_stored else evaluation.execution.to_info()
  info = describe_run(
    STAGE, settings, arguments, model=request.model, trunk=trunk, labels=model.labels, execution=execution
  )
  return Job(evaluation, request.output, compare, info)


def _stored_bottlenecks(request: EvaluateRequest, model: Model) -> RecordsSource:
  unused = {"reuse": bool(request.reuse), "precision": request.precision != AUTO, "runtime": request.runtime != AUTO}
  unused |= dict.fromkeys(request.idx_settings(), True)
  for name in (name for name, is_given in unused.items() if is_given):
    raise InputError(f"{flag(name)} applies to images, but {flag('input')} holds bottlenecks: leave {flag(name)} out.")
  return open_bottlenecks(request.input, model)


def report(job: Job, step: EvaluateClassifier) -> int:
  """Judges, writes and prints the figures; returns the exit code."""
  evaluation, output = job.evaluation, step.output
  if built := describe_built_job(evaluation.options):
    print(built)
    return ExitCode.DONE
  is_stored = not evaluation.trunks
  title = f"Evaluation of {files.shown(evaluation.request.input)}"
  results = judged(evaluation, step, job.info, title, stored_bottlenecks=is_stored)
  evaluation.complete(step)
  results.print("; from stored bottlenecks" if is_stored else "")
  code = results.exit_code(output)
  results.say_leaks(output)
  say_ends(output, evaluation.request.model, evaluation.request.input)
  return code


def say_ends(output: str, model: str, images: str) -> None:
  """Prints the report and a command; nothing for a stage."""
  if is_stage():
    return
  for name in (*FILES, QUARANTINE_FILE):
    detail(files.shown(files.join(output, name)))
  rows = read_predictions(files.read_lines(files.join(output, PREDICTIONS_FILE)), PREDICTIONS_FILE)
  key = unescape_cell(next(iter(rows), Row("", "", "", "", "")).key)
  image = files.join(images, key)
  words = ("predict", "--model", files.shown(model), files.shown(image))
  say_next(*(words if key and os.path.isfile(image) else ()), report=files.shown(files.join(output, FILES[0])))


if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
