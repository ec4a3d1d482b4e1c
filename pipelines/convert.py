"""`beam-retrain convert`: images to a class-folder tree and TFRecords."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Mapping

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.engines.dataflow import describe_built_job, validate_single_job
from beam_retrain.pipelines.jobs.forked_workers import default_processes
from beam_retrain.pipelines.jobs.locks import holds_output
from beam_retrain.pipelines.jobs.runner import claim_output, exit_code, run_command, run_pipeline
from beam_retrain.pipelines.options.engine import check_paths
from beam_retrain.pipelines.options.flags import report_notes
from beam_retrain.pipelines.requests.convert import ConvertRequest
from beam_retrain.transforms.convert import ConvertShard, list_input, sweep_tree
from beam_retrain.transforms.core.corrections import OWNED as CORRECTIONS
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.upright import reader_versions
from beam_retrain.transforms.core.printing import print
from beam_retrain.transforms.core.records.output_names import check_folder_names, find_fault
from beam_retrain.transforms.core.records.schema import ALL, IMAGE_RECORD, RECORDS_FOLDER, TESTING, TRAINING, VALIDATION
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from beam_retrain.transforms.core.run.next_steps import beside, say_next
from beam_retrain.transforms.core.run.output_folder import find_earlier
from beam_retrain.transforms.core.run.run_info import RunInfo, describe_run
from beam_retrain.transforms.core.run.stats import read_stats
from beam_retrain.transforms.core.system.locks import claim_of
from beam_retrain.transforms.core.system.machine import available_cores
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.corrections import Opened, correct, open_corrections
from beam_retrain.transforms.shards.ledger import CloseLedger, mark_completed
from beam_retrain.transforms.shards.work import WorkShards
from beam_retrain.transforms.sources.base import Source, SourceOptions
from beam_retrain.transforms.sources.find import find_format, find_source
from beam_retrain.transforms.sources.idx import IdxSource, PlanIdxShards, count_shards
from beam_retrain.transforms.sources.one_folder import OneFolderSource

STAGE = "convert"

run = ConvertRequest.run


@dataclasses.dataclass(frozen=True)
class Job:
  request: ConvertRequest
  options: PipelineOptions
  task: ConvertShard
  plan: beam.PTransform  # PBegin -> PCollection[Shard]
  splits: tuple[str, ...]  # those of the images, or `all`
  shards: int  # their number, if need be an estimate
  settings: Mapping[str, object]  # further ones that decide the output's bytes
  corrected: Opened | None

  @property
  def output(self) -> str:
    return self.task.output

  @property
  def shards_folder(self) -> str:
    """Folder of the shards, or of reports alone without records."""
    return files.join(self.output, RECORDS_FOLDER) if self.task.writes_file else self.output

  @property
  def has_splits(self) -> bool:
    return ALL not in self.splits

  @functools.cached_property
  def info(self) -> RunInfo:
    """The new `info.json`, with settings that decide the output's bytes."""
    task = self.task
    settings = {"formats": task.formats, "quality": task.quality, "labels": task.labels, **self.settings}
    settings |= self.corrected.settings() if self.corrected else {}
    others = {"formats": task.formats, "schema": IMAGE_RECORD}
    has_splits = None if self.has_splits else False
    return describe_run(
      STAGE, settings, self.request.to_argv(), labels=task.labels, has_splits=has_splits, others=others
    )

  def claim(self) -> None:
    """Claims the output folder; keeps a killed run's finished shards."""
    earlier = find_earlier(self.output, STAGE, files)
    labels = earlier.labels if earlier and earlier.has_splits is False else ()
    classes = [label for label in labels if not find_fault(label, at_top=True)]
    shards_folder = RECORDS_FOLDER if self.task.writes_file else ""
    owned = (RECORDS_FOLDER, TRAINING, VALIDATION, TESTING, *CORRECTIONS)
    claim_output(self.output, self.info, owned=owned, owned_folders=classes, shards_folder=shards_folder)
    if self.corrected:
      self.corrected.copy_to(self.output)

  def build(self, root: beam.Pipeline) -> None:
    """Plans, works and closes."""
    corrections = self.corrected.in_output(self.output) if self.corrected else None
    shards = correct(root | "Plan" >> self.plan, corrections)
    # Shard
    reports = shards | "Work" >> WorkShards(self.task, output=self.shards_folder, request=self.info.request)
    # ShardReport
    tree = (*self.splits, VALIDATION) if self.has_splits else self.task.labels
    _ = (
      (shards, reports)
      | "Close" >> CloseLedger(output=self.output, shards_folder=self.shards_folder, corrections=corrections)
      # Stats
      | "SweepTree" >> beam.Map(sweep_tree, self.output, tree if self.task.in_tree else ())
      # Stats
      | "MarkCompleted" >> beam.Map(mark_completed, claim_of(self.output), self.request.max_bad_fraction)
    )  # Stats


