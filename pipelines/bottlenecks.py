"""`beam-retrain bottlenecks`: labelled images through a frozen trunk, into records and a transform graph."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.engines.dataflow import ask_for_memory, refuse_more_jobs, what_was_built
from beam_retrain.pipelines.jobs import output_dir
from beam_retrain.pipelines.jobs.progress import Work
from beam_retrain.pipelines.jobs.runner import DONE, GATE_MISSED, exit_code, guarded, run_pipeline
from beam_retrain.pipelines.models.execution import (
  LEAST_IMAGES,
  choose_execution,
  is_local,
  limit_tensorflow,
  tell_halved,
  tell_workers,
  trunk_threads,
)
from beam_retrain.pipelines.models.precision import Choice, choose_variant
from beam_retrain.pipelines.models.sample import sample_images
from beam_retrain.pipelines.models.trunk_sources import load_trunk
from beam_retrain.pipelines.options.retrain_names import tell_left_out
from beam_retrain.pipelines.requests.bottlenecks import Request, make_parser, read_request, shared_scratch
from beam_retrain.pipelines.requests.text_import import IMPORTED_FOLDER, TextImport, find_text_import
from beam_retrain.transforms.bottlenecks.compute import EmbedShard
from beam_retrain.transforms.bottlenecks.distorted import DistortedBottlenecks
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.bottlenecks.reuse import EmbedOnlyNew
from beam_retrain.transforms.bottlenecks.store import find_stores
from beam_retrain.transforms.core.images.augment import DISTORTED
from beam_retrain.transforms.core.records.leaks import OnLeak
from beam_retrain.transforms.core.records.schema import (
  LEAKS_FILE,
  PREPROCESSING_VERSION,
  RECORDS_FOLDER,
  REFUSED_LEAKS_FILE,
  SCHEMA_FILE,
  TESTING,
  TRAINING,
  bottleneck_record,
)
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.run_info import describe_run, is_completed
from beam_retrain.transforms.core.run.stats import Stats, read_stats
from beam_retrain.transforms.io import files
from beam_retrain.transforms.leaks.policy import OWNED as AUDIT_OWNED
from beam_retrain.transforms.leaks.policy import Planned, SplitAudit
from beam_retrain.transforms.shards.ledger import CloseLedger, mark_completed
from beam_retrain.transforms.shards.work import WorkShards
from beam_retrain.transforms.sources.base import Source

__all__ = ["build", "make_parser", "run"]

_FRESH_FOLDER = ".fresh"
_FOLDERS = (RECORDS_FOLDER, DISTORTED, _FRESH_FOLDER, IMPORTED_FOLDER, "trunk", "transform", "temp")
_OWNED = (*_FOLDERS, SCHEMA_FILE, *AUDIT_OWNED)


@dataclasses.dataclass(frozen=True)
class Config:
  """What `build` needs to know.

  Attributes:
    source: the images.
    output: the stage's folder.
    request: digest of the settings.
    dimensions: length of a bottleneck.
    percentages: how many images are for testing and for validation.
    audit: what to do about leaks.
    max_bad_fraction: 0..1.
    handler: the trunk, by the path that workers read.
    stores: folders with bottlenecks of earlier runs by the same trunk.
    distorted: the part that embeds distorted variants; None: there are none.
    scratch: a local folder, which all workers see, for what TensorFlow writes on the way to a remote output; empty: it
      writes to the output.
  """

  source: Source
  output: str
  request: str
  dimensions: int
  percentages: SplitPercentages
  audit: SplitAudit
  max_bad_fraction: float
  handler: ImageModelHandler
  stores: Sequence[str] = ()
  distorted: DistortedBottlenecks | None = None
  scratch: str = ""

  @property
  def temp_folder(self) -> str:
    """tensorflow-transform's scratch folder, which all workers share."""
    return files.join(self.scratch or self.output, "temp")

  @property
  def fresh_folder(self) -> str:
    """Where new images' bottlenecks go first, if there are stores."""
    return files.join(self.output, _FRESH_FOLDER)

  @property
  def records_folder(self) -> str:
    return files.join(self.output, RECORDS_FOLDER)


def build(root: beam.Pipeline, config: Config) -> None:
  """Plan, work, distort, analyze, audit, close."""
  labels = config.source.labels
  planned = config.audit.plan(root | "Plan" >> config.source.plan((TRAINING, TESTING), config.percentages))
  if config.stores:
    work: beam.PTransform = EmbedOnlyNew(
      handler=config.handler,
      labels=labels,
      stores=config.stores,
      output=config.records_folder,
      fresh_folder=config.fresh_folder,
      request=config.request,
      checked=planned.checked,
    )
  else:
    embed = EmbedShard(config.handler, labels)
    work = WorkShards(embed, output=config.records_folder, request=config.request, checked=planned.checked)
  reports = planned.shards | "Work" >> work
  distorted = config.distorted.embed(planned.shards, planned.checked, reports) if config.distorted else None
  close(planned, reports, config, distorted)


