"""The command line of `plan`: those flags of `bottlenecks` that decide what it costs, and what to say of it."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from beam_retrain.pipelines.models.trunk_sources import BUNDLED
from beam_retrain.pipelines.models.trunk_sources import HELP as TRUNK_HELP
from beam_retrain.pipelines.options.arguments import (
  ArgumentParser,
  add_model_flags,
  parse_with_beam_options,
  positive_int,
  refuse_unreachable,
)
from beam_retrain.pipelines.options.precision import add_precision_flags, given_precision
from beam_retrain.pipelines.options.retrain_names import add_retrain_names
from beam_retrain.pipelines.options.splits import add_split_flags, read_percentages
from beam_retrain.transforms.bottlenecks.model_handler import BATCH_SIZE
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.base import Source
from beam_retrain.transforms.sources.find import find_source

_LOCAL_RUNNERS = ("directrunner", "fnapirunner")

_DESCRIPTION = """\
Says what `bottlenecks` over these images will take: time, memory, disk, shards. Nothing is left behind but the
prepared trunk in the cache, which the job then finds there.

It lists the input once, as the job will, runs the whole job over a few dozen of the images in a temporary folder,
lets the trunk work on some more for a few seconds, and adds up: every figure is measured here, now, by the job's own
code. Let the machine be as busy as it will be then. Give the flags that you will give to `bottlenecks`."""

_EPILOG = """\
examples:
  beam-retrain plan --input flower_photos --trunk inception_v3
  beam-retrain plan --input flower_photos --trunk inception_v3 --workers 20 --pictures 5000000

What it leaves out: distortions, --reuse and --retry_from. What it cannot know: how long an engine (--runner) takes to
begin, how fast the workers' own disks and networks are, and what is wrong with images that it has not looked at."""


@dataclasses.dataclass(frozen=True)
class Request:
  """What the user asked for.

  Attributes:
    flags: as they were parsed, the input absolute.
    options: Beam's.
    beam_flags: likewise, as they were typed.
    source: the images.
    percentages: how many images are for testing and for validation.
  """

  flags: argparse.Namespace
  options: PipelineOptions
  beam_flags: Sequence[str]
  source: Source
  percentages: SplitPercentages

  def rehearsed(self, images: str, output: str) -> list[str]:
    """Returns a command line of `bottlenecks` over some images with splits, as the job will be run."""
    flags = self.flags
    values = {
      "--trunk": flags.trunk,
      "--trunk_weights": flags.trunk_weights,
      "--trunk_input_px": flags.trunk_input_px,
      "--batch_size": flags.batch_size,
      "--trunk_threads": flags.trunk_threads,
      "--max_pixels": flags.max_pixels,
      "--input": images,
      "--output": output,
      "--validation_percentage": 0,
      "--max_bad_fraction": 1,
    }
    given = [f"{flag}={value}" for flag, value in values.items() if value is not None]
    return [*given, *given_precision(flags), *([] if self.engine else self.beam_flags)]

  @property
  def engine(self) -> str:
    """The runner, where it is not the one that works on this machine; else empty."""
    runner = self.options.view_as(StandardOptions).runner
    return "" if runner is None or runner.lower() in _LOCAL_RUNNERS else str(runner)


def read_request(argv: Sequence[str]) -> Request:
  """Reads the command line and looks for what it names.

  Raises:
    InputError: something that the user gave cannot be used.
  """
  parser = make_parser()
  flags, options = parse_with_beam_options(parser, argv)
  beam_flags = parser.parse_known_args(argv)[1]
  typed_input, flags.input = flags.input, files.absolute(flags.input)
  refuse_unreachable(options, flags.input)
  source = find_source(flags.input, flags.classes, retrain_names=flags.retrain_names)
  return Request(flags, options, beam_flags, source, read_percentages(flags, typed_input, source))


def make_parser() -> argparse.ArgumentParser:
  parser = ArgumentParser(prog="beam-retrain plan", description=_DESCRIPTION, epilog=_EPILOG)
  parser.add_argument(
    "--input", required=True, metavar="DIR", help="the images: whatever `bottlenecks` takes; it is only read"
  )
  parser.add_argument(
    "--workers",
    type=positive_int,
    default=1,
    metavar="N",
    help="machines that share the work, each like this one and with as many cores as are given here (default:"
    " %(default)d)",
  )
  parser.add_argument(
    "--pictures",
    type=positive_int,
    metavar="N",
    help="what so many images would take, of which those in --input are an example (default: as many as there are)",
  )
  parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
  of_job = parser.add_argument_group("flags of bottlenecks, see `beam-retrain bottlenecks --help`")
  of_job.add_argument("--trunk", default=BUNDLED, help=f"{TRUNK_HELP} (default: %(default)s)")
  of_job.add_argument("--trunk_weights", metavar="FILE", help="local weights of a keras: trunk")
  of_job.add_argument("--trunk_input_px", type=positive_int, metavar="PX", help="input size of a trunk that takes any")
  of_job.add_argument(
    "--classes", type=positive_int, default=10, metavar="N", help="classes of an IDX folder (default: %(default)d)"
  )
  add_precision_flags(of_job)
  add_model_flags(parser, str(BATCH_SIZE))
  add_split_flags(parser)
  add_retrain_names(parser)
  return parser
