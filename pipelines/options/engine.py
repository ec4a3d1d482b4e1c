"""Beam's options, read and checked. Loads Beam."""

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
from beam_retrain.transforms.core.printing import say
from beam_retrain.transforms.core.run.flags import ArgumentParser
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.beam_internals import add_beam_flags


@functools.cache
def beam_parser(prog: str) -> argparse.ArgumentParser:
  parser = ArgumentParser(prog=prog, add_help=False)
  # Each class adds its own options; their names are unique.
  add_beam_flags(parser, *sorted(PipelineOptions.__subclasses__(), key=lambda options: options.__name__))
  add_engine_options(parser)
  return parser


def read_pipeline_options(prog: str, flags: object, arguments: Sequence[str], check_engine: bool) -> PipelineOptions:
  """Returns Beam's options; `flags` name paths that the workers must reach.

  Raises InputError for an invalid value, an unknown runner, another runner's option, or Dataflow without what it needs.
  """
  beam_parser(prog).parse_known_args(arguments)
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
  if check_engine:
    validate_engine(prog, options)
  return options


def check_paths(options: PipelineOptions, *paths: str | Sequence[str] | None) -> None:
  """Raises InputError for buckets out of reach; warns of local paths."""
  flat = [path for given in paths for path in ([given] if isinstance(given, str) else given or ())]
  if not is_dataflow(options):  # its workers may have other credentials, and its service checks by itself
    files.check_reachable(flat)
  if master := remote_master(options):
    local = [path for path in flat if files.is_local(path)]
    if local:
      say(
        f"beam-retrain: warning: {', '.join(local)}: local to this machine, but the workers of {master} need the same"
        " path: use a disk that all mount, or a bucket (s3://, gs://).",
        file=sys.stderr,
      )