@holds_output
def execute(request: ConvertRequest) -> int:
  job = plan(request)
  job.claim()
  processes = default_processes(request.beam_options, job.shards)
  run_pipeline(job.build, job.options, stage=STAGE, shards_folder=job.shards_folder, processes=processes)
  return report(job)


def plan(request: ConvertRequest) -> Job:
  """Lists and checks the input; changes nothing."""
  options = request.pipeline_options()
  path, output = files.absolute(request.input), files.absolute(request.output)
  request = request.with_absolute_paths()
  request.validate_apart("input")
  check_paths(options, path, output, request.corrections)
  validate_single_job(options, output)
  if find_format(path) is IdxSource:
    chosen = SourceOptions(request.classes, 1, class_names=request.class_names, transpose=request.transpose)
    idx_source = IdxSource(path, chosen)
    pairs = tuple(idx_source.pairs())
    report_notes(idx_source)
    corrected = open_corrections(request.corrections, idx_source)
    task = ConvertShard(output, request.formats, tuple(idx_source.labels), request.quality)
    # A changed input is another request: the old one's images must not stay in the tree.
    settings = {"inputs": [pair.to_settings() for pair in pairs]}
    shards = sum(map(count_shards, pairs))
    return Job(request, options, task, PlanIdxShards(pairs), (TRAINING, TESTING), shards, settings, corrected)
  return _plan_images(request, options, path, output)


def _plan_images(request: ConvertRequest, options: PipelineOptions, path: str, output: str) -> Job:
  is_known = find_format(path) or not OneFolderSource.recognises(path)
  source = (
    find_source(path, None, 1, False, request.class_names, request.transpose) if is_known else OneFolderSource(path)
  )
  report_notes(source)
  corrected = open_corrections(request.corrections, source)
  splits = _splits_of(source)
  shards = source.plan(splits, None)
  listed = list_input(source, splits, corrected.given() if corrected else None)
  task = ConvertShard(
    output,
    request.formats,
    tuple(source.labels),
    request.quality,
    alpha=request.alpha,
    max_pixels=request.max_pixels,
    clashing=listed.clashing,
    threads=max(1, available_cores() // default_processes(request.beam_options, listed.shards)),
  )
  if task.in_tree:
    check_folder_names(source.labels, at_top=not source.has_splits)
  settings = {
    "inputs": listed.digest,
    "alpha": request.alpha,
    "max_pixels": request.max_pixels,
    "readers": reader_versions(),
  }
  return Job(request, options, task, shards, splits, listed.shards, settings, corrected)


def _splits_of(source: Source) -> tuple[str, ...]:
  if not source.has_splits:
    return (ALL,)
  splits = [split for split in (TRAINING, TESTING) if _has_split(source, split)]
  # Validation images come with those for training: without these, `plan` says so.
  return tuple(splits) if TRAINING in splits or (not source.has_validation and splits) else (TRAINING, TESTING)


def _has_split(source: Source, split: str) -> bool:
  try:
    source.plan((split,), None)
    return True
  except InputError:
    return False


def report(job: Job) -> int:
  if built := describe_built_job(job.options):
    print(built)
    return ExitCode.DONE
  stats = read_stats(job.output, files)
  shown, name = files.shown(job.output), "INDEX" if isinstance(job.plan, PlanIdxShards) else "NAME"
  for split, counts in stats.splits.items():
    folder = shown if split == ALL else files.join(shown, split)
    places = [files.join(folder, "LABEL", f"{name}.{extension}") for extension in job.task.in_tree]
    if job.task.writes_file:
      places.append(files.join(shown, RECORDS_FOLDER, f"{split}-*.tfrecord"))
    print(f"{split}: {counts.outputs:,} images in {' and '.join(places)}")
  if job.corrected:
    job.corrected.report(stats, job.output)
  code = exit_code(stats, job.output, job.request.max_bad_fraction)
  if code == ExitCode.DONE:
    # Of IDX files the stages follow one by one; whoever has photos wants a model of them.
    following = ("bottlenecks", "--input") if isinstance(job.plan, PlanIdxShards) else ("run", "--data")
    output = beside(job.output, "bottlenecks" if "bottlenecks" in following else "model", files.exists)
    say_next(*following, shown, "--output", files.shown(output))
  return code


if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
