"""`beam-retrain bottlenecks`: labelled pictures through a frozen trunk, into records and a transform graph."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam

from pipelines import output_folder
from pipelines.arguments import (
  ArgumentParser,
  add_max_bad_fraction,
  add_model_flags,
  parse_with_beam_options,
  positive_int,
)
from pipelines.running import exit_code, guarded, run_pipeline
from pipelines.trunks import BUNDLED, load_trunk
from pipelines.trunks import HELP as TRUNK_HELP
from transforms import files
from transforms.bottlenecks import EmbedShard
from transforms.check_splits import CheckSplits
from transforms.close import CloseLedger, mark_completed
from transforms.core.errors import InputError
from transforms.core.schema import (
  COMPLETED_FILE,
  LABELS_FILE,
  PREPROCESSING_VERSION,
  RECORDS_FOLDER,
  SCHEMA_FILE,
  TESTING,
  TRAINING,
  bottleneck_record,
)
from transforms.core.shards import BOTTLENECKS
from transforms.core.splits import SplitPercentages
from transforms.model_handler import BATCH_SIZE, ImageModelHandler
from transforms.reuse import EmbedOnlyNew
from transforms.shard_work import WorkShards
from transforms.sources import Source, find_source
from transforms.store import find_stores

_FRESH_FOLDER = ".fresh"
_OWNED = (RECORDS_FOLDER, _FRESH_FOLDER, "trunk", "transform", "temp", SCHEMA_FILE)


@dataclasses.dataclass(frozen=True)
class Config:
  """What `build` needs to know.

  Attributes:
    source: the pictures.
    output: the stage's folder.
    request: digest of the settings.
    dimensions: length of a bottleneck.
    percentages: how many images are for testing and for validation.
    max_bad_fraction: 0..1.
    handler: the trunk, by the path that workers read.
    stores: folders with bottlenecks of earlier runs by the same trunk.
  """

  source: Source
  output: str
  request: str
  dimensions: int
  percentages: SplitPercentages
  max_bad_fraction: float
  handler: ImageModelHandler
  stores: Sequence[str] = ()

  @property
  def fresh_folder(self) -> str:
    """Where new pictures' bottlenecks go first, if there are stores."""
    return files.join(self.output, _FRESH_FOLDER)

  @property
  def records_folder(self) -> str:
    return files.join(self.output, RECORDS_FOLDER)

  @property
  def temp_folder(self) -> str:
    """tensorflow-transform's scratch folder, which all workers share."""
    return files.join(self.output, "temp")


def build(root: beam.Pipeline, config: Config) -> None:
  """Plan, work, analyze, close."""
  from transforms.analyze import AnalyzeBottlenecks  # loads TensorFlow and more: not for `--help`

  labels = config.source.labels
  shards = root | "Plan" >> config.source.plan((TRAINING, TESTING), config.percentages)
  checked = shards | "CheckSplits" >> CheckSplits(labels, config.percentages)
  if config.stores:
    work: beam.PTransform = EmbedOnlyNew(
      handler=config.handler,
      labels=labels,
      stores=config.stores,
      output=config.records_folder,
      fresh_folder=config.fresh_folder,
      request=config.request,
      checked=checked,
    )
  else:
    embed = EmbedShard(config.handler, labels)
    work = WorkShards(embed, output=config.records_folder, request=config.request, checked=checked)
  reports = shards | "Work" >> work
  transform = reports | "Analyze" >> AnalyzeBottlenecks(
    records_folder=config.records_folder,
    output=files.join(config.output, "transform"),
    temp_folder=config.temp_folder,
    dimensions=config.dimensions,
    labels=labels,
  )
  stats = (shards, reports) | "Close" >> CloseLedger(output=config.output, shards_folder=config.records_folder)
  _ = stats | "MarkCompleted" >> beam.Map(
    mark_completed, config.output, config.max_bad_fraction, beam.pvalue.AsList(transform)
  )


def check(root: beam.Pipeline, source: Source, percentages: SplitPercentages) -> None:
  """Plan, and no more than to see whether each class has pictures in each split."""
  shards = root | "Plan" >> source.plan((TRAINING, TESTING), percentages)
  _ = shards | "CheckSplits" >> CheckSplits(source.labels, percentages)


def make_parser() -> argparse.ArgumentParser:
  parser = ArgumentParser(
    prog="beam-retrain bottlenecks",
    description=(
      "Runs labelled pictures through a frozen trunk, once, and stores one vector (bottleneck) per picture.\n"
      "Then tensorflow-transform learns the scaling of the vectors from the training ones.\n\n"
      "A run that was killed goes on where it was: finished shards are kept. With --reuse, pictures that an earlier\n"
      "output has, by their bytes, cost no run of the trunk; the output is as complete as without."
    ),
    epilog=(
      "example:\n  beam-retrain bottlenecks --input flower_photos --trunk bundled --output flowers/bottlenecks\n\n"
      "Any Beam option may follow, for example --runner=FlinkRunner, or\n"
      "  --direct_running_mode=multi_processing --direct_num_workers=2   for two processes on this machine."
    ),
  )
  parser.add_argument(
    "--input",
    required=True,
    metavar="DIR",
    help="a folder of MNIST-style IDX files; of class folders, maybe in training/ and testing/ (JPEG, PNG, BMP, GIF;"
    " any size); or what `convert` wrote. It is recognised by what is there",
  )
  parser.add_argument(
    "--output", required=True, metavar="DIR", help="folder to write; new, empty, or of an earlier run"
  )
  parser.add_argument(
    "--reuse",
    action="append",
    default=[],
    metavar="DIR",
    help="take bottlenecks from DIR, what an earlier run of the same trunk wrote, and run the trunk over the other"
    " pictures only; DIR is not changed; may be given more than once",
  )
  parser.add_argument("--trunk", default=BUNDLED, help=f"{TRUNK_HELP} (default: %(default)s)")
  parser.add_argument(
    "--trunk_weights", metavar="FILE", help="local weights of a keras: trunk, where they cannot be downloaded"
  )
  parser.add_argument(
    "--trunk_input_px", type=int, metavar="PX", help="input size of a trunk that takes any (default: the trunk's own)"
  )
  parser.add_argument(
    "--testing_percentage",
    type=float,
    default=10.0,
    help="percent of the images for testing, by a stable hash of their names, where there is no folder testing/"
    " (default: %(default)g)",
  )
  parser.add_argument(
    "--validation_percentage", type=float, default=10.0, help="likewise, for validation (default: %(default)g)"
  )
  parser.add_argument(
    "--classes", type=positive_int, default=10, metavar="N", help="classes of an IDX folder (default: %(default)d)"
  )
  add_model_flags(parser, str(BATCH_SIZE))
  add_max_bad_fraction(parser)
  return parser


