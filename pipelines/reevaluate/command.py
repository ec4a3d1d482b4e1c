"""`beam-retrain reevaluate`: evaluates a model every night."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.evaluation.job import (
  REPORT_FILE,
  CheckedTrunk,
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
from beam_retrain.pipelines.models.trained import Model, ModelTrunk, check_same_labels, split_settings, which_images
from beam_retrain.pipelines.options.flags import retrain_names_setting
from beam_retrain.pipelines.options.request import check_paths
from beam_retrain.pipelines.reevaluate import history
from beam_retrain.pipelines.reevaluate.baseline import Baseline, check_unchanged, choose_baseline
from beam_retrain.pipelines.reevaluate.snapshot import STAGE, Damaged, Night, check_date, stores, trend
from beam_retrain.reporting.gates import verdict_line
from beam_retrain.reporting.junit import junit_xml
from beam_retrain.reporting.text_tables import changes_table
from beam_retrain.transforms.bottlenecks.store import STORES_FOLDER, find_stores
from beam_retrain.transforms.core.metrics.figures import CANDIDATE, MISSED, MODEL, Metrics, ModelMetrics
from beam_retrain.transforms.core.metrics.metrics_file import METRICS_FILE
from beam_retrain.transforms.core.models.inference import BATCH_SIZE
from beam_retrain.transforms.core.records.schema import QUARANTINE_FILE
from beam_retrain.transforms.core.records.shards import BottleneckCounts
from beam_retrain.transforms.core.run.cli import positive_int
from beam_retrain.transforms.core.run.run_info import RunInfo, describe_run
from beam_retrain.transforms.core.run.stats import read_stats
from beam_retrain.transforms.evaluation.classifier import EvaluateClassifier, TrunkStore
from beam_retrain.transforms.evaluation.compare import CHANGES_FILES, SLICES_FILE, CompareNights
from beam_retrain.transforms.evaluation.evaluate import (
  CONFUSION_FILE,
  PARTS_FOLDER,
  PER_LABEL_FILE,
  PREDICTIONS_FILE,
  SUSPICIOUS_FILE,
)
from beam_retrain.transforms.evaluation.scoring import HeadOf, ScoreWithHeads
from beam_retrain.transforms.io import files

JUNIT_FILE = "junit.xml"
_FILES = (REPORT_FILE, PREDICTIONS_FILE, PER_LABEL_FILE, *CHANGES_FILES, SUSPICIOUS_FILE, METRICS_FILE, JUNIT_FILE)
_OWNED = (*_FILES, PARTS_FOLDER, STORES_FOLDER, CANDIDATE, CONFUSION_FILE, SLICES_FILE)

_DESCRIPTION = """\
Evaluates a model every night and compares it with an earlier night: is it still as good, on the same images and on
new ones, and would a candidate be better? Only new and changed images go through the trunk; the bottlenecks of the
others are reused.

writes   HISTORY/DATE/report.html (everything in one file), predictions.csv, per_label.csv,
         regressed.csv (right in the baseline, wrong now), fixed.csv, new.csv, gone.csv,
         suspicious_labels.csv, metrics.json, junit.xml, ..., and candidate/ for the candidate

A night appears in HISTORY when it is finished. A rerun of the same night replaces it; a killed run is resumed. The
model is compared with the last finished night, the candidate with tonight's model."""

_EXAMPLE = """\
example:
  beam-retrain reevaluate --model flowers/model --input flower_photos --history nights --min_accuracy 0.9

exit codes: 0 done, 1 a gate was missed, 2 wrong usage or the job failed, 3 more bad inputs than allowed (the night is
not published). Any Beam option may follow."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReevaluateRequest(EvaluationRequest):
  """Options of `reevaluate`; see the flags' help."""

  command: ClassVar[str] = STAGE
  description: ClassVar[str] = _DESCRIPTION
  epilog: ClassVar[str] = _EXAMPLE
  paths: ClassVar[tuple[str, ...]] = (*EvaluationRequest.paths, "candidate", "history")

  history: str
  candidate: str | None = None
  date: str | None = None
  baseline: str | None = None
  keep_stores: int = 2

  @classmethod
  def add_flags(cls, parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="output of `train`")
    parser.add_argument(
      "--candidate", metavar="DIR", help="another model to score in the same pass; every gate applies to it too"
    )
    parser.add_argument("--input", required=True, metavar="DIR", help="images: any input of `bottlenecks`")
    parser.add_argument("--history", required=True, metavar="DIR", help="folder of all nights, one folder each")
    parser.add_argument("--date", metavar="YYYY-MM-DD", help="name of the night (default: today)")
    parser.add_argument(
      "--baseline",
      metavar="NIGHT",
      help="what to compare with: a night's date or folder, the output of `evaluate`, or none (default: the last"
      " finished night before DATE)",
    )
    parser.add_argument(
      "--keep_stores",
      type=positive_int,
      metavar="N",
      help="number of nights that keep their bottlenecks; all keep their figures and report (default: %(default)d)",
    )
    cls.add_common_flags(
      parser,
      split_help="images to evaluate, see `beam-retrain evaluate --help` (default: auto)",
      reuse_help="also reuse bottlenecks from DIR (output of `bottlenecks`, or an evaluation with --reuse); may be"
      " repeated",
      default_batch_size=str(BATCH_SIZE),
      with_comparison=True,
    )


