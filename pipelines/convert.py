"""`beam-retrain convert`: IDX files to a class-folder tree of images and to TFRecords, in one pass."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence

import apache_beam as beam

from beam_retrain.pipelines.engines.dataflow import refuse_more_jobs, what_was_built
from beam_retrain.pipelines.jobs import output_dir
from beam_retrain.pipelines.jobs.forked_workers import default_processes
from beam_retrain.pipelines.jobs.runner import DONE, exit_code, guarded, run_pipeline
from beam_retrain.pipelines.options.arguments import ArgumentParser, add_max_bad_fraction, parse_job, refuse_unreachable
from beam_retrain.transforms.convert import FORMATS, IMAGE_FORMATS, JPG, TFRECORD, ConvertShard, sweep_tree
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.encode import DEFAULT_QUALITY
from beam_retrain.transforms.core.records.schema import IMAGE_RECORD, LABELS_FILE
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.ledger import CloseLedger, mark_completed
from beam_retrain.transforms.shards.work import WorkShards
from beam_retrain.transforms.sources.idx import IdxPair, PlanIdxShards, count_shards, find_idx_splits

STAGE = "convert"
RECORDS_FOLDER = "records"

_DESCRIPTION = """\
Turns the four IDX files of MNIST (or of any data set in its format) into images and records.

reads    INPUT/{train,t10k}-{images-idx3,labels-idx1}-ubyte, plain or .gz, also spelled train-images.idx3-ubyte
writes   OUTPUT/{training,testing}/LABEL/INDEX.jpg   INDEX is the position in the IDX file
         OUTPUT/records/{training,testing}-SSSSS-of-NNNNN.tfrecord
         OUTPUT/labels.txt, stats.json, quarantine.csv, info.json and, last, COMPLETED"""

_EXAMPLE = """\
example
  beam-retrain convert --input mnist --output mnist_jpg
  beam-retrain convert --input mnist --output mnist_png --formats png,tfrecord

A killed run goes on where it was when it is started again; a finished one is replaced. On this machine there is a
process for each core. Any Beam option may follow, --direct_num_workers=1 for one process, say."""


@dataclasses.dataclass(frozen=True)
class Config:
  """What `build` needs.

  Attributes:
    pairs: the IDX files, checked.
    output: the stage's folder.
    task: what is done with a shard.
    request: digest of the settings.
    max_bad_fraction: 0..1.
  """

  pairs: tuple[IdxPair, ...]
  output: str
  task: ConvertShard
  request: str
  max_bad_fraction: float

  @property
  def shards_folder(self) -> str:
    """Where the shards' files go, or only their reports if no records are asked for."""
    return files.join(self.output, RECORDS_FOLDER) if self.task.writes_file else self.output


def make_parser() -> argparse.ArgumentParser:
  parser = ArgumentParser(prog="beam-retrain convert", description=_DESCRIPTION, epilog=_EXAMPLE)
  parser.add_argument("--input", required=True, metavar="DIR", help="folder with the four IDX files")
  parser.add_argument("--output", required=True, metavar="DIR", help="a new or empty folder, or an earlier output")
  parser.add_argument(
    "--formats",
    type=_formats,
    default=(JPG, TFRECORD),
    metavar="LIST",
    help=f"what to write, of {', '.join(FORMATS)} (default jpg,tfrecord); records hold JPEG, unless png is asked for"
    " and jpg is not",
  )
  parser.add_argument(
    "--quality", type=_quality, default=DEFAULT_QUALITY, metavar="Q", help="of JPEGs, 1 to 100 (default 75, Pillow's)"
  )
  parser.add_argument(
    "--classes",
    type=_classes,
    default=10,
    metavar="N",
    help="labels are 0 to N-1 (default 10); an image with another label goes to the quarantine",
  )
  add_max_bad_fraction(parser)
  return parser


def _formats(text: str) -> tuple[str, ...]:
  asked = [name.strip() for name in text.split(",")]
  for name in asked:
    if name not in FORMATS:
      raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(FORMATS)}")
  return tuple(name for name in FORMATS if name in asked)


