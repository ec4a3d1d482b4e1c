"""Typed requests of commands, from a command line or from another command.

Each command module reads as parse, plan, build, run, report:

  run = ConvertRequest.run          # called by the command line: parses, loads this module, and calls `execute`

  def execute(request):             # called by other commands
    job = plan(request)             # inspects the inputs; raises InputError, changes nothing
    job.claim()                     # claims the output folder
    run_pipeline(job.build, ...)    # builds and runs the pipeline
    return report(job)              # prints the results; returns the exit code

A field made by `option` is a flag: its name, default and help. A request's own module loads neither Beam nor numpy, so
that `--help` and a wrong flag are answered at once; the command's module is loaded to execute it.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Self

from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.run.argparse_internals import FlagGroup
from beam_retrain.transforms.core.run.flags import ArgumentParser, add_option, expand, parse_flags
from beam_retrain.transforms.core.system import local_files
from beam_retrain.transforms.core.system.imports import load_command

NO_FLAG: Mapping[str, bool] = {"flag": False}
"""Metadata of a field that is not a flag."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
  """Base class of a command's request.

  `given` has the fields set on the command line, even to their default, `typed` the command line; both are empty for a
  request made in code.
  """

  command: ClassVar[str]
  module: ClassVar[str]
  """Of the command: its `execute` takes the request and returns the exit code."""
  description: ClassVar[str]
  epilog: ClassVar[str | None] = None
  first: ClassVar[tuple[str, ...]] = ()
  """Fields that come first in the help; then come the class's own, and those of its bases."""

  given: frozenset[str] = dataclasses.field(default=frozenset(), compare=False, repr=False, metadata=NO_FLAG)
  typed: tuple[str, ...] = dataclasses.field(default=(), compare=False, repr=False, metadata=NO_FLAG)

  @classmethod
  def add_flags(cls, parser: argparse.ArgumentParser) -> None:
    fields = {field.name: field for field in dataclasses.fields(cls) if "option" in field.metadata}
    annotated = (name for base in cls.__mro__ for name in vars(base).get("__annotations__", ()))
    groups: dict[tuple[str | None, ...], FlagGroup] = {(): parser}
    for name in dict.fromkeys([*cls.first, *annotated]):
      if field := fields.get(name):
        title = field.metadata.get("group", ())
        if title not in groups:
          groups[title] = parser.add_argument_group(*title)
        cls._add_flag(groups[title], field)

  @classmethod
  def _add_flag(cls, group: FlagGroup, field: dataclasses.Field) -> None:
    add_option(group, field.name, field)

  @classmethod
  def prog(cls) -> str:
    return f"beam-retrain {cls.command}"

  @classmethod
  def make_parser(cls) -> argparse.ArgumentParser:
    parser = ArgumentParser(prog=cls.prog(), description=cls.description, epilog=cls.epilog)
    cls.add_flags(parser)
    return parser

  @classmethod
  def parse(cls, argv: Sequence[str]) -> Self:
    """Parses a command line; opens nothing that it names; may raise InputError."""
    # argparse keeps values already in the namespace, so flags that are not given keep these.
    unset = {field.name: [] if isinstance(field.default, tuple) else object() for field in dataclasses.fields(cls)}
    parser = cls.make_parser()
    parsed = vars(cls._parse_flags(parser, argv, argparse.Namespace(**unset)))
    given = {name: parsed[name] for name in unset if parsed[name] is not unset[name]}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return cls(**values, given=frozenset(given), typed=tuple(expand(parser, argv)))

  @classmethod
  def run(cls, argv: Sequence[str]) -> int:
    """Runs a command line; returns the exit code."""
    return cls.parse(argv).execute()

  def execute(self) -> int:
    """Loads the command and runs the request; returns the exit code."""
    code: int = load_command(self.module).execute(self)
    return code

  @classmethod
  def _parse_flags(
    cls, parser: argparse.ArgumentParser, argv: Sequence[str], flags: argparse.Namespace
  ) -> argparse.Namespace:
    return parse_flags(parser, argv, flags)

  def validate_apart(self, *reads: str, writes: str = "output") -> None:
    """Checks that its outputs are neither in its inputs nor around them.

    The arguments are names of fields; links are followed, and inputs that do not exist ignored.
    """
    output = getattr(self, writes)
    for name in reads:
      value = getattr(self, name)
      for path in (value,) if isinstance(value, str) else value or ():
        if output and ("://" in path or os.path.exists(path)) and local_files.overlap(path, output):
          raise InputError(f"{flag(writes)} {output} overlaps with {flag(name)} {path}: give a folder of its own.")

  def to_argv(self) -> list[str]:
    """Returns this request's arguments: those given, and those without defaults."""
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
