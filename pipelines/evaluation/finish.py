"""The evaluation job, as `evaluate` and `reevaluate` both run it, and what their commands do after it.

Plan, work, close, in one job: where bottlenecks are reused, the images' bottlenecks are a first shard of work, the
scores a second one over the records of the first. The job leaves figures; the command judges them, draws the report
and, last, marks the folder as finished.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam

from beam_retrain.pipelines.jobs.runner import DONE, GATE_MISSED, exit_code
from beam_retrain.pipelines.models.execution import Execution
from beam_retrain.pipelines.models.model_trunk import ModelTrunk
from beam_retrain.pipelines.models.sample import sample_images
from beam_retrain.reporting.gates import judge
from beam_retrain.reporting.html_report import Report, render_report
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.bottlenecks.reuse import EmbedOnlyNew
from beam_retrain.transforms.bottlenecks.store import store_folder
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics.figures import (
  CANDIDATE,
  MISSED,
  MODEL,
  BadInputs,
  Metrics,
  ModelMetrics,
  TrendPoint,
)
from beam_retrain.transforms.core.metrics.metrics_file import METRICS_FILE, write_metrics
from beam_retrain.transforms.core.records.schema import INFO_FILE, QUARANTINE_FILE, parse_shard_name
from beam_retrain.transforms.core.records.shards import Shard, ShardReport
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.output_dir import OutputDir
from beam_retrain.transforms.core.run.run_info import RunInfo, describe_run
from beam_retrain.transforms.core.run.stats import read_stats
from beam_retrain.transforms.evaluation.compare import CompareNights
from beam_retrain.transforms.evaluation.evaluate import (
  FIGURES_FILE,
  PARTS_FOLDER,
  PREDICTIONS_FILE,
  CheckNotEmpty,
  CombineLabelStats,
  EvaluateShard,
  JobFigures,
  WriteFigures,
  WritePredictions,
)
from beam_retrain.transforms.evaluation.scoring import Scorer
from beam_retrain.transforms.evaluation.thumbnails import ReadThumbnails
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.ledger import CloseLedger, mark_completed, read_quarantine
from beam_retrain.transforms.shards.work import REPORTS_FOLDER, WorkShards
from beam_retrain.transforms.sources.base import Source
from beam_retrain.transforms.sources.records import RecordsFile

REPORT_FILE = "report.html"
FRESH_FOLDER = ".fresh"
MAX_QUARANTINED_SHOWN = 500


@dataclasses.dataclass(frozen=True)
class TrunkRun:
  """A trunk whose bottlenecks are wanted of every image.

  Attributes:
    handler: the trunk, by the path that workers read.
    stores: folders of finished bottlenecks of this trunk.
    store: the folder that this run makes, complete.
    request: digest of what decides its bytes.
  """

  handler: ImageModelHandler
  stores: Sequence[str]
  store: str
  request: str

  @property
  def records_folder(self) -> str:
    return files.join(self.store, "records")


@dataclasses.dataclass(frozen=True)
class Config:
  """What `build` needs to know.

  Attributes:
    source: the images, or the stored bottlenecks.
    splits: which of its splits are evaluated.
    percentages: how a source without splits of its own is split; None: not at all.
    scorer: where the scores come from.
    models: name -> label list, in the order of the scores.
    output: the stage's folder.
    request: digest of the settings.
    execution_time: the job's start, as `time.ctime()` writes it.
    trunks: whose bottlenecks are computed or reused first; none where the scorer reads the source itself.
    compare: the step that compares the predictions with others, and slices them; None: nothing to compare.
  """

  source: Source
  splits: tuple[str, ...]
  percentages: SplitPercentages | None
  scorer: Scorer
  models: Mapping[str, Sequence[str]]
  output: str
  request: str
  execution_time: str
  trunks: Sequence[TrunkRun] = ()
  compare: CompareNights | None = None

  @property
  def parts_folder(self) -> str:
    return files.join(self.output, PARTS_FOLDER)

  @property
  def longest_work_folder(self) -> str:
    """Where the shards appear that take the time: those of the trunk, if it is run apart from the scoring."""
    return files.join(self.trunks[0].store, FRESH_FOLDER) if self.trunks else self.parts_folder


def read_paths(flags: argparse.Namespace, *names: str) -> None:
  """Makes the paths that a user gave absolute, in place; what was not given stays None.

  Raises:
    InputError: one is empty, as that of a variable is which a script forgot to set.
  """
  for name in names:
    given = getattr(flags, name)
    if given == "" or (isinstance(given, list) and "" in given):
      raise InputError(f"--{name} is empty: give a {'file' if name == 'manifest' else 'folder'}.")
    if given is not None:
      absolute = files.absolute(given) if isinstance(given, str) else list(map(files.absolute, given))
      setattr(flags, name, absolute)


def claim_store(
  output: str, trunk: ModelTrunk, stores: Sequence[str], execution: Execution, max_pixels: int
) -> TrunkRun:
  """Begins, in a claimed output folder, the store of all bottlenecks of a model's trunk.

  Args:
    output: the stage's folder.
    trunk: in the kind that is run.
    stores: folders of finished bottlenecks of the same trunk and kind.
    execution: how the trunk is run.
    max_pixels: largest height x width that is decoded.
  """
  model = trunk.model
  store = store_folder(output, trunk.fingerprint)
  settings = {
    "trunk_fingerprint": trunk.fingerprint,
    "preprocessing": model.preprocessing,
    "labels": model.labels,
    "batch_size": execution.batch_size,
    "max_pixels": max_pixels,
  }
  info = describe_run("store", settings, [], trunk=trunk.info, labels=model.labels)
  files.make_folder(files.join(store, "records", REPORTS_FOLDER))
  files.write_text(files.join(store, INFO_FILE), info.to_json())
  handler = trunk.to_bottlenecks(**execution.of_handler, max_pixels=max_pixels)
  return TrunkRun(handler, stores, store, info.request)


class CheckedTrunk(NamedTuple):
  """What is said of a trunk's kind when the job is done.

  Attributes:
    info: for `metrics.json`, JSON values.
    told: for people, one line.
  """

  info: dict[str, Any]
  told: str


def check_trunk(trunk: ModelTrunk, config: Config, threads: int, max_pixels: int) -> CheckedTrunk:
  """Holds what a trunk gives for a sample of the images against float32, if any image has run through it.

  Args:
    trunk: in the kind that was run.
    config: of the job, which is done.
    threads: in this process; 0 leaves the runtime's own choice.
    max_pixels: largest height x width that is decoded.
  """
  of_trunk = [run for run in config.trunks if run.store == store_folder(config.output, trunk.fingerprint)]
  agreement = None
  if all(counts.computed for run in of_trunk if (counts := read_stats(run.store, files).bottlenecks)):
    sample = sample_images(config.source, config.splits, config.percentages, max_pixels=max_pixels)
    agreement = trunk.check(sample, threads)
  return CheckedTrunk(trunk.to_info(agreement), trunk.describe(agreement))


def build(root: beam.Pipeline, config: Config) -> None:
  """Plan, work, close."""
  shards = root | "Plan" >> config.source.plan(config.splits, config.percentages)
  checked = shards | "CheckNotEmpty" >> CheckNotEmpty(
    f"{config.source.path} has no images of the split {' or '.join(config.splits)}: give another --input or --split."
  )
  to_score = _embed(shards, checked, config) if config.trunks else shards
  reports = to_score | "Work" >> WorkShards(
    EvaluateShard(config.scorer, config.models), output=config.parts_folder, request=config.request, checked=checked
  )
  shown = reports | "WritePredictions" >> WritePredictions(
    parts_folder=config.parts_folder,
    output=config.output,
    models=list(config.models),
    execution_time=config.execution_time,
  )
  comparison = reports | "Compare" >> config.compare if config.compare else None
  seen = [shown, comparison] if comparison is not None else [shown]
  stats: dict[str, beam.PCollection[ModelMetrics]] = {
    model: reports | f"CombineLabelStats[{model}]" >> CombineLabelStats(labels, model)
    for model, labels in config.models.items()
  }
  ledger = (shards, reports) | "Close" >> CloseLedger(output=config.output, shards_folder=config.parts_folder)
  _ = ledger | "WriteFigures" >> WriteFigures(
    parts_folder=config.parts_folder,
    output=config.output,
    stats=stats,
    predictions=shown,
    thumbnails=shards | "Thumbnails" >> ReadThumbnails(*seen),
    compared=comparison,
  )


def _embed(shards: beam.PCollection, checked: beam.PCollection, config: Config) -> beam.PCollection:
  """Makes each trunk's store; returns PCollection[Shard] whose inputs are its record files, one per trunk."""
  written = {}
  for number, trunk in enumerate(config.trunks):
    name = f"[{number}]"
    reports = shards | f"Embed{name}" >> EmbedOnlyNew(
      handler=trunk.handler,
      labels=config.models[MODEL],
      stores=trunk.stores,
      output=trunk.records_folder,
      fresh_folder=files.join(trunk.store, FRESH_FOLDER),
      request=trunk.request,
      checked=checked,
    )
    ledger = (shards, reports) | f"CloseStore{name}" >> CloseLedger(
      output=trunk.store, shards_folder=trunk.records_folder
    )
    # A store holds the good images: how many were bad is for the evaluation to judge.
    _ = ledger | f"MarkStore{name}" >> beam.Map(mark_completed, trunk.store, 1.0)
    written[number] = reports | f"RecordsOfShard{name}" >> beam.Map(_records_of, trunk.records_folder)
    # (shard's file name, RecordsFile)
  if len(written) == 1:
    return written[0] | "ShardOfRecords" >> beam.MapTuple(lambda name, records: _shard_of(name, [records]))
  return (
    written
    | "JoinTrunks" >> beam.CoGroupByKey()
    | "ShardOfRecords"
    >> beam.MapTuple(
      lambda name, found: _shard_of(name, list(itertools.chain.from_iterable(found[key] for key in sorted(found))))
    )
  )  # Shard