def close(
  planned: Planned, reports: beam.PCollection, config: Config, distorted: beam.PCollection | None = None
) -> None:
  """Analyze, audit, close: what is done of the reports when the shards have been worked."""
  from beam_retrain.transforms.bottlenecks.analyze import (
    AnalyzeBottlenecks,  # loads TensorFlow and more: not for `--help`
  )

  transform = reports | "Analyze" >> AnalyzeBottlenecks(
    records_folder=config.records_folder,
    output=files.join(config.output, "transform"),
    temp_folder=config.temp_folder,
    dimensions=config.dimensions,
    labels=config.source.labels,
  )
  leaks = config.audit.audit(planned, reports, config.records_folder)
  stats = (planned.shards, reports) | "Close" >> CloseLedger(
    output=config.output, shards_folder=config.records_folder, leaks=leaks, distorted=distorted
  )
  _ = stats | "MarkCompleted" >> beam.Map(
    mark_completed, config.output, config.max_bad_fraction, beam.pvalue.AsList(transform)
  )


def check(
  root: beam.Pipeline,
  source: Source,
  percentages: SplitPercentages,
  audit: SplitAudit,
  leaks_path: str,
  imported: TextImport | None,
) -> None:
  """Plan, and no more than to see what would be refused: leaks, listed in `leaks_path`; a class without images in a
  split; what is imported and does not fit."""
  audit.plan(root | "Plan" >> source.plan((TRAINING, TESTING), percentages), leaks_path)
  if imported:
    imported.check(root)


