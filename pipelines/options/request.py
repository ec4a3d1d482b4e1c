"""Requests of Beam jobs: our flags and Beam's options.

A flag is ours or must be a Beam option: `retrain.py` ignored unknown flags, and a typo cost its users hours.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from collections.abc import Sequence
from typing import ClassVar, Self

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
from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.printing import say
from beam_retrain.transforms.core.run.argparse_internals import flags_of
from beam_retrain.transforms.core.run.flags import ArgumentParser, unknown_argument, validate_spelling
from beam_retrain.transforms.core.run.output_folder import find_output
from beam_retrain.transforms.core.run.request import NO_FLAG, Request
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.beam_internals import add_beam_flags

_MODELS = ("model", "candidate")  # among `paths`: may be given by the folder of `run`, too


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobRequest(Request):
  """Base of the request of a Beam job.

  Attributes:
    beam_options: arguments for Beam, as typed: `--runner=FlinkRunner`.
  """

  paths: ClassVar[tuple[str, ...]] = ()
  """Fields that are paths."""

  beam_options: tuple[str, ...] = dataclasses.field(default=(), metadata=NO_FLAG)

  @classmethod
  def _parse_flags(
    cls, parser: argparse.ArgumentParser, argv: Sequence[str], flags: argparse.Namespace
  ) -> argparse.Namespace:
    flags, flags.beam_options = _separate_beam_options(parser, argv, flags)
    return flags

  def to_argv(self) -> list[str]:
    return [*super().to_argv(), *self.beam_options]

  def with_absolute_paths(self) -> Self:
    """Returns the same request with absolute paths, of models their own.

    Raises:
      InputError: a path is empty, for example from an unset shell variable.
    """
    paths = {name: path for name in self.paths if (path := getattr(self, name)) is not None}
    for name, path in paths.items():
      if path == "" or (isinstance(path, tuple) and "" in path):
        raise InputError(f"{flag(name)} is empty: give a {'file' if name == 'manifest' else 'folder'}.")
      paths[name] = files.absolute(path) if isinstance(path, str) else tuple(map(files.absolute, path))
      if name in _MODELS:
        paths[name] = find_output(paths[name], "train", files)
    return dataclasses.replace(self, **paths)

  def pipeline_options(self, *, check_engine: bool = True) -> PipelineOptions:
    """Returns Beam's options, checked; sets them for all file access.

    Args:
      check_engine: False for a command that sends no job to the engine.
    """
    return _read_pipeline_options(self.prog(), self, self.beam_options, check_engine)


def parse_job(
  parser: argparse.ArgumentParser, argv: Sequence[str], *, check_engine: bool = True
) -> tuple[argparse.Namespace, PipelineOptions]:
  """Parses our flags; passes the rest to Beam as `pipeline_options` does."""
  flags, rest = _separate_beam_options(parser, argv)
  return flags, _read_pipeline_options(parser.prog, flags, rest, check_engine)


def _separate_beam_options(
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
  parsed, rest = parser.parse_known_args(argv, flags)
  _, unknown = beam_parser.parse_known_args(rest)
  if unknown:
    raise InputError(unknown_argument(parser, unknown[0], known, complaint))
  return parsed, rest


def _read_pipeline_options(prog: str, flags: object, arguments: Sequence[str], check_engine: bool) -> PipelineOptions:
  """Returns Beam's options; `flags` name paths that the workers must reach.

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
  if check_engine:
    validate_engine(prog, options)
  return options


@functools.cache
def _beam_parser(prog: str) -> argparse.ArgumentParser:
  parser = ArgumentParser(prog=prog, add_help=False)
  # Each class adds its own options; their names are unique.
  add_beam_flags(parser, *sorted(PipelineOptions.__subclasses__(), key=lambda options: options.__name__))
  add_engine_options(parser)
  return parser


def check_paths(options: PipelineOptions, *paths: str | Sequence[str] | None) -> None:
  """Checks that buckets can be reached; warns of local paths.

  Raises:
    InputError: a bucket cannot be reached.
  """
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
