"""Requests of Beam jobs: our flags and Beam's options.

A flag is ours or must be a Beam option: `retrain.py` ignored unknown flags, and a typo cost its users hours. Beam is
loaded only for what is left after ours.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from beam_retrain.pipelines.engines.job_servers import ENGINE_OPTIONS
from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.run.argparse_internals import flags_of
from beam_retrain.transforms.core.run.flags import unknown_argument, validate_spelling
from beam_retrain.transforms.core.run.output_folder import find_output
from beam_retrain.transforms.core.run.request import NO_FLAG, Request
from beam_retrain.transforms.core.system.imports import load_command

if TYPE_CHECKING:
  from apache_beam.options.pipeline_options import PipelineOptions

_STAGES = {"model": "train", "candidate": "train", "reuse": "bottlenecks", "retry_from": "bottlenecks"}
"""Among `paths`: what may be given by the folder of `run`, too -> whose output is meant."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobRequest(Request):
  paths: ClassVar[tuple[str, ...]] = ()  # fields that are paths

  beam_options: tuple[str, ...] = dataclasses.field(default=(), metadata=NO_FLAG)  # as typed: `--runner=FlinkRunner`

  @classmethod
  def _parse_flags(
    cls, parser: argparse.ArgumentParser, argv: Sequence[str], flags: argparse.Namespace
  ) -> argparse.Namespace:
    flags, flags.beam_options = separate_beam_options(parser, argv, flags)
    return flags

  def to_argv(self) -> list[str]:
    return [*super().to_argv(), *self.beam_options]

  def with_absolute_paths(self) -> Self:
    """Returns the same request with absolute paths, of models their own.

    Raises InputError if a path is empty, for example from an unset shell variable.
    """
    from beam_retrain.transforms.io import files

    paths = {name: path for name in self.paths if (path := getattr(self, name)) is not None}
    for name, path in paths.items():
      if path == "" or (isinstance(path, tuple) and "" in path):
        raise InputError(f"{flag(name)} is empty: give a {'file' if name == 'manifest' else 'folder'}.")
      paths[name] = files.absolute(path) if isinstance(path, str) else tuple(map(files.absolute, path))
      if stage := _STAGES.get(name):
        given = paths[name]
        folders = (given,) if isinstance(given, str) else given
        files.check_reachable(folders)
        found = tuple(find_output(folder, stage, files) for folder in folders)
        paths[name] = found[0] if isinstance(given, str) else found
    return dataclasses.replace(self, **paths)

  def pipeline_options(self, *, check_engine: bool = True) -> PipelineOptions:
    """Returns Beam's options, checked; sets them for all file access.

    Args:
      check_engine: False for a command that sends no job to the engine.
    """
    from beam_retrain.pipelines.options.engine import read_pipeline_options

    return read_pipeline_options(self.prog(), self, self.beam_options, check_engine)


def parse_job(
  parser: argparse.ArgumentParser, argv: Sequence[str], *, check_engine: bool = True
) -> tuple[argparse.Namespace, PipelineOptions]:
  """Parses our flags; passes the rest to Beam as `pipeline_options` does."""
  flags, rest = separate_beam_options(parser, argv)
  from beam_retrain.pipelines.options.engine import read_pipeline_options

  return flags, read_pipeline_options(parser.prog, flags, rest, check_engine)


def separate_beam_options(
  parser: argparse.ArgumentParser, argv: Sequence[str], flags: argparse.Namespace | None = None
) -> tuple[argparse.Namespace, list[str]]:
  """Returns our parsed flags, and the arguments that are Beam's.

  Raises InputError for a flag that neither we nor Beam know, with the nearest known one, or an invalid value of ours.
  """
  known = [*flags_of(parser), *beam_flags()]
  complaint = "neither this command nor Beam has this flag"
  validate_spelling(parser, argv, known, complaint)
  parsed, rest = parser.parse_known_args(argv, flags)
  if rest:
    # Dataflow alone needs what `load_command` leaves out.
    load = importlib.import_module if any("dataflow" in argument.lower() for argument in rest) else load_command
    _, unknown = load("beam_retrain.pipelines.options.engine").beam_parser(parser.prog).parse_known_args(rest)
    if unknown:
      raise unknown_argument(parser, unknown[0], known, complaint)
  return parsed, rest


@functools.cache
def beam_flags() -> tuple[str, ...]:
  """Returns the flags of Beam and its engines, read from its source.

  Importing Beam to ask it takes a second. A name there that is no flag after all is found when the rest is parsed.
  """
  package = importlib.util.find_spec("apache_beam")
  assert package
  assert package.origin
  source = Path(package.origin).with_name("options").joinpath("pipeline_options.py").read_text(encoding="utf-8")
  of_engines = (f"--{name}" for kinds in ENGINE_OPTIONS.values() for names in kinds for name in names)
  return tuple(sorted({*re.findall(r"""['"](--[\w-]+)['"]""", source), *of_engines}))