make_parser = ReevaluateRequest.make_parser


@dataclasses.dataclass(frozen=True)
class Job:
  """Tonight's planned evaluation.

  Attributes:
    models, trunks: `model` and perhaps `candidate`.
    finished: earlier nights.
    reuse: trunk fingerprint -> folders of bottlenecks given by the user.
  """

  request: ReevaluateRequest
  options: PipelineOptions
  date: str
  models: Mapping[str, Model]
  trunks: Mapping[str, ModelTrunk]
  images: Images
  execution: Execution
  finished: Sequence[Night]
  baseline: Baseline | None
  reuse: Mapping[str, Sequence[str]]
  scorer: ScoreWithHeads
  compare: CompareNights
  info: RunInfo

  def claim(self, working: str) -> EvaluateClassifier:
    """Claims the working folder; returns the step that fills it.

    Must be called within `history.tonight`.
    """
    claim_output(working, self.info, owned=_OWNED, shards_folder=PARTS_FOLDER)
    kept: dict[str, TrunkStore] = {}
    for fingerprint, trunk in _by_fingerprint(self.trunks).items():
      reuse = [*stores(self.request.history, self.date, fingerprint, working), *self.reuse[fingerprint]]
      kept[fingerprint] = claim_store(working, trunk, reuse, self.execution, self.request.max_pixels)
    return EvaluateClassifier(
      scorer=self.scorer,
      models={name: model.labels for name, model in self.models.items()},
      output=working,
      request=self.info.request,
      stores=list(kept.values()),
      compare=self.compare,
      empty_message=self.images.empty_message,
    )

  def build(self, root: beam.Pipeline, evaluation: EvaluateClassifier) -> None:
    source, splits, percentages = self.images
    _ = root | "Plan" >> source.plan(splits, percentages) | "Evaluate" >> evaluation


def _by_fingerprint(trunks: Mapping[str, ModelTrunk]) -> dict[str, ModelTrunk]:
  """Returns the distinct trunks: two models may share one."""
  unique: dict[str, ModelTrunk] = {}
  for trunk in trunks.values():
    unique.setdefault(trunk.fingerprint, trunk)
  return unique


def run(argv: Sequence[str], today: Callable[[], datetime.date] = datetime.date.today) -> int:
  """Runs the command line; returns the exit code."""
  return execute(ReevaluateRequest.parse(argv), today)


def execute(request: ReevaluateRequest, today: Callable[[], datetime.date] = datetime.date.today) -> int:
  """Runs tonight's evaluation; returns the exit code.

  Raises:
    InputError: an option, model or input cannot be used.
  """
  job = plan(request, today())
  with history.tonight(job.request.history, job.date, job.info.request) as working:
    evaluation = job.claim(working)
    shards_folder = evaluation.longest_work_folder
    run_pipeline(lambda root: job.build(root, evaluation), job.options, stage=STAGE, shards_folder=shards_folder)
    return report(job, evaluation)


def plan(request: ReevaluateRequest, today: datetime.date) -> Job:
  """Checks the models, the images and the history; changes nothing.

  Raises:
    InputError: an option, model or input cannot be used.
  """
  options = request.pipeline_options()
  arguments, request = request.to_argv(), request.with_absolute_paths()
  check_paths(options, request.model, request.candidate, request.input, request.reuse, request.manifest)
  models = _read_models(request)
  source = find_images(request.input, models[MODEL])
  validate_apart(request.input, request.history, "history")
  finished, damaged = history.read_nights(request.history)
  date = check_date(request.date, today, finished)
  baseline = choose_baseline(request.history, date, request.baseline, models[MODEL].labels)
  if not request.baseline:
    _report_damaged(damaged, date, baseline)
  execution = choose_execution(request.batch_size, request.trunk_threads, options)
  images = choose_images(source, request.split, list(models.values()))
  trunks = {name: ModelTrunk(model, request.precision, request.runtime) for name, model in models.items()}
  reuse = {
    fingerprint: find_stores(request.reuse, fingerprint, trunk.model.preprocessing)
    for fingerprint, trunk in _by_fingerprint(trunks).items()
  }
  info = describe_run(
    STAGE,
    _settings(request, models, images, execution, trunks),
    arguments,
    models={name: model.path for name, model in models.items()},
    trunk=trunks[MODEL].info,
    execution=execution.to_info(),
    labels=models[MODEL].labels,
    others={"night": date, "baseline": baseline.name if baseline else None},
  )
  fingerprints = list(_by_fingerprint(trunks))
  heads = [
    HeadOf(trunk.model.head, fingerprints.index(trunk.fingerprint), tuple(trunk.model.labels))
    for trunk in trunks.values()
  ]
  working = history.working_folder(request.history, date, info.request)
  return Job(
    request=request,
    options=options,
    date=date,
    models=models,
    trunks=trunks,
    images=images,
    execution=execution,
    finished=finished,
    baseline=baseline,
    reuse=reuse,
    scorer=ScoreWithHeads(heads),
    compare=_compare_with(baseline, working, request),
    info=info,
  )


