"""Shared steps of `evaluate` and `reevaluate`, before and after the job.

The job (`EvaluateClassifier`) writes figures. The command judges them, renders the report and completes the folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from beam_retrain.pipelines.evaluation.request import EvaluationRequest
from beam_retrain.pipelines.models.execution import Execution
from beam_retrain.pipelines.models.sample import sample_images
from beam_retrain.pipelines.models.trained import Model, ModelTrunk, check_labels, choose_splits, shared_percentages
from beam_retrain.pipelines.models.trunk_sources import BUNDLED
from beam_retrain.pipelines.options.flags import report_left_out
from beam_retrain.reporting.gates import gate_lines, judge
from beam_retrain.reporting.html_report import Report, render_report
from beam_retrain.reporting.text_tables import per_label_table
from beam_retrain.transforms.bottlenecks.store import store_folder
from beam_retrain.transforms.core.metrics.figures import CANDIDATE, MODEL, BadInputs, Metrics, TrendPoint
from beam_retrain.transforms.core.metrics.metrics_file import METRICS_FILE, write_metrics
from beam_retrain.transforms.core.records.schema import INFO_FILE, QUARANTINE_FILE
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.run_info import RunInfo, complete_folder, describe_run
from beam_retrain.transforms.core.run.stats import read_stats
from beam_retrain.transforms.evaluation.classifier import EvaluateClassifier, TrunkStore
from beam_retrain.transforms.evaluation.evaluate import FIGURES_FILE, PREDICTIONS_FILE, JobFigures
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.ledger import read_quarantine
from beam_retrain.transforms.sources.base import Source
from beam_retrain.transforms.sources.find import find_source

REPORT_FILE = "report.html"
MAX_QUARANTINED_SHOWN = 500


class Images(NamedTuple):
  """The images to evaluate, or their stored bottlenecks.

  `percentages`: how a source without its own splits is split; None: not at all.
  """

  source: Source
  splits: tuple[str, ...]
  percentages: SplitPercentages | None

  @property
  def empty_message(self) -> str:
    return f"{self.source.path} has no images of the split {' or '.join(self.splits)}: give another --input or --split."


def find_images(folder: str, model: Model) -> Source:
  """Returns the images of a folder, with a model's labels."""
  source = find_source(folder, len(model.labels), min_classes=1, retrain_names=model.retrain_names)
  report_left_out(source)
  return source


def choose_images(source: Source, split: str, models: Sequence[Model]) -> Images:
  """Returns the images of `--split`.

  Raises:
    InputError: a model lacks a label, or an input is missing.
  """
  for model in models:
    check_labels(source, model)
  splits, percentages = choose_splits(source, split, shared_percentages(models), models)
  source.plan(splits, percentages)  # raises for missing inputs before anything is changed
  return Images(source, splits, percentages)


def claim_store(
  output: str, trunk: ModelTrunk, reuse: Sequence[str], execution: Execution, max_pixels: int
) -> TrunkStore:
  """Creates the store of a trunk's bottlenecks in a claimed output folder.

  `reuse`: folders of finished bottlenecks of the same trunk and variant.
  """
  model = trunk.model
  folder = store_folder(output, trunk.fingerprint)
  settings = {
    "trunk_fingerprint": trunk.fingerprint,
    "preprocessing": model.preprocessing,
    "labels": model.labels,
    "batch_size": execution.batch_size,
    "max_pixels": max_pixels,
  }
  info = describe_run("store", settings, [], trunk=trunk.info, labels=model.labels)
  files.make_folder(folder)
  files.write_text(files.join(folder, INFO_FILE), info.to_json())
  handler = trunk.to_bottlenecks(execution, max_pixels)
  return TrunkStore(folder=folder, handler=handler, reuse=reuse, request=info.request)


class CheckedTrunk(NamedTuple):
  """How a trunk ran: JSON values for `metrics.json`, and one line for the user."""

  info: Mapping[str, object]
  description: str


def check_trunk(
  trunk: ModelTrunk, images: Images, evaluation: EvaluateClassifier, execution: Execution, max_pixels: int
) -> CheckedTrunk:
  """Compares a trunk with float32 on a sample, if it ran in the job."""
  folder = store_folder(evaluation.output, trunk.fingerprint)
  counts = [read_stats(store.folder, files).bottlenecks for store in evaluation.stores if store.folder == folder]
  agreement = None
  if all(count.computed for count in counts if count):
    agreement = trunk.check(sample_images(*images, max_pixels=max_pixels), execution.threads.here)
  return CheckedTrunk(trunk.to_info(agreement), f"{trunk.describe(agreement)}; {execution.describe()}")


def write_report(
  about: Metrics,
  evaluation: EvaluateClassifier,
  request: EvaluationRequest,
  info: RunInfo,
  title: str,
  nights: Sequence[TrendPoint] = (),
) -> Metrics:
  """Judges the job's figures; writes `metrics.json` and `report.html`.

  `about` is the rest of `metrics.json`, with each model's `trunk_kind`; `nights` are the earlier ones, oldest first.
  """
  output = evaluation.output
  figures = JobFigures.from_json(files.read_bytes(files.join(evaluation.parts_folder, FIGURES_FILE)))
  models = {
    name: dataclasses.replace(
      figures.models[name], gates=judge(figures.models[name], request.thresholds), trunk_kind=described.trunk_kind
    )
    for name, described in about.models.items()
  }
  stats, allowed = read_stats(output, files), request.max_bad_fraction
  metrics = dataclasses.replace(
    about,
    model=models[MODEL],
    candidate=models.get(CANDIDATE),
    predictions_sha256=files.sha256(files.join(output, PREDICTIONS_FILE)),
    bad_inputs=BadInputs(stats.quarantined, stats.inputs, allowed, stats.bad_fraction > allowed),
  )
  files.write_text(files.join(output, METRICS_FILE), write_metrics(metrics))
  report = Report(
    metrics,
    images=figures.images,
    quarantined=read_quarantine(files.join(output, QUARANTINE_FILE), MAX_QUARANTINED_SHOWN),
    info=info,
    trend=[*nights, metrics.trend_point()] if nights else [],
    title=title,
  )
  files.write_text(files.join(output, REPORT_FILE), render_report(report))
  return metrics


def print_figures(metrics: Metrics, tables: Sequence[str] = ()) -> None:
  """Prints `tables`, the table of labels, and a line per gate."""
  if metrics.trunk == BUNDLED:
    print("the trunk is the bundled stand-in: for real work train with --trunk inception_v3")
  print("\n" + "\n\n".join([*tables, per_label_table(metrics.model)]) + "\n")
  for line in gate_lines(metrics):
    print(line)


def complete(evaluation: EvaluateClassifier, max_bad_fraction: float) -> bool:
  """Completes the folder and deletes temporary files, unless too many inputs are bad."""
  output = evaluation.output
  if read_stats(output, files).bad_fraction > max_bad_fraction:
    return False
  complete_folder(output, files)
  files.delete([evaluation.parts_folder, *(store.fresh_folder for store in evaluation.stores)])
  return True