def run(argv: Sequence[str]) -> int:
  """Runs the stage; returns its exit code.

  Raises:
    InputError: something that the user gave cannot be used.
  """
  flags, options = parse_with_beam_options(make_parser(), argv)
  flags.input, flags.output = files.absolute(flags.input), files.absolute(flags.output)
  flags.reuse = [files.absolute(folder) for folder in flags.reuse]
  try:
    percentages = SplitPercentages(flags.testing_percentage, flags.validation_percentage)
  except ValueError as error:
    raise InputError(f"{error}.") from error
  source = find_source(flags.input, flags.classes)
  source.plan((TRAINING, TESTING), percentages)  # finds what is missing before the old output is touched
  for folder in flags.reuse:
    _refuse_overlap(folder, flags.output)
  trunk = load_trunk(flags.trunk, flags.trunk_weights, flags.trunk_input_px)
  stores = find_stores(flags.reuse, trunk.fingerprint, PREPROCESSING_VERSION)
  from transforms.analyze import record_schema_text  # after the trunk, which loads TensorFlow without its chatter

  if files.exists(files.join(flags.output, COMPLETED_FILE)):
    # What the job checks first anyway: an earlier output is not given up for one that cannot begin.
    run_pipeline(
      lambda root: check(root, source, percentages), options, stage="bottlenecks", shards_folder=flags.output
    )
  output_folder.refuse_overlap(flags.input, flags.output)
  settings = {
    "input": flags.input,
    "trunk_fingerprint": trunk.fingerprint,
    "preprocessing": PREPROCESSING_VERSION,
    "testing_percentage": flags.testing_percentage,
    "validation_percentage": flags.validation_percentage,
    "max_pixels": flags.max_pixels,
    "batch_size": flags.batch_size or BATCH_SIZE,
    "labels": source.labels,
  }
  request = output_folder.claim(
    flags.output,
    stage="bottlenecks",
    settings=settings,
    argv=argv,
    owned=_OWNED,
    shards_folder=RECORDS_FOLDER,
    trunk=trunk.card,
    labels=source.labels,
    schema=bottleneck_record(trunk.dimensions),
  )
  files.write_text(files.join(flags.output, LABELS_FILE), "".join(f"{label}\n" for label in source.labels))
  files.write_text(files.join(flags.output, SCHEMA_FILE), record_schema_text(trunk.dimensions))
  trunk_folder = files.join(flags.output, "trunk")
  trunk.save(trunk_folder)
  config = Config(
    source=source,
    output=flags.output,
    request=request,
    dimensions=trunk.dimensions,
    percentages=percentages,
    max_bad_fraction=flags.max_bad_fraction,
    handler=ImageModelHandler(
      trunk_folder,
      batch_size=flags.batch_size or BATCH_SIZE,
      threads=flags.trunk_threads or 0,
      max_pixels=flags.max_pixels,
    ),
    stores=stores,
  )
  # With stores, the new pictures are the long work; the records are then soon copied together.
  slow_folder = config.fresh_folder if stores else config.records_folder
  run_pipeline(lambda root: build(root, config), options, stage="bottlenecks", shards_folder=slow_folder)
  files.delete([config.temp_folder])
  if files.exists(files.join(flags.output, COMPLETED_FILE)):
    files.delete([config.fresh_folder])  # not without COMPLETED: the next run goes on from it
  stats = output_folder.read_stats(flags.output)
  shown = files.shown(flags.output)
  counts = ", ".join(
    f"{totals['outputs']:,} {split}" for split, totals in sorted(stats["splits"].items(), reverse=True)
  )
  print(f"bottlenecks: {counts}; {trunk.dimensions} numbers each, by the trunk {trunk.handle}; in {shown}")
  if stores:
    print(_reuse_line(stats, flags.reuse))
  return exit_code(stats, flags.output, flags.max_bad_fraction)


def _reuse_line(stats: Mapping[str, Any], folders: Sequence[str]) -> str:
  counts = stats[BOTTLENECKS]
  return (
    f"{counts['reused']:,} of {stats['outputs']:,} bottlenecks reused from {' and '.join(map(files.shown, folders))},"
    f" {counts['computed']:,} computed"
  )


def _refuse_overlap(store: str, output: str) -> None:
  """Checks that the folder to reuse is not the one to replace."""
  if files.is_local(store) and files.is_local(output):
    inner, outer = os.path.realpath(output), os.path.realpath(store)
    if os.path.commonpath([inner, outer]) in (inner, outer):
      raise InputError(f"--output {output} overlaps with --reuse {store}: give a new folder, the old one is only read.")


if __name__ == "__main__":
  sys.exit(guarded(run, sys.argv[1:]))
