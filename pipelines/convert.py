"""`beam-retrain convert`: IDX files to a class-folder tree and TFRecords."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import sys
from collections.abc import Sequence
from typing import ClassVar

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.engines.dataflow import describe_built_job, validate_single_job
from beam_retrain.pipelines.jobs.forked_workers import default_processes
from beam_retrain.pipelines.jobs.locks import holds_output
from beam_retrain.pipelines.jobs.runner import claim_output, exit_code, run_command, run_pipeline
from beam_retrain.pipelines.options.request import JobRequest, check_paths
from beam_retrain.transforms.convert import FORMATS, IMAGE_FORMATS, JPG, TFRECORD, ConvertShard, sweep_tree
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.encode import DEFAULT_QUALITY
from beam_retrain.transforms.core.printing import print
from beam_retrain.transforms.core.records.schema import IMAGE_RECORD
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from beam_retrain.transforms.core.run.flags import add_max_bad_fraction, whole_number
from beam_retrain.transforms.core.run.request import ONE_ARGUMENT
from beam_retrain.transforms.core.run.run_info import RunInfo, describe_run
from beam_retrain.transforms.core.run.stats import read_stats
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

A killed run resumes when it is started again; a finished one is replaced. On this machine it uses a process for each
core. Any Beam option may follow, for example --direct_num_workers=1 for one process."""


def _formats(text: str) -> tuple[str, ...]:
  names = [name.strip() for name in text.split(",")]
  if unknown := [name for name in names if name not in FORMATS]:
    raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(FORMATS)}")
  return tuple(name for name in FORMATS if name in names)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertRequest(JobRequest):
  """The flags of `convert`; see their help."""

  command: ClassVar[str] = "convert"
  description: ClassVar[str] = _DESCRIPTION
  epilog: ClassVar[str] = _EXAMPLE

  input: str
  output: str
  formats: tuple[str, ...] = dataclasses.field(default=(JPG, TFRECORD), metadata=ONE_ARGUMENT)
  quality: int = DEFAULT_QUALITY
  classes: int = 10
  max_bad_fraction: float = 0.0

  @classmethod
  def add_flags(cls, parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", required=True, metavar="DIR", help="folder with the four IDX files")
    parser.add_argument("--output", required=True, metavar="DIR", help="a new or empty folder, or an earlier output")
    parser.add_argument(
      "--formats",
      type=_formats,
      metavar="LIST",
      help=f"formats to write, any of {', '.join(FORMATS)} (default: jpg,tfrecord); records hold PNG if png is among"
      " them and jpg is not, else JPEG",
    )
    parser.add_argument(
      "--quality",
      type=whole_number(1, 100),
      metavar="Q",
      help="quality of JPEGs, 1 to 100 (default: %(default)d, Pillow's)",
    )
    parser.add_argument(
      "--classes",
      type=whole_number(1, 256),
      metavar="N",
      help="labels are 0 to N-1 (default: %(default)d); images with other labels are quarantined",
    )
    add_max_bad_fraction(parser)


make_parser = ConvertRequest.make_parser


@dataclasses.dataclass(frozen=True)
class Job:
  """A planned conversion."""

  request: ConvertRequest
  options: PipelineOptions
  pairs: tuple[IdxPair, ...]
  task: ConvertShard

  @property
  def output(self) -> str:
    return self.task.output

  @property
  def shards_folder(self) -> str:
    """Folder of the shards, or of reports alone without records."""
    return files.join(self.output, RECORDS_FOLDER) if self.task.writes_file else self.output

  @functools.cached_property
  def info(self) -> RunInfo:
    """The new `info.json`, with settings that decide the output's bytes."""
    task = self.task
    settings = {
      "formats": task.formats,
      "quality": task.quality,
      "labels": task.labels,
      # A changed input is another request: the old one's images must not stay in the tree.
      "inputs": [dataclasses.asdict(pair) for pair in self.pairs],
    }
    others = {"formats": task.formats, "schema": IMAGE_RECORD}
    return describe_run(STAGE, settings, self.request.to_argv(), labels=task.labels, others=others)

  def claim(self) -> None:
    """Claims the output folder; keeps a killed run's finished shards."""
    owned = [RECORDS_FOLDER, *(pair.split for pair in self.pairs)]
    shards_folder = RECORDS_FOLDER if self.task.writes_file else ""
    claim_output(self.output, self.info, owned=owned, shards_folder=shards_folder)

  def build(self, root: beam.Pipeline) -> None:
    """Plans, works and closes."""
    splits = tuple(pair.split for pair in self.pairs)
    shards = root | "Plan" >> PlanIdxShards(self.pairs)
    # Shard
    reports = shards | "Work" >> WorkShards(self.task, output=self.shards_folder, request=self.info.request)
    # ShardReport
    _ = (
      (shards, reports)
      | "Close" >> CloseLedger(output=self.output, shards_folder=self.shards_folder)
      # Stats
      | "SweepTree" >> beam.Map(sweep_tree, self.output, splits=splits, labels=self.task.labels)
      # Stats
      | "MarkCompleted" >> beam.Map(mark_completed, self.output, self.request.max_bad_fraction)
    )  # Stats


def run(argv: Sequence[str]) -> int:
  return execute(ConvertRequest.parse(argv))


@holds_output
def execute(request: ConvertRequest) -> int:
  job = plan(request)
  job.claim()
  processes = default_processes(request.beam_options, sum(map(count_shards, job.pairs)))
  run_pipeline(job.build, job.options, stage=STAGE, shards_folder=job.shards_folder, processes=processes)
  return report(job)


def plan(request: ConvertRequest) -> Job:
  """Finds and checks the IDX files; changes nothing."""
  options = request.pipeline_options()
  source, output = files.absolute(request.input), files.absolute(request.output)
  request.validate_apart("input")
  check_paths(options, source, output)
  validate_single_job(options, output)
  if files.is_local(source) and not os.path.isdir(source):
    raise InputError(f"{source} is not a folder: give the folder of the four IDX files.")
  labels = tuple(str(number) for number in range(request.classes))
  task = ConvertShard(output, request.formats, labels, request.quality)
  return Job(request, options, tuple(find_idx_splits(source)), task)


def report(job: Job) -> int:
  if built := describe_built_job(job.options):
    print(built)
    return ExitCode.DONE
  stats = read_stats(job.output, files)
  extensions = [extension for extension in IMAGE_FORMATS if extension in job.task.formats]
  shown = files.shown(job.output)
  for split, counts in stats.splits.items():
    places = [files.join(shown, split, "LABEL", f"INDEX.{extension}") for extension in extensions]
    if job.task.writes_file:
      places.append(files.join(shown, RECORDS_FOLDER, f"{split}-*.tfrecord"))
    print(f"{split}: {counts.outputs:,} images in {' and '.join(places)}")
  return exit_code(stats, job.output, job.request.max_bad_fraction)


if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
