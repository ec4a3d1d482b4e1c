"""The command line's common part: a parser that exits with 2 and one sentence, and refuses what nobody knows.

Our own flags come first; what they leave over must be a Beam option. `retrain.py` swallowed unknown flags, and a typo cost
its users hours.
"""

from __future__ import annotations

import argparse
import difflib
import functools
from collections.abc import Sequence
from typing import NoReturn

from apache_beam.options.pipeline_options import PipelineOptions

from transforms.core.errors import InputError


class ArgumentParser(argparse.ArgumentParser):
  """Takes no abbreviations, and raises `InputError` instead of printing its usage and leaving."""

  def __init__(self, *args, **kwargs):
    kwargs.setdefault("allow_abbrev", False)
    kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
    super().__init__(*args, **kwargs)

  def error(self, message: str) -> NoReturn:
    raise InputError(f"{self.prog}: {message}; `{self.prog} --help` shows what there is.")


def parse_with_beam_options(
  parser: argparse.ArgumentParser, argv: Sequence[str]
) -> tuple[argparse.Namespace, PipelineOptions]:
  """Parses our flags and hands the rest to Beam.

  Raises:
    InputError: a flag that neither we nor Beam know; names the nearest known one.
  """
  namespace, rest = parser.parse_known_args(argv)
  _, unknown = _beam_parser().parse_known_args(rest)
  if unknown:
    raise InputError(_unknown_argument(parser, unknown[0]))
  return namespace, PipelineOptions(flags=list(rest))


def refuse_unknown(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
  """Parses the flags of a command that runs no Beam job.

  Raises:
    InputError: an unknown flag; names the nearest known one.
  """
  namespace, unknown = parser.parse_known_args(argv)
  if unknown:
    raise InputError(_unknown_argument(parser, unknown[0], beam=False))
  return namespace


@functools.cache
def _beam_parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  for options in sorted(PipelineOptions.__subclasses__(), key=lambda options: options.__name__):
    # Beam's own convention for an option class; the classes are Beam's, so no name is there twice.
    options._add_argparse_args(parser)
  return parser


def _unknown_argument(parser: argparse.ArgumentParser, argument: str, beam: bool = True) -> str:
  if not argument.startswith("-"):
    return f"{parser.prog}: {argument!r} is not expected here; `{parser.prog} --help` shows what there is."
  flag = argument.split("=")[0]
  known = [*_flags(parser), *(_flags(_beam_parser()) if beam else ())]
  nearest = difflib.get_close_matches(flag, known, n=1, cutoff=0.0)
  owners = "neither beam-retrain nor Beam knows it" if beam else "this command does not know it"
  return f"{parser.prog}: {flag}: {owners}; the nearest flag is {nearest[0]}."


def _flags(parser: argparse.ArgumentParser) -> list[str]:
  return [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]


def fraction(text: str) -> float:
  """Argparse type: a number 0..1."""
  value = float(text)
  if not 0 <= value <= 1:
    raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
  return value


def add_max_bad_fraction(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--max_bad_fraction",
    type=fraction,
    default=0.0,
    metavar="F",
    help="accept up to this part of the inputs as bad, 0..1 (default 0: any bad input makes the exit code 3, after"
    " everything else has been written)",
  )
