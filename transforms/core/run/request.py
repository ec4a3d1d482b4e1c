"""Typed requests: what a command is asked for, by its command line or by another command.

Each command module reads as parse, plan, build, run, report:

  def run(argv):                    # what the command line calls
    return execute(ConvertRequest.parse(argv))

  def execute(request):             # what other commands call
    job = plan(request)             # looks at what the request names; raises InputError, changes nothing
    job.claim()                     # makes the output folder this run's
    run_pipeline(job.build, ...)    # adds the steps to a pipeline, and runs it
    return report(job)              # prints what came out; returns the exit code

A request's fields are named as the flags, and its defaults are those of the flags.
"""

from __future__ import annotations

import abc
import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

from beam_retrain.transforms.core.run.cli import ArgumentParser, parse_flags

NO_FLAG: Mapping[str, Any] = {"flag": False}
"""Metadata of a field that is not a flag."""

ONE_ARGUMENT: Mapping[str, Any] = {"separator": ","}
"""Metadata of a tuple that is one argument, `--formats=jpg,png`; others repeat their flag."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request(abc.ABC):
  """Base of a command's request.

  Attributes:
    given: names of the fields that the command line gave, even with their default; empty for a request made in code.
  """

  command: ClassVar[str]
  description: ClassVar[str]
  epilog: ClassVar[str | None] = None

  given: frozenset[str] = dataclasses.field(default=frozenset(), compare=False, repr=False, metadata=NO_FLAG)

  @classmethod
  @abc.abstractmethod
  def add_flags(cls, parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags, without defaults: those are the fields'."""

  @classmethod
  def prog(cls) -> str:
    return f"beam-retrain {cls.command}"

  @classmethod
  def make_parser(cls) -> argparse.ArgumentParser:
    parser = ArgumentParser(prog=cls.prog(), description=cls.description, epilog=cls.epilog)
    cls.add_flags(parser)
    defaults = {field.name: field.default for field in cls._flags() if field.default is not dataclasses.MISSING}
    parser.set_defaults(**defaults)
    return parser

  @classmethod
  def parse(cls, argv: Sequence[str]) -> Self:
    """Reads a command line; looks at nothing that it names.

    Raises:
      InputError: an unknown flag, or a value that its flag does not take.
    """
    # argparse leaves a value that is there alone, so that what is not given stays as it is here.
    unset = {field.name: [] if isinstance(field.default, tuple) else object() for field in dataclasses.fields(cls)}
    found = vars(cls._parse_flags(cls.make_parser(), argv, argparse.Namespace(**unset)))
    given = {name: found[name] for name in unset if found[name] is not unset[name]}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return cls(**values, given=frozenset(given))

  @classmethod
  def _parse_flags(
    cls, parser: argparse.ArgumentParser, argv: Sequence[str], flags: argparse.Namespace
  ) -> argparse.Namespace:
    return parse_flags(parser, argv, flags)

  def to_argv(self) -> list[str]:
    """Returns the command line of this request, without the command: what is given, and what is no default."""
    in_order = sorted(self._flags(), key=lambda field: field.name not in ("input", "output"))
    return [argument for field in in_order for argument in self._arguments(field)]

  def _arguments(self, field: dataclasses.Field) -> Iterator[str]:
    value = getattr(self, field.name)
    if value is None or (value == field.default and field.name not in self.given):
      return
    if isinstance(value, tuple) and "separator" not in field.metadata:
      yield from (f"--{field.name}={each}" for each in value)
    elif isinstance(value, tuple):
      yield f"--{field.name}={field.metadata['separator'].join(map(str, value))}"
    else:
      yield f"--{field.name}" if value is True else f"--{field.name}={value}"

  @classmethod
  def _flags(cls) -> Iterator[dataclasses.Field]:
    return (field for field in dataclasses.fields(cls) if field.metadata.get("flag", True))
