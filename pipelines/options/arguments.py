"""Parses the command lines of Beam jobs, and adds flags they share.

A flag is ours or must be a Beam option: `retrain.py` ignored unknown flags, and a typo cost its users hours.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners import create_runner

from beam_retrain.pipelines.engines.checks import validate_engine
from beam_retrain.pipelines.engines.dataflow import configure_dataflow
from beam_retrain.pipelines.engines.runners import (
  add_engine_options,
  is_dataflow,
  remote_master,
  runner_name,
  validate_engine_options,
)
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.argparse_internals import flags_of
from beam_retrain.transforms.core.run.cli import (
  ArgumentParser,
  add_decoding_flags,
  add_max_bad_fraction,
  fraction,
  parse_flags,
  positive_int,
  unknown_argument,
  validate_spelling,
)
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.access import check_reachable
from beam_retrain.transforms.io.beam_internals import add_beam_flags

__all__ = [
  "ArgumentParser",
  "add_max_bad_fraction",
  "add_model_flags",
  "add_slice_flags",
  "fraction",
  "parse_flags",
  "parse_job",
  "parse_with_beam_options",
  "positive_int",
  "refuse_unreachable",
]


def positive_int_or_auto(text: str) -> int | None:
  """Returns None for `auto`, else at least 1."""
  return None if text == "auto" else positive_int(text)


def add_model_flags(parser: argparse.ArgumentParser, default_batch_size: str) -> None:
  """Adds `batch_size` and `trunk_threads` (None: auto), and `max_pixels`."""
  parser.add_argument(
    "--batch_size",
    type=positive_int_or_auto,
    metavar="N|auto",
    help=f"images per call of the model (default: auto: {default_batch_size}); halved if memory runs out",
  )
  add_decoding_flags(parser)


def add_slice_flags(parser: argparse.ArgumentParser) -> None:
  """Adds `manifest` (None if not given) and `min_slice_size`."""
  parser.add_argument(
    "--manifest",
    metavar="CSV",
    help="also evaluate by slice: a CSV with a column file_name, the image's key as in predictions.csv, and others"
    " (writer, device, ...), each of whose values is a slice",
  )
  parser.add_argument(
    "--min_slice_size",
    type=positive_int,
    default=30,
    metavar="N",
    help="merge slices of fewer images (default: %(default)d)",
  )


def parse_job(parser: argparse.ArgumentParser, argv: Sequence[str]) -> tuple[argparse.Namespace, PipelineOptions]:
  """Calls `parse_with_beam_options`, and checks the job's engine."""
  namespace, options = parse_with_beam_options(parser, argv)
  validate_engine(parser.prog, options)
  return namespace, options


def parse_with_beam_options(
  parser: argparse.ArgumentParser, argv: Sequence[str]
) -> tuple[argparse.Namespace, PipelineOptions]:
  """Parses our flags and passes the rest to Beam."""
  namespace, rest = separate_beam_options(parser, argv)
  return namespace, read_pipeline_options(parser.prog, namespace, rest)


def separate_beam_options(
  parser: argparse.ArgumentParser, argv: Sequence[str], flags: argparse.Namespace | None = None
) -> tuple[argparse.Namespace, list[str]]:
  """Returns our parsed flags, and the arguments that are Beam's.

  Raises:
    InputError: a flag that neither we nor Beam know, with the nearest known one; or an invalid value of ours.
  """
  beam_parser = _beam_parser(parser.prog)
  known = [*flags_of(parser), *flags_of(beam_parser)]
  complaint = "neither beam-retrain nor Beam has this flag"
  validate_spelling(parser, argv, known, complaint)
  namespace, rest = parser.parse_known_args(argv, flags)
  _, unknown = beam_parser.parse_known_args(rest)
  if unknown:
    raise InputError(unknown_argument(parser, unknown[0], known, complaint))
  return namespace, rest


def read_pipeline_options(prog: str, flags: object, arguments: Sequence[str]) -> PipelineOptions:
  """Returns Beam's options, checked; sets them for all file access.

  Args:
    flags: of the command, whose paths the runner's workers must reach.

  Raises:
    InputError: an invalid value, an unknown runner, an option of another runner, or Dataflow without what it needs.
  """
  _beam_parser(prog).parse_known_args(arguments)
  options = PipelineOptions(flags=list(arguments))
  files.use_options(options)
  runner = options.view_as(StandardOptions).runner
  if runner is not None:
    try:
      create_runner(runner)
    except (ValueError, ImportError) as error:
      raise InputError(f"{prog}: --runner {runner}: {str(error).rstrip('.')}.") from error
  validate_engine_options(prog, runner_name(options), arguments)
  configure_dataflow(prog, flags, options)
  return options


def refuse_unreachable(options: PipelineOptions, *paths: str | Sequence[str] | None) -> None:
  """Checks that buckets can be reached; warns of local paths.

  Raises:
    InputError: a bucket cannot be reached.
  """
  if not is_dataflow(options):  # its workers may have other credentials, and its service checks by itself
    check_reachable(*paths)
  if master := remote_master(options):
    flat = [path for given in paths for path in ([given] if isinstance(given, str) else given or ())]
    local = [path for path in flat if files.is_local(path)]
    if local:
      print(
        f"beam-retrain: warning: {', '.join(local)}: local to this machine, but the workers of {master} need the same"
        " path: use a disk that all mount, or a bucket (s3://, gs://).",
        file=sys.stderr,
      )


@functools.cache
def _beam_parser(prog: str) -> argparse.ArgumentParser:
  parser = ArgumentParser(prog=prog, add_help=False)
  # Each class adds its own options; their names are unique.
  add_beam_flags(parser, *sorted(PipelineOptions.__subclasses__(), key=lambda options: options.__name__))
  add_engine_options(parser)
  return parser