def run(argv: Sequence[str]) -> int:
  """Runs the stage; returns its exit code.

  Raises:
    InputError: something that the user gave cannot be used.
  """
  request = read_request(argv)
  flags, options, source, percentages = request.flags, request.options, request.source, request.percentages
  tell_left_out(source)
  retry = request.retry
  before = {"--retry_from": retry, "--bottleneck_dir": flags.bottleneck_dir, "--on_leak fail": flags.on_leak == "fail"}
  refuse_more_jobs(options, flags.output, before)
  limit_tensorflow(trunk_threads(flags.trunk_threads, options))
  choice = retry.choose_variant() if retry else _choose_variant(request)
  trunk = choice.trunk
  stores = find_stores(flags.reuse, trunk.info.fingerprint, PREPROCESSING_VERSION, bool(flags.bottleneck_dir))
  imported = None
  if flags.bottleneck_dir:
    imported = find_text_import(flags.bottleneck_dir, source, percentages, trunk, flags.max_pixels, flags.output)
  if retry:
    stores = [retry.folder]
    retry.check_texts(imported.texts if imported else None)
    retry.check_images(source, percentages, options)
  from beam_retrain.transforms.bottlenecks.analyze import (
    record_schema_text,  # after the trunk, which loads TensorFlow without its chatter
  )

  output_dir.validate_apart(flags.input, flags.output)
  earlier = output_dir.find_earlier(flags.output, "bottlenecks")
  execution = choose_execution(
    flags.batch_size,
    flags.trunk_threads,
    options,
    trunk,
    earlier=earlier,
    is_large=lambda: source.has_at_least(LEAST_IMAGES),
  )
  print(f"{choice.describe()}; {execution.describe()}", flush=True)
  audit = SplitAudit(OnLeak(flags.on_leak), source.labels, percentages, flags.max_pixels, threads=execution.threads)

  def check_first(leaks_path: str) -> int:
    run_pipeline(
      lambda root: check(root, source, percentages, audit, leaks_path, imported),
      options,
      stage="bottlenecks",
      shards_folder=flags.output,
    )
    return GATE_MISSED if audit.refuses(leaks_path) else DONE

  finished = is_completed(flags.output, files)
  # What the job checks first anyway: an earlier output is not given up for one that cannot begin.
  if finished and (code := check_first(files.join(flags.output, REFUSED_LEAKS_FILE))):
    return code
  info = describe_run(
    "bottlenecks",
    request.settings(trunk.info.fingerprint, execution.batch_size, imported.texts if imported else None),
    argv,
    trunk=trunk.info,
    execution={**choice.to_info(), **execution.to_info()},
    labels=source.labels,
    has_splits=source.has_splits,
    others={"schema": bottleneck_record(trunk.info.dimensions)},
  )
  output_dir.claim(flags.output, info, owned=_OWNED, shards_folder=RECORDS_FOLDER)
  if not finished and audit.on_leak == OnLeak.FAIL and (code := check_first(files.join(flags.output, LEAKS_FILE))):
    return code
  files.write_text(files.join(flags.output, SCHEMA_FILE), record_schema_text(trunk.info.dimensions))
  trunk_folder = files.join(flags.output, "trunk")
  trunk.save(trunk_folder)
  ask_for_memory(options, trunk_folder)
  if imported:
    print(imported.run(info.request, options))
    stores = [imported.store, *stores]
  handler = ImageModelHandler(trunk_folder, **execution.of_handler, max_pixels=flags.max_pixels)
  distorted = None
  if request.distortions:
    distorted = DistortedBottlenecks(
      request.distortions,
      handler,
      source.labels,
      percentages,
      flags.output,
      trunk.info.fingerprint,
      PREPROCESSING_VERSION,
      earlier=[retry.folder] if retry else flags.reuse,
    )
  config = Config(
    source=source,
    output=flags.output,
    request=info.request,
    dimensions=trunk.info.dimensions,
    percentages=percentages,
    audit=audit,
    max_bad_fraction=flags.max_bad_fraction,
    handler=handler,
    stores=stores,
    distorted=distorted,
  )
  # With stores, the new images are the long work; the records are then copied together.
  slow_folder = config.fresh_folder if stores else config.records_folder
  others = [Work("records", config.records_folder, "records")] if stores else []
  if distorted:
    others.append(Work("variants", distorted.folder, "variants"))
  with _scratch_folder(flags.output, options) as scratch:
    config = dataclasses.replace(config, scratch=scratch)
    result = run_pipeline(
      lambda root: build(root, config), options, stage="bottlenecks", shards_folder=slow_folder, others=others
    )
  if built := what_was_built(options):
    print(built)
    return DONE
  if halved := tell_halved(result, execution, trunk, flags.output):
    print(halved)
  if workers := tell_workers(result, flags.output):
    print(workers)
  files.delete([files.join(flags.output, "temp")])
  if is_completed(flags.output, files):
    # Not without COMPLETED: the next run goes on from them.
    files.delete([config.fresh_folder, files.join(flags.output, IMPORTED_FOLDER)])
  stats = read_stats(flags.output, files)
  shown = files.shown(flags.output)
  counts = ", ".join(f"{of_split.outputs:,} {split}" for split, of_split in sorted(stats.splits.items(), reverse=True))
  print(f"bottlenecks: {counts}; {trunk.info.dimensions} numbers each, by the trunk {trunk.info.handle}; in {shown}")
  if distorted:
    print(distorted.describe(stats))
  if retry:
    print(retry.describe(flags.output))
  if stores:
    print(_reuse_line(stats, [*filter(None, [flags.bottleneck_dir, retry and retry.folder]), *flags.reuse]))
  audit.tell(stats, flags.output)
  return exit_code(stats, flags.output, flags.max_bad_fraction)


@contextlib.contextmanager
def _scratch_folder(output: str, options: PipelineOptions) -> Iterator[str]:
  """Gives `Config.scratch`: of this machine, where the workers are on it, or one that they share. Without one,
  TensorFlow itself writes to `gs://`."""
  shared = shared_scratch(options)
  if files.is_local(output) or not (is_local(options) or shared):
    yield ""
    return
  if shared:
    files.make_folder(shared)
  with tempfile.TemporaryDirectory(prefix="beam-retrain-", dir=shared or None) as folder:
    yield folder


def _choose_variant(request: Request) -> Choice:
  flags = request.flags
  unfinished = not is_completed(flags.output, files)
  return choose_variant(
    load_trunk(flags.trunk, flags.trunk_weights, flags.trunk_input_px),
    flags.precision,
    flags.runtime,
    lambda count: sample_images(request.source, (TRAINING,), request.percentages, count, flags.max_pixels),
    # A killed run's finished shards are to be of use too.
    earlier=[*flags.reuse, *([flags.output] if unfinished else [])],
  )


def _reuse_line(stats: Stats, folders: Sequence[str]) -> str:
  assert stats.bottlenecks is not None, "the job counted its bottlenecks"
  shown = " and ".join(map(files.shown, folders))
  return (
    f"{stats.bottlenecks.reused:,} of {stats.outputs:,} bottlenecks reused from {shown},"
    f" {stats.bottlenecks.computed:,} computed"
  )


if __name__ == "__main__":
  sys.exit(guarded(run, sys.argv[1:]))
