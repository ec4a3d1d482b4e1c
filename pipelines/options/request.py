"""Requests of Beam jobs: our flags and Beam's options.

See transforms/core/run/request.py.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.engines.checks import validate_engine
from beam_retrain.pipelines.options.arguments import read_pipeline_options, separate_beam_options
from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.run.request import NO_FLAG, Request
from beam_retrain.transforms.io import files


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
    flags, flags.beam_options = separate_beam_options(parser, argv, flags)
    return flags

  def to_argv(self) -> list[str]:
    return [*super().to_argv(), *self.beam_options]

  def with_absolute_paths(self) -> Self:
    """Returns the same request with absolute paths.

    Raises:
      InputError: a path is empty, for example from an unset shell variable.
    """
    paths: dict[str, Any] = {}
    for name in self.paths:
      value = getattr(self, name)
      if value == "" or (isinstance(value, tuple) and "" in value):
        raise InputError(f"{flag(name)} is empty: give a {'file' if name == 'manifest' else 'folder'}.")
      if value is not None:
        paths[name] = files.absolute(value) if isinstance(value, str) else tuple(map(files.absolute, value))
    return dataclasses.replace(self, **paths)

  def pipeline_options(self, *, check_engine: bool = True) -> PipelineOptions:
    """Returns Beam's options, checked; sets them for all file access.

    Args:
      check_engine: False for a command that sends no job to the engine.
    """
    options = read_pipeline_options(self.prog(), self, self.beam_options)
    if check_engine:
      validate_engine(self.prog(), options)
    return options