def _read_models(request: ReevaluateRequest) -> dict[str, Model]:
  models = {MODEL: Model(request.model)}
  if request.candidate:
    models[CANDIDATE] = Model(request.candidate)
    check_same_labels(models[MODEL], models[CANDIDATE])
  return models


def _report_damaged(damaged: Sequence[Damaged], date: str, baseline: Baseline | None) -> None:
  """Reports damaged nights that would have been the baseline."""
  for name, why in damaged:
    if name < date and (baseline is None or name > baseline.name):
      print(f"the night {name} is damaged and is not used as the baseline: {why}", file=sys.stderr)


def _compare_with(baseline: Baseline | None, working: str, request: ReevaluateRequest) -> CompareNights:
  return CompareNights(
    parts_folder=files.join(working, PARTS_FOLDER),
    output=working,
    models=[MODEL, *([CANDIDATE] if request.candidate else [])],
    baseline=baseline.predictions if baseline else None,
    baseline_name=baseline.name if baseline else None,
    manifest=request.manifest,
    min_slice_size=request.min_slice_size,
  )


def _settings(
  request: ReevaluateRequest,
  models: Mapping[str, Model],
  images: Images,
  execution: Execution,
  trunks: Mapping[str, ModelTrunk],
) -> dict[str, Any]:
  """Returns the settings that determine the shards' bytes, as JSON values."""
  return {
    "input": request.input,
    "splits": list(images.splits),
    **split_settings(images.percentages),
    **retrain_names_setting(models[MODEL].retrain_names),
    "models": {name: model.fingerprint for name, model in models.items()},
    "trunks": {name: trunk.fingerprint for name, trunk in trunks.items()},
    "labels": models[MODEL].labels,
    "preprocessing": models[MODEL].preprocessing,
    "batch_size": execution.batch_size,
    "max_pixels": request.max_pixels,
  }


def report(job: Job, evaluation: EvaluateClassifier) -> int:
  """Judges, reports and publishes the night; returns the exit code."""
  request, working = job.request, evaluation.output
  checked = {
    name: check_trunk(trunk, job.images, evaluation, job.execution, request.max_pixels)
    for name, trunk in job.trunks.items()
  }
  kinds = {name: ModelMetrics(trunk_kind=check.info) for name, check in checked.items()}
  about = Metrics(
    kinds[MODEL],
    kinds.get(CANDIDATE),
    night=job.date,
    splits=job.images.splits,
    trunk=job.models[MODEL].info.trunk.handle,
    bottlenecks=_count_bottlenecks(evaluation.stores),
  )
  nights = trend(job.finished, job.date)
  metrics = write_report(about, evaluation, request, job.info, f"Night of {job.date}", nights)
  files.write_text(files.join(working, JUNIT_FILE), junit_xml(metrics))
  folder = working
  if complete(evaluation, request.max_bad_fraction):
    if job.baseline:
      check_unchanged(job.baseline)
    folder = history.publish(working, request.history, job.date)
    history.prune_stores(request.history, request.keep_stores, job.date)
  _print_summary(metrics, folder, job.images.source.path, checked)
  stats = read_stats(folder, files)
  return exit_code(stats, folder, request.max_bad_fraction, gate_missed=metrics.verdict == MISSED)


def _count_bottlenecks(stores: Sequence[TrunkStore]) -> BottleneckCounts:
  counts = [counts for store in stores if (counts := read_stats(store.folder, files).bottlenecks)]
  return BottleneckCounts(sum(count.computed for count in counts), sum(count.reused for count in counts))


def _print_summary(metrics: Metrics, folder: str, source: str, checked: Mapping[str, CheckedTrunk]) -> None:
  print(verdict_line(metrics))
  counts = metrics.bottlenecks or BottleneckCounts(0, 0)
  print(
    f"{which_images(metrics.splits)} of {files.shown(source)}: {counts.reused:,} bottlenecks reused,"
    f" {counts.computed:,} computed"
  )
  model_line, candidate_line = checked[MODEL].description, checked.get(CANDIDATE, checked[MODEL]).description
  print(model_line)
  if candidate_line != model_line:
    print(f"candidate: {candidate_line}")
  print_figures(metrics, [changes_table(metrics)])
  print(f"everything is in {files.shown(folder)}: {', '.join((*_FILES, QUARANTINE_FILE))}")


if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
