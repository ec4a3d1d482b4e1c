"""`beam-retrain reevaluate`: evaluates a model every night."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Sequence
from typing import NamedTuple

from beam_retrain.pipelines.evaluation.images import find_images
from beam_retrain.pipelines.evaluation.planned import REPORT_FILE, Evaluation
from beam_retrain.pipelines.evaluation.results import judged
from beam_retrain.pipelines.models.trained import Model, check_same_labels
from beam_retrain.pipelines.options.engine import check_paths
from beam_retrain.pipelines.reevaluate import history
from beam_retrain.pipelines.reevaluate.baseline import Baseline, check_unchanged, choose_baseline, choose_reference
from beam_retrain.pipelines.reevaluate.history import PROMETHEUS_FILE, STAGE
from beam_retrain.pipelines.requests.evaluation import EvaluationRequest, ReevaluateRequest
from beam_retrain.reporting.junit import junit_xml
from beam_retrain.reporting.prometheus import prometheus_text
from beam_retrain.reporting.text_tables import changes_table
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics.figures import CANDIDATE, MODEL, TrendPoint
from beam_retrain.transforms.core.printing import say
from beam_retrain.transforms.core.records.schema import LEAKS_FILE, METRICS_FILE, QUARANTINE_FILE
from beam_retrain.transforms.core.records.shards import BottleneckCounts
from beam_retrain.transforms.core.run.next_steps import say_next
from beam_retrain.transforms.core.run.run_info import RunInfo, describe_run
from beam_retrain.transforms.core.run.stats import read_stats
from beam_retrain.transforms.evaluation.classifier import EvaluateClassifier
from beam_retrain.transforms.evaluation.compare_nights import CHANGES_FILES, CompareNights
from beam_retrain.transforms.evaluation.evaluate import PER_LABEL_FILE, PREDICTIONS_FILE, SUSPICIOUS_FILE
from beam_retrain.transforms.io import files

JUNIT_FILE = "junit.xml"
_FILES = (
  *(REPORT_FILE, PREDICTIONS_FILE, PER_LABEL_FILE, *CHANGES_FILES, SUSPICIOUS_FILE, LEAKS_FILE, METRICS_FILE),
  *(JUNIT_FILE, PROMETHEUS_FILE, QUARANTINE_FILE),
)

run = ReevaluateRequest.run


class Job(NamedTuple):
  evaluation: Evaluation
  info: RunInfo
  history: str
  keep_stores: int
  date: str
  nights: Sequence[TrendPoint]  # the finished ones
  compared_with: Sequence[Baseline]  # the baseline and the reference, if any
  compare: CompareNights
  working: str  # the folder that the night is made in


def execute(request: ReevaluateRequest, today: Callable[[], datetime.date] = datetime.date.today) -> int:
  job = plan(request, today())
  with history.tonight(job.history, job.date, job.info.request) as working:
    if working != job.working:
      raise InputError(f"another command published the night {job.date} in the meantime: run this one again.")
    step = job.evaluation.begin(
      job.info,
      working,
      also_owned=(*CHANGES_FILES, LEAKS_FILE, JUNIT_FILE, PROMETHEUS_FILE, CANDIDATE),
      compare=job.compare,
      finds_leaks=True,
      find_earlier=lambda fingerprint: history.earlier_stores(job.history, job.date, fingerprint, working),
    )
    job.evaluation.run(step, job.info.stage)
    return report(job, step)


def plan(request: ReevaluateRequest, today: datetime.date) -> Job:
  """Checks the models, the images and the history; changes nothing.

  Raises:
    InputError: an option, model or input cannot be used.
  """
  options = request.pipeline_options()
  arguments, request = request.to_argv(), request.with_absolute_paths()
  reuse = tuple(path for path in request.reuse if not history.is_in_night(path, request.history))
  dataclasses.replace(request, reuse=reuse).validate_apart(*EvaluationRequest.paths, "candidate", writes="history")
  check_paths(
    options, request.model, request.candidate, request.input, request.reuse, request.manifest, request.corrections
  )
  models = {MODEL: Model(request.model)}
  if request.candidate:
    models[CANDIDATE] = Model(request.candidate)
    check_same_labels(models[MODEL], models[CANDIDATE])
  labels = models[MODEL].labels
  source = find_images(request.input, request, models[MODEL])
  nights = history.read_nights(request.history)
  date = history.choose_date(request.date, today, request.history, nights)
  baseline = choose_baseline(request.history, date, request.baseline, labels)
  reference = choose_reference(request.history, date, request.reference, labels)
  evaluation = Evaluation.plan(request, options, models, source, keeps_bottlenecks=True)
  settings = {
    **evaluation.settings(),
    "models": {name: model.fingerprint for name, model in models.items()},
    "trunks": {name: trunk.fingerprint for name, trunk in evaluation.trunks.items()},
  }
  info = describe_run(
    STAGE,
    settings,
    arguments,
    models={name: model.path for name, model in models.items()},
    trunk=evaluation.trunks[MODEL].info,
    execution=evaluation.execution.to_info(),
    labels=labels,
    others={
      "night": date,
      "baseline": baseline.name if baseline else None,
      **({"reference": reference.name} if reference else {}),
    },
  )
  working = history.working_folder(request.history, date, info.request)
  compare = CompareNights(
    output=working,
    models=list(models),
    baseline=baseline.predictions if baseline else None,
    baseline_name=baseline.name if baseline else None,
    reference=(reference.name, reference.predictions) if reference else None,
    manifest=request.manifest,
    min_slice_size=request.min_slice_size,
  )
  compared_with = [one for one in (baseline, reference) if one]
  return Job(evaluation, info, request.history, request.keep_stores, date, nights, compared_with, compare, working)


def report(job: Job, step: EvaluateClassifier) -> int:
  """Judges, reports and publishes the night; returns the exit code."""
  evaluation, folder = job.evaluation, step.output
  counted = [counts for store in step.stores if (counts := read_stats(store.folder, files).bottlenecks)]
  counts = BottleneckCounts(sum(count.computed for count in counted), sum(count.reused for count in counted))
  trend = history.trend(job.nights, job.date)
  results = judged(evaluation, step, job.info, f"Night of {job.date}", trend, night=job.date, bottlenecks=counts)
  files.write_text(files.join(folder, JUNIT_FILE), junit_xml(results.metrics))
  figures = prometheus_text(results.metrics, job.history)
  files.write_text(files.join(folder, PROMETHEUS_FILE), figures)
  if evaluation.complete(step, keeps_scored=True):
    for compared in job.compared_with:
      check_unchanged(compared)
    folder = history.publish(folder, job.history, job.date)
    history.prune_stores(job.history, job.keep_stores, job.date)
    if job.date == history.dates(job.history)[-1]:
      files.write_text(files.join(job.history, PROMETHEUS_FILE), figures)
  about = f": {counts.reused:,} bottlenecks reused, {counts.computed:,} computed"
  results.print(about, [changes_table(results.metrics)])
  say(f"everything is in {files.shown(folder)}: {', '.join(_FILES)}")
  results.say_leaks(folder)
  say_next(report=files.shown(files.join(folder, REPORT_FILE)))
  return results.exit_code(folder)
