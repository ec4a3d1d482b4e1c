"""`beam-retrain bottlenecks`: images to bottleneck records and a transform graph."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineResult

from beam_retrain.pipelines.engines.dataflow import describe_built_job, request_memory, validate_single_job
from beam_retrain.pipelines.jobs.locks import holds_output
from beam_retrain.pipelines.jobs.progress import Work
from beam_retrain.pipelines.jobs.runner import claim_output, exit_code, run_command, run_pipeline
from beam_retrain.pipelines.models.execution import (
  Execution,
  choose_execution,
  limit_tensorflow,
  report_halved_batch,
  report_workers,
)
from beam_retrain.pipelines.models.photos import say_trunk_for_photos
from beam_retrain.pipelines.models.precision import Choice, choose_variant
from beam_retrain.pipelines.models.sample import sample_images
from beam_retrain.pipelines.models.trunk_sources import Trunk, load_trunk
from beam_retrain.pipelines.options.engine import check_paths
from beam_retrain.pipelines.options.flags import LEAST_IMAGES, report_notes, report_oriented, retrain_names_setting
from beam_retrain.pipelines.requests.bottlenecks import BottlenecksRequest
from beam_retrain.pipelines.requests.retry import Retry, read_retry
from beam_retrain.pipelines.requests.text_import import IMPORTED_FOLDER, TextImport, find_text_import
from beam_retrain.transforms.bottlenecks.compute import (
  FRESH_FOLDER,
  TRANSFORM_FOLDER,
  ComputeBottlenecks,
  record_settings,
)
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.bottlenecks.store import PREVIOUS_FOLDER, find_previous, find_stores, set_aside
from beam_retrain.transforms.core.corrections import OWNED as CORRECTIONS
from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.images.augment import DISTORTED
from beam_retrain.transforms.core.printing import detail, is_stage, print, say
from beam_retrain.transforms.core.records.quarantine import OnLeak
from beam_retrain.transforms.core.records.schema import (
  LEAKS_FILE,
  PREPROCESSING_VERSION,
  RECORDS_FOLDER,
  REFUSED_LEAKS_FILE,
  REPORTS_FOLDER,
  SCHEMA_FILE,
  TESTING,
  TRAINING,
  TRUNK_FOLDER,
  bottleneck_record,
  schema_text,
)
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from beam_retrain.transforms.core.run.next_steps import beside, say_next
from beam_retrain.transforms.core.run.output_folder import find_earlier, is_completed
from beam_retrain.transforms.core.run.run_info import RunInfo, describe_run
from beam_retrain.transforms.core.run.stats import Stats, read_stats
from beam_retrain.transforms.core.runtimes.trunk_info import BUNDLED
from beam_retrain.transforms.io import files
from beam_retrain.transforms.leaks.audit import SplitAudit
from beam_retrain.transforms.shards.corrections import Opened, correct, open_corrections
from beam_retrain.transforms.sources.base import Source

STAGE = "bottlenecks"

run = BottlenecksRequest.run
_TEMP_FOLDER = "temp"  # of killed runs of 0.4
_SPLITS = (TRAINING, TESTING)
_FOLDERS = (RECORDS_FOLDER, DISTORTED, FRESH_FOLDER, IMPORTED_FOLDER, TRUNK_FOLDER, TRANSFORM_FOLDER, _TEMP_FOLDER)
_OWNED = (*_FOLDERS, SCHEMA_FILE, LEAKS_FILE, REFUSED_LEAKS_FILE, *CORRECTIONS, PREVIOUS_FOLDER)


@dataclasses.dataclass(frozen=True)
class Job:
  request: BottlenecksRequest  # with absolute paths and, with `--retry_from`, the earlier run's settings
  argv: Sequence[str]  # that makes the same output
  options: PipelineOptions
  source: Source
  percentages: SplitPercentages
  choice: Choice
  execution: Execution
  stores: Sequence[str]
  retry: Retry | None
  imported: TextImport | None
  corrected: Opened | None
  previous: str | None  # where this output's records with other corrections are kept, to take bottlenecks from

  @property
  def output(self) -> str:
    return self.request.output

  @property
  def trunk(self) -> Trunk:
    return self.choice.trunk

  @property
  def audit(self) -> SplitAudit:
    on_leak, threads = OnLeak(self.request.on_leak), self.execution.threads
    return SplitAudit(on_leak, self.source.labels, self.percentages, self.request.max_pixels, threads)

  @property
  def handler(self) -> ImageModelHandler:
    return self.execution.handler(files.join(self.output, TRUNK_FOLDER), self.request.max_pixels)

  @functools.cached_property
  def info(self) -> RunInfo:
    """The new `info.json`, with settings that decide the output's bytes.

    Flags that came later are left out of them at their default, so that older outputs stay valid.
    """
    request, source, trunk = self.request, self.source, self.trunk.info
    settings = {
      "input": request.input,
      **record_settings(self.handler, trunk.fingerprint, self.percentages, source.labels),
      **retrain_names_setting(request.retrain_names),
      **request.idx_settings(),
      **({"on_leak": request.on_leak} if request.on_leak != OnLeak.WARN else {}),
      **({"distortions": request.distortions.to_settings()} if request.distortions else {}),
      **(self.corrected.settings() if self.corrected else {}),
      **({"bottleneck_dir": self.imported.texts.to_settings()} if self.imported else {}),
    }
    return describe_run(
      STAGE,
      settings,
      self.argv,
      trunk=trunk,
      execution={**self.choice.to_info(), **self.execution.to_info()},
      labels=source.labels,
      has_splits=source.has_splits,
      others={"schema": bottleneck_record(trunk.dimensions)},
    )

  def is_refused(self, leaks_path: str) -> bool:
    """Checks splits, leaks and texts; returns whether `--on_leak fail` applies.

    Raises InputError if a class has no images in a split, or a text bottleneck cannot be imported.
    """

    def build(root: beam.Pipeline) -> None:
      shards = root | "Plan" >> self.source.plan(_SPLITS, self.percentages)
      self.audit.plan(correct(shards, self.corrected.given() if self.corrected else None), leaks_path)
      if self.imported:
        self.imported.check(root)

    run_pipeline(build, self.options, stage=STAGE, shards_folder=self.output)
    return self.audit.refuses(leaks_path)

  def claim(self) -> bool:
    """Claims the output folder; returns whether the job can begin."""
    # A job that cannot begin must not delete an earlier output.
    replaces = is_completed(self.output, files)
    if replaces and self.is_refused(files.join(self.output, REFUSED_LEAKS_FILE)):
      return False
    if self.previous and replaces:
      set_aside(self.output)
    owned = [name for name in _OWNED if not self.previous or name != PREVIOUS_FOLDER]
    claim_output(self.output, self.info, owned=owned, shards_folder=RECORDS_FOLDER)
    files.delete([files.join(self.output, _TEMP_FOLDER)])
    if self.corrected:
      self.corrected.copy_to(self.output)
    if self.audit.on_leak == OnLeak.FAIL and not replaces and self.is_refused(files.join(self.output, LEAKS_FILE)):
      return False
    files.write_text(files.join(self.output, SCHEMA_FILE), schema_text(self.trunk.info.dimensions))
    trunk_folder = files.join(self.output, TRUNK_FOLDER)
    self.trunk.save(trunk_folder)
    request_memory(self.options, trunk_folder)
    return True

  def build(self, root: beam.Pipeline | beam.pvalue.PBegin) -> beam.PCollection:
    """Plans, works and closes; returns a PCollection of one `Stats`."""
    corrections = self.corrected.in_output(self.output) if self.corrected else None
    compute = ComputeBottlenecks(
      self.handler,
      labels=self.source.labels,
      output=self.output,
      trunk=self.trunk.info,
      percentages=self.percentages,
      on_leak=OnLeak(self.request.on_leak),
      stores=self.stores,
      distortions=self.request.distortions,
      max_bad_fraction=self.request.max_bad_fraction,
      request=self.info.request,
      corrections=corrections,
    )
    shards = root | "Plan" >> self.source.plan(_SPLITS, self.percentages)
    return correct(shards, corrections) | "ComputeBottlenecks" >> compute

  def works(self) -> list[Work]:
    """Returns the long parts of the job, the longest first."""
    records = files.join(self.output, RECORDS_FOLDER)
    # With stores, the new images take long; the records are then merged quickly.
    works = [Work(STAGE, records)]
    if self.stores:
      works = [Work(STAGE, files.join(self.output, FRESH_FOLDER)), Work("records", records, "records")]
    if self.request.distortions:
      works.append(Work("variants", files.join(self.output, DISTORTED), "variants"))
    return works


@holds_output
def execute(request: BottlenecksRequest) -> int:
  job = plan(request)
  if job.trunk.info.handle == BUNDLED and not is_stage():
    say_trunk_for_photos(job.source, (request.command, *(request.typed or job.argv)))
  detail(f"{job.choice.describe()}; {job.execution.describe()}")
  if not job.claim():
    return ExitCode.GATE_MISSED
  if job.imported:
    say(*job.imported.run(job.info.request, job.options), sep="\n")
  slowest, *others = job.works()
  result = run_pipeline(job.build, job.options, stage=STAGE, shards_folder=slowest.folder, others=others)
  return report(job, result)


def plan(request: BottlenecksRequest) -> Job:
  """Checks the request and loads the trunk; changes nothing."""
  argv = (request.stands_for or request).to_argv()
  options = request.pipeline_options()
  check_paths(options, request.input, request.output, request.reuse, request.retry_from, request.corrections)
  retry = read_retry(files.absolute(request.retry_from)) if request.retry_from else None
  if retry:
    request = retry.apply(request)
  elif not request.input:
    raise InputError(f"{request.prog()}: the following arguments are required: {flag('input')}.")
  _ = request.distortions  # validates their flags
  typed, request = request, request.with_absolute_paths()
  _validate_output(request, options)
  source, percentages = typed.find_source(request.input)
  if retry:
    percentages = retry.percentages
  corrected = open_corrections(request.corrections, source, min_classes=2)
  source.plan(_SPLITS, percentages)  # fails before the old output is touched
  report_notes(source)
  limit_tensorflow(request.trunk_threads, options)
  choice = retry.choose_variant() if retry else _choose_variant(request, source, percentages)
  imported = find_text_import(request, source, percentages, choice.trunk.info)
  fingerprint, has_texts = choice.trunk.info.fingerprint, imported is not None
  earlier = find_earlier(request.output, STAGE, files)
  stores = [retry.folder] if retry else find_stores(request.reuse, fingerprint, PREPROCESSING_VERSION, has_texts)
  execution = choose_execution(
    request.batch_size,
    request.trunk_threads,
    options,
    choice.trunk,
    earlier=earlier,
    is_large=lambda: source.has_at_least(LEAST_IMAGES),
  )
  digest = corrected.corrections.digest if corrected else None
  previous = find_previous(request.output, earlier, fingerprint, digest) if not imported else None
  stores = [*([imported.store] if imported else []), *stores, *([previous] if previous else [])]
  job = Job(
    request=request,
    argv=argv,
    options=options,
    source=source,
    percentages=percentages,
    choice=choice,
    execution=execution,
    stores=stores,
    retry=retry,
    imported=imported,
    corrected=corrected,
    previous=previous,
  )
  if retry:
    retry.check_unchanged(job.info, source, _SPLITS, options)
  return job


def _validate_output(request: BottlenecksRequest, options: PipelineOptions) -> None:
  """Checks that the output is separate, and writable for the workers."""
  request.validate_apart("input", "reuse", "retry_from", "trunk", "trunk_weights")
  jobs_before = {
    flag("retry_from"): request.retry_from,
    flag("bottleneck_dir"): request.bottleneck_dir,
    f"{flag('on_leak')} fail": request.on_leak == OnLeak.FAIL,
  }
  validate_single_job(options, request.output, jobs_before)


def _choose_variant(request: BottlenecksRequest, source: Source, percentages: SplitPercentages) -> Choice:
  unfinished = not is_completed(request.output, files)
  return choose_variant(
    load_trunk(request.trunk, request.trunk_weights, request.trunk_input_px),
    request.precision,
    request.runtime,
    lambda count: sample_images(source, (TRAINING,), percentages, count, request.max_pixels),
    # Keeps a killed run's finished shards usable.
    earlier=[*request.reuse, *([request.output] if unfinished else [])],
  )


def report(job: Job, result: PipelineResult) -> int:
  """Deletes temporary files and prints the result; returns the exit code."""
  if built := describe_built_job(job.options):
    print(built)
    return ExitCode.DONE
  for line in (report_halved_batch(result, job.execution, job.trunk, job.output), report_workers(result, job.output)):
    if line:
      detail(line)
  if is_completed(job.output, files):
    # Without COMPLETED the next run resumes from them.
    files.delete([files.join(job.output, name) for name in (FRESH_FOLDER, IMPORTED_FOLDER, PREVIOUS_FOLDER)])
    output = (job.request.stands_for or job.request).output
  else:
    files.sweep(files.join(job.output, FRESH_FOLDER, REPORTS_FOLDER))
    output = job.output
  stats = read_stats(job.output, files)
  _print_summary(job, stats, output)
  report_oriented(stats, files.shown(job.source.path), job.request.max_bad_fraction)
  job.audit.report(stats, output)
  if job.corrected:
    job.corrected.report(stats, output)
  code = exit_code(stats, output, job.request.max_bad_fraction)
  if code == ExitCode.DONE:
    model = beside(output, "model", files.exists)
    say_next("train", "--input", files.shown(output), "--output", files.shown(model))
  return code


def _print_summary(job: Job, stats: Stats, output: str) -> None:
  shown, trunk, request = files.shown(output), job.trunk.info, job.request
  counts = ", ".join(f"{of_split.outputs:,} {split}" for split, of_split in sorted(stats.splits.items(), reverse=True))
  print(f"{counts} images through the trunk {trunk.handle}, into {shown}")
  detail(f"{trunk.dimensions:,} numbers each, in {trunk.variant}")
  if variants := stats.distorted:
    say(
      f"{variants['records']:,} distorted variants, {variants['copies']} of each of {variants['pictures']:,} training"
      f" images, in {files.shown(files.join(output, DISTORTED))}"
    )
  if job.retry:
    say(job.retry.describe(job.output))
  if job.stores and (made := stats.bottlenecks):
    own = job.output if job.previous else None
    folders = [folder for folder in (request.bottleneck_dir, request.retry_from, *request.reuse, own) if folder]
    say(
      f"{made.reused:,} of {stats.outputs:,} bottlenecks reused from {' and '.join(map(files.shown, folders))},"
      f" {made.computed:,} computed"
    )


if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
