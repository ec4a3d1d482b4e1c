"""`beam-retrain evaluate`: scores images or stored bottlenecks with a model."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any, ClassVar

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.engines.dataflow import describe_built_job, request_memory, validate_single_job
from beam_retrain.pipelines.evaluation.job import (
  REPORT_FILE,
  Images,
  check_trunk,
  choose_images,
  claim_store,
  complete,
  find_images,
  print_figures,
  write_report,
)
from beam_retrain.pipelines.evaluation.request import EvaluationRequest
from beam_retrain.pipelines.jobs.runner import claim_output, exit_code, run_command, run_pipeline, validate_apart
from beam_retrain.pipelines.models.execution import Execution, choose_execution
from beam_retrain.pipelines.models.trained import Model, ModelTrunk, split_settings, which_images
from beam_retrain.pipelines.options.flags import retrain_names_setting
from beam_retrain.pipelines.options.request import check_paths
from beam_retrain.reporting.gates import verdict_line
from beam_retrain.transforms.bottlenecks.store import STORES_FOLDER, find_stores
from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.metrics.figures import MISSED, MODEL, Metrics, ModelMetrics
from beam_retrain.transforms.core.metrics.metrics_file import METRICS_FILE
from beam_retrain.transforms.core.models.inference import BATCH_SIZE
from beam_retrain.transforms.core.records.schema import QUARANTINE_FILE
from beam_retrain.transforms.core.run.cli import ExitCode
from beam_retrain.transforms.core.run.run_info import RunInfo, describe_run, find_info, read_info
from beam_retrain.transforms.core.run.stats import read_stats
from beam_retrain.transforms.core.runtimes.variant import AUTO
from beam_retrain.transforms.evaluation.classifier import EvaluateClassifier
from beam_retrain.transforms.evaluation.compare import SLICES_FILE, CompareNights
from beam_retrain.transforms.evaluation.evaluate import (
  CONFUSION_FILE,
  PARTS_FOLDER,
  PER_LABEL_FILE,
  PREDICTIONS_FILE,
  SUSPICIOUS_FILE,
)
from beam_retrain.transforms.evaluation.scoring import (
  BOTTLENECKS_BATCH_SIZE,
  HeadOf,
  ScoreBottlenecks,
  ScoreImages,
  Scorer,
  ScoreWithHeads,
)
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.records import RecordsSource

STAGE = "evaluate"
_FILES = (REPORT_FILE, PREDICTIONS_FILE, PER_LABEL_FILE, CONFUSION_FILE, SUSPICIOUS_FILE, METRICS_FILE)
_OWNED = (*_FILES, SLICES_FILE, PARTS_FOLDER, STORES_FOLDER)

_DESCRIPTION = f"""\
Predicts the label of every image and counts the correct predictions per label.