def _records_of(report: ShardReport, folder: str) -> tuple[str, RecordsFile]:
  stat = files.stat(files.join(folder, report.file))
  assert stat is not None, f"{report.file} was written just now"
  return report.file, RecordsFile(*stat)


def _shard_of(name: str, records: Sequence[RecordsFile]) -> Shard:
  parsed = parse_shard_name(name)
  assert parsed is not None, f"{name} is the name of a shard"
  return Shard(*parsed, inputs=tuple(records))


def read_figures(output: str) -> JobFigures:
  """Returns what the job left for the command."""
  return JobFigures.from_json(files.read_bytes(files.join(output, PARTS_FOLDER, FIGURES_FILE)))


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a user allows.

  Attributes:
    gates: name of a gate -> its threshold, 0..1, or None.
    max_bad_fraction: part of the inputs that may be bad, 0..1.
  """

  gates: Mapping[str, float | None]
  max_bad_fraction: float


def judge_figures(figures: JobFigures, about: Metrics, limits: Limits, output: str) -> Metrics:
  """Returns what `metrics.json` says: the job's figures with the results of the gates.

  Args:
    figures: from the job.
    about: which split, which trunk; its models hold their `trunk_kind`.
    limits: what the user allows.
    output: folder of the finished job.
  """
  models = {
    name: dataclasses.replace(
      figures.models[name], gates=judge(figures.models[name], limits.gates), trunk_kind=described.trunk_kind
    )
    for name, described in about.models.items()
  }
  stats = read_stats(output, files)
  return dataclasses.replace(
    about,
    model=models[MODEL],
    candidate=models.get(CANDIDATE),
    predictions_sha256=files.sha256(files.join(output, PREDICTIONS_FILE)),
    bad_inputs=BadInputs(
      stats.quarantined,
      stats.inputs,
      limits.max_bad_fraction,
      stats.bad_fraction > limits.max_bad_fraction,
    ),
  )


def write_report(
  metrics: Metrics,
  figures: JobFigures,
  info: RunInfo,
  title: str,
  output: str,
  nights: Sequence[TrendPoint] = (),
) -> None:
  """Writes `metrics.json` and `report.html`.

  Args:
    metrics: see `judge_figures`.
    figures: from the job.
    info: the contents of `info.json`.
    title: of the report.
    output: folder to write to.
    nights: earlier nights, the oldest first.
  """
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


def complete(config: Config, max_bad_fraction: float) -> bool:
  """Marks the stage's folder as finished, and deletes what only a run needs that goes on; says whether it did.

  It does not where more inputs were bad than `max_bad_fraction`, 0..1.
  """
  if not OutputDir(config.output, files).complete(read_stats(config.output, files), max_bad_fraction):
    return False
  files.delete([config.parts_folder, *(files.join(trunk.store, FRESH_FOLDER) for trunk in config.trunks)])
  return True


def outcome(metrics: Metrics, folder: str, max_bad_fraction: float) -> int:
  """Says what was quarantined, and returns the exit code; `folder` is where the output is now."""
  code = exit_code(read_stats(folder, files), folder, max_bad_fraction)
  return GATE_MISSED if code == DONE and metrics.verdict == MISSED else code