def _quality(text: str) -> int:
  return _between(text, 1, 100)


def _classes(text: str) -> int:
  return _between(text, 1, 256)


def _between(text: str, low: int, high: int) -> int:
  value = int(text)
  if not low <= value <= high:
    raise argparse.ArgumentTypeError(f"{text} is not between {low} and {high}")
  return value


def build(root: beam.Pipeline, config: Config) -> None:
  """Plan, Work, Close."""
  shards = root | "Plan" >> PlanIdxShards(config.pairs)
  # Shard
  reports = shards | "Work" >> WorkShards(config.task, output=config.shards_folder, request=config.request)
  # ShardReport
  _ = (
    (shards, reports)
    | "Close" >> CloseLedger(output=config.output, shards_folder=config.shards_folder)
    # dict, the contents of stats.json
    | "SweepTree"
    >> beam.Map(sweep_tree, config.output, splits=tuple(pair.split for pair in config.pairs), labels=config.task.labels)
    # dict
    | "MarkCompleted" >> beam.Map(mark_completed, config.output, config.max_bad_fraction)
  )  # dict


def run(argv: Sequence[str]) -> int:
  """Runs the command; returns its exit code.

  Raises:
    InputError: the arguments or the files cannot be used.
  """
  arguments, options = parse_job(make_parser(), argv)
  arguments.input, arguments.output = files.absolute(arguments.input), files.absolute(arguments.output)
  refuse_unreachable(options, arguments.input, arguments.output)
  refuse_more_jobs(options, arguments.output)
  config = _claim(arguments, argv)
  processes = default_processes(argv, sum(count_shards(pair) for pair in config.pairs))
  run_pipeline(
    lambda root: build(root, config), options, stage=STAGE, shards_folder=config.shards_folder, processes=processes
  )
  if built := what_was_built(options):
    print(built)
    return DONE
  stats = output_dir.read_stats(config.output)
  _print_summary(stats, config)
  return exit_code(stats, config.output, config.max_bad_fraction)


def _claim(arguments: argparse.Namespace, argv: Sequence[str]) -> Config:
  if files.is_local(arguments.input) and not os.path.isdir(arguments.input):
    raise InputError(f"{arguments.input} is no folder: give the one that holds the four IDX files.")
  pairs = tuple(find_idx_splits(arguments.input))
  labels = tuple(str(number) for number in range(arguments.classes))
  task = ConvertShard(arguments.output, arguments.formats, labels, arguments.quality)
  settings = {
    "formats": list(arguments.formats),
    "quality": arguments.quality,
    "labels": list(labels),
    # A changed input is another request: images of the old one must not stay in the tree.
    "inputs": [dataclasses.asdict(pair) for pair in pairs],
  }
  request = output_dir.claim(
    arguments.output,
    stage=STAGE,
    settings=settings,
    argv=argv,
    owned=[RECORDS_FOLDER, *(pair.split for pair in pairs)],
    shards_folder=RECORDS_FOLDER if task.writes_file else "",
    labels=list(labels),
    formats=list(arguments.formats),
    schema=IMAGE_RECORD,
  )
  files.write_text(files.join(arguments.output, LABELS_FILE), "".join(f"{label}\n" for label in labels))
  return Config(pairs, arguments.output, task, request, arguments.max_bad_fraction)


def _print_summary(stats: dict, config: Config) -> None:
  extensions = [extension for extension in IMAGE_FORMATS if extension in config.task.formats]
  for split, totals in stats["splits"].items():
    output = files.shown(config.output)
    places = [files.join(output, split, "LABEL", f"INDEX.{extension}") for extension in extensions]
    if config.task.writes_file:
      places.append(files.join(output, RECORDS_FOLDER, f"{split}-*.tfrecord"))
    print(f"{split}: {totals['outputs']:,} images in {' and '.join(places)}")


if __name__ == "__main__":
  sys.exit(guarded(run, sys.argv[1:]))