writes   OUTPUT/{REPORT_FILE} (everything in one file), {PREDICTIONS_FILE} (the article's columns first),
         {PER_LABEL_FILE}, {CONFUSION_FILE}, {SUSPICIOUS_FILE}, {METRICS_FILE},
         {QUARANTINE_FILE}, stats.json, info.json and, last, COMPLETED

A killed run is resumed by the same command: finished shards are kept."""

_EXAMPLE = """\
example:
  beam-retrain evaluate --model flowers/model --input flower_photos --split testing --output flowers/evaluation

Any Beam option may follow, for example --runner=FlinkRunner, or
  --direct_running_mode=multi_processing --direct_num_workers=2   for two processes on this machine."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateRequest(EvaluationRequest):
  """Options of `evaluate`; see the flags' help."""

  command: ClassVar[str] = STAGE
  description: ClassVar[str] = _DESCRIPTION
  epilog: ClassVar[str] = _EXAMPLE
  paths: ClassVar[tuple[str, ...]] = (*EvaluationRequest.paths, "output")

  output: str

  @classmethod
  def add_flags(cls, parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="output of `train`")
    parser.add_argument(
      "--input",
      required=True,
      metavar="DIR",
      help="images: any input of `bottlenecks`; or the output of `bottlenecks`, which needs the model's head only",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="a new or empty folder, or an earlier output")
    cls.add_common_flags(
      parser,
      split_help="auto (default): the testing images if the input has splits (IDX files, folders training/ and"
      " testing/, records, bottlenecks), else all images. testing: of class folders or a manifest without splits, the"
      " images whose names hash into the model's testing set. all: the training images too",
      reuse_help="reuse the bottlenecks in DIR (output of `bottlenecks`, an evaluation with --reuse, or a night of"
      " `reevaluate`), run the trunk only on the other images, and keep all bottlenecks in"
      f" OUTPUT/{STORES_FOLDER}; may be repeated",
      default_batch_size=f"{BATCH_SIZE}; {BOTTLENECKS_BATCH_SIZE} for stored bottlenecks",
    )


make_parser = EvaluateRequest.make_parser


@dataclasses.dataclass(frozen=True)
class Job:
  """A planned evaluation.

  Attributes:
    trunk: None if the input is stored bottlenecks.
    reuse: folders of the trunk's finished bottlenecks.
    compare: slices the predictions; None without a manifest.
  """

  request: EvaluateRequest
  options: PipelineOptions
  model: Model
  images: Images
  execution: Execution
  trunk: ModelTrunk | None
  reuse: Sequence[str]
  compare: CompareNights | None
  info: RunInfo

  def claim(self) -> EvaluateClassifier:
    """Claims the output folder; returns the step that fills it."""
    output = self.request.output
    claim_output(output, self.info, owned=_OWNED, shards_folder=PARTS_FOLDER)
    stores = []
    if self.trunk and self.request.reuse:
      stores = [claim_store(output, self.trunk, self.reuse, self.execution, self.request.max_pixels)]
    return EvaluateClassifier(
      scorer=self._scorer(),
      models={MODEL: self.model.labels},
      output=output,
      request=self.info.request,
      stores=stores,
      compare=self.compare,
      empty_message=self.images.empty_message,
    )

  def _scorer(self) -> Scorer:
    model, labels = self.model, self.model.labels
    if self.trunk is None:
      batch_size = self.info.settings["batch_size"]
      return ScoreBottlenecks(
        model.saved_model, labels, head=model.head if model.has_head else None, batch_size=batch_size
      )
    if self.request.reuse:
      return ScoreWithHeads([HeadOf(model.head, 0, tuple(labels))])
    handler = self.trunk.to_scores(self.execution, self.request.max_pixels)
    return ScoreImages(handler, labels)

  def build(self, root: beam.Pipeline, evaluation: EvaluateClassifier) -> None:
    source, splits, percentages = self.images
    _ = root | "Plan" >> source.plan(splits, percentages) | "Evaluate" >> evaluation


def run(argv: Sequence[str]) -> int:
  """Runs the command line; returns the exit code."""
  return execute(EvaluateRequest.parse(argv))


def execute(request: EvaluateRequest) -> int:
  """Runs the command; returns the exit code.

  Raises:
    InputError: an option, model or input cannot be used.
  """
  job = plan(request)
  evaluation = job.claim()
  request_memory(job.options, job.request.model)
  shards_folder = evaluation.longest_work_folder
  run_pipeline(lambda root: job.build(root, evaluation), job.options, stage=STAGE, shards_folder=shards_folder)
  return report(job, evaluation)


def plan(request: EvaluateRequest) -> Job:
  """Checks the model, the images and reusable bottlenecks; changes nothing.

  Raises:
    InputError: an option, model or input cannot be used.
  """
  options = request.pipeline_options()
  arguments, request = request.to_argv(), request.with_absolute_paths()
  check_paths(options, request.model, request.input, request.output, request.reuse, request.manifest)
  execution = choose_execution(request.batch_size, request.trunk_threads, options)
  validate_single_job(options, request.output)
  model = Model(request.model)
  stored = _holds_bottlenecks(request.input)
  source = _stored_bottlenecks(request, model) if stored else find_images(request.input, model)
  images = choose_images(source, request.split, [model])
  validate_apart(request.input, request.output)
  trunk = None if stored else ModelTrunk(model, request.precision, request.runtime)
  reuse = find_stores(request.reuse, trunk.fingerprint, model.preprocessing) if trunk else []
  if request.reuse:
    _ = model.head  # raises for older models, which have none
  compare = None
  if request.manifest:
    compare = CompareNights(
      parts_folder=files.join(request.output, PARTS_FOLDER),
      output=request.output,
      models=[MODEL],
      manifest=request.manifest,
      min_slice_size=request.min_slice_size,
      slices_only=True,
    )
  info = describe_run(
    STAGE,
    _settings(request, model, images, execution, trunk),
    arguments,
    model=request.model,
    trunk=trunk.info if trunk else model.info.trunk,
    labels=model.labels,
    execution=execution.to_info() if trunk else {},
  )
  return Job(request, options, model, images, execution, trunk, reuse, compare, info)


def _settings(
  request: EvaluateRequest, model: Model, images: Images, execution: Execution, trunk: ModelTrunk | None
) -> dict[str, Any]:
  """Returns the settings that determine the output's bytes, as JSON values."""
  return {
    "splits": list(images.splits),
    "trunk": model.info.trunk.handle,
    "stored_bottlenecks": trunk is None,
    "input": request.input,
    "model_fingerprint": model.fingerprint,
    "labels": model.labels,
    **split_settings(images.percentages),
    **retrain_names_setting(model.retrain_names),
    "trunk_fingerprint": trunk.fingerprint if trunk else model.info.trunk.fingerprint,
    "batch_size": execution.batch_size if trunk else request.batch_size or BOTTLENECKS_BATCH_SIZE,
    "max_pixels": request.max_pixels,
    "reuse": bool(request.reuse),
    "preprocessing": model.preprocessing,
  }


def _holds_bottlenecks(folder: str) -> bool:
  info = find_info(folder, files)
  return info is not None and info.stage == "bottlenecks"


def _stored_bottlenecks(request: EvaluateRequest, model: Model) -> RecordsSource:
  unused = {"reuse": bool(request.reuse), "precision": request.precision != AUTO, "runtime": request.runtime != AUTO}
  for name in (name for name, is_given in unused.items() if is_given):
    raise InputError(f"{flag(name)} applies to images, but {flag('input')} holds bottlenecks: leave {flag(name)} out.")
  info = read_info(request.input, "bottlenecks", files)
  stored, wanted = info.trunk, model.info.trunk
  if stored.fingerprint != wanted.fingerprint:
    raise InputError(
      f"the bottlenecks in {request.input} are of another trunk ({stored.handle}, {stored.fingerprint[:12]}) than the"
      f" model in {request.model} ({wanted.handle}, {wanted.fingerprint[:12]}): evaluate images, or run"
      " `beam-retrain bottlenecks` with the model's trunk."
    )
  return RecordsSource(request.input)


def report(job: Job, evaluation: EvaluateClassifier) -> int:
  """Judges, writes and prints the figures; returns the exit code."""
  if built := describe_built_job(job.options):
    print(built)
    return ExitCode.DONE
  request, output = job.request, evaluation.output
  checked = None
  if job.trunk:
    checked = check_trunk(job.trunk, job.images, evaluation, job.execution, request.max_pixels)
  about = Metrics(
    ModelMetrics(trunk_kind=checked.info if checked else None),
    splits=job.images.splits,
    trunk=job.model.info.trunk.handle,
    stored_bottlenecks=job.trunk is None,
  )
  metrics = write_report(about, evaluation, request, job.info, f"Evaluation of {files.shown(request.input)}")
  complete(evaluation, request.max_bad_fraction)
  print(verdict_line(metrics))
  kind = "" if job.trunk else ", from stored bottlenecks"
  print(f"{which_images(job.images.splits)} of {files.shown(job.images.source.path)}{kind}")
  if checked:
    print(checked.description)
  print_figures(metrics)
  for name in (*_FILES, QUARANTINE_FILE):
    print(files.shown(files.join(output, name)))
  stats = read_stats(output, files)
  return exit_code(stats, output, request.max_bad_fraction, gate_missed=metrics.verdict == MISSED)


if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
