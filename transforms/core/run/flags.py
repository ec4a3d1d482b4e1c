"""Command line flags: the parser, argparse types, flags of several commands."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from beam_retrain.transforms.core.errors import InputError, UnknownFlagError
from beam_retrain.transforms.core.printing import Level, print, set_level
from beam_retrain.transforms.core.records.quarantine import MAX_PIXELS
from beam_retrain.transforms.core.run import config
from beam_retrain.transforms.core.run.argparse_internals import FlagGroup, actions_of, flags_of
from beam_retrain.transforms.core.run.run_info import without_secrets


class _SetLevel(argparse.Action):
  """Sets how much is printed; leaves nothing in the namespace."""

  def __init__(self, option_strings: Sequence[str], dest: str, const: Level, help: str):
    super().__init__(option_strings, argparse.SUPPRESS, nargs=0, const=const, default=argparse.SUPPRESS, help=help)

  def __call__(self, *_: object) -> None:
    set_level(self.const)


class _Elsewhere(argparse.Action):
  """A flag that `expand` and `parse_known_args` look at before."""

  def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any):
    super().__init__(option_strings, argparse.SUPPRESS, default=argparse.SUPPRESS, **kwargs)

  def __call__(self, *_: object) -> None: ...


class ArgumentParser(argparse.ArgumentParser):
  """Raises `InputError` instead of exiting; allows no abbreviated flags."""

  def __init__(self, *args: Any, **kwargs: Any) -> None:
    kwargs.setdefault("allow_abbrev", False)
    kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
    super().__init__(*args, **kwargs)
    if self.add_help:
      both = self.add_mutually_exclusive_group()
      both.add_argument("-q", "--quiet", action=_SetLevel, const=Level.QUIET, help="print nothing but the result")
      both.add_argument("-v", "--verbose", action=_SetLevel, const=Level.VERBOSE, help="print what was chosen, and why")
      self.add_argument(
        "--config", action=_Elsewhere, metavar="FILE", help="flags from a TOML file, by name; the command line wins"
      )
      self.add_argument(
        "--print_config", action=_Elsewhere, nargs=0, help="print the given flags as such a file, and do nothing else"
      )

  def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
    if not self.add_help:
      return super().parse_known_args(args, namespace)
    set_level(Level.NORMAL)
    args = expand(self, args)
    if "--print_config" in args:  # of part of the flags, too: the rest comes from the command line
      for action in self._actions:
        action.required = False
    parsed = super().parse_known_args(args, namespace)
    if "--print_config" in args:
      argv = without_secrets(one for one in args if one != "--print_config")
      print(*config.to_toml(command_of(self), argv).splitlines(), sep="\n")
      raise SystemExit(0)
    return parsed

  def error(self, message: str) -> NoReturn:
    raise InputError(f"{self.prog}: {message}; see `{self.prog} --help`.")


def command_of(parser: argparse.ArgumentParser) -> str:
  return parser.prog.split()[-1]


def expand(parser: argparse.ArgumentParser, argv: Sequence[str]) -> list[str]:
  """Returns the arguments with those of `--config` in its place."""
  path, rest = _split_config(argv)
  return [*config.to_arguments(path, command_of(parser), parser, rest), *rest] if path else rest


def _split_config(argv: Sequence[str]) -> tuple[str, list[str]]:
  """Returns the file of `--config`, or "", and the other arguments."""
  file, rest, words = "", [], iter(argv)
  for argument in words:
    name, equals, value = argument.partition("=")
    if name != "--config":
      rest.append(argument)
    elif path := value if equals else next(words, ""):
      file = path
    else:
      rest.append("--config")  # argparse says what is missing
  return file, rest


def parse_flags(
  parser: argparse.ArgumentParser, argv: Sequence[str], flags: argparse.Namespace | None = None
) -> argparse.Namespace:
  """Parses the flags of a command without a job; may raise InputError."""
  known, complaint = flags_of(parser), "unknown flag"
  validate_spelling(parser, argv, known, complaint)
  namespace, unknown = parser.parse_known_args(argv, flags)
  if unknown:
    raise unknown_argument(parser, unknown[0], known, complaint)
  return namespace


def validate_spelling(
  parser: argparse.ArgumentParser, argv: Sequence[str], known: Sequence[str], complaint: str
) -> None:
  """Raises InputError for an unknown flag, before parsing.

  With `--inputt DIR`, argparse would report that `--input` is missing.
  """
  if path := _split_config(argv)[0]:
    places = [f"--{action.dest}" for action in actions_of(parser) if not action.option_strings]
    config.validate(path, command_of(parser), [*flags_of(parser), *places], known)
  for argument in argv:
    if argument.startswith("--") and argument.split("=")[0] not in (*known, "--"):
      raise unknown_argument(parser, argument, known, complaint)


_INPUTS = {"--data", "--input", "--image_dir", "--directory_name"}
"""What the commands call the images."""


def unknown_argument(
  parser: argparse.ArgumentParser, argument: str, known: Sequence[str], complaint: str
) -> InputError:
  """Returns the error for an unknown argument, with the nearest flag."""
  takers = _INPUTS.intersection(flags_of(parser))
  if not argument.startswith("-"):
    existing = takers if os.path.exists(argument) else ()
    remedy = "".join(f"give it as {flag} {shlex.quote(argument)}, or " for flag in existing)
    return InputError(f"{parser.prog}: {argument!r} is not expected here; {remedy}see `{parser.prog} --help`.")
  flag = argument.split("=")[0]
  if flag in _INPUTS and takers:
    return InputError(f"{parser.prog}: {flag}: {complaint}; images are given as {' or '.join(takers)}.")
  # Ours first: Beam has hundreds, one of which is near to nearly anything.
  near = config.nearest(flag, flags_of(parser), known)
  remedy = f"the nearest flag is {near}" if near else f"see `{parser.prog} --help`"
  return UnknownFlagError(flag, f"{parser.prog}: {flag}: {complaint}", remedy)


def fraction(text: str) -> float:
  """Argparse type: a number 0..1."""
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not 0 <= value <= 1:
    raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1 (0.01 is one in a hundred)")
  return value


def accept_bad(bad_fraction: float, accepted: float = 0.0) -> str:
  """Returns the flag that accepts bad inputs: `accepted`, if it is enough."""
  rounded_up = math.ceil(round(bad_fraction * 1000, 9)) / 1000
  return f"--max_bad_fraction={accepted if accepted >= bad_fraction else rounded_up:g}"


def whole_number(low: float = -math.inf, high: float = math.inf) -> Callable[[str], int]:
  """Returns an argparse type: an integer from `low` to `high`."""

  def parse(text: str) -> int:
    try:
      value = int(text)
    except ValueError as error:
      raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error
    if not low <= value <= high:
      limits = f"at least {low}" if high == math.inf else f"between {low} and {high}"
      raise argparse.ArgumentTypeError(f"{text} is not {limits}")
    return value

  return parse


positive_int = whole_number(1)
seed_number = whole_number(0, (1 << 63) - 1)


def byte_count(text: str) -> int:
  """Argparse type: a size in bytes; K is 1024 of them."""
  found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
  if not found:
    raise argparse.ArgumentTypeError(f"{text!r} is not a size, such as 8G or 500M")
  return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


def positive_number(text: str) -> float:
  """Argparse type: a finite number above 0."""
  try:
    value = float(text)
  except ValueError:
    value = 0.0
  if not 0 < value < math.inf:
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
  return value


def option(default: Any = dataclasses.MISSING, help: str = "", *aliases: str, **how: Any) -> Any:
  """Returns a field that is a flag; a required one without default.

  A switch has the default False, and a flag that may be repeated has (). `how` are arguments of `add_argument`, and:

  - group: title, and perhaps description, of the flag's group in the help.
  - separator: of a tuple in one argument, as `--formats=jpg,png`.
  - flag: False for an argument without a name.
  """
  metadata = {name: how.pop(name) for name in how.keys() & {"group", "separator", "flag"}}
  if default is False:
    how["action"] = "store_true"
  elif default == () and "nargs" not in how:
    how["action"] = "append"
  elif default is dataclasses.MISSING and "flag" not in metadata:
    how["required"] = True
  metadata["option"] = aliases, {"help": help, **how}
  return dataclasses.field(metadata=metadata, **({} if default is dataclasses.MISSING else {"default": default}))


def add_option(parser: FlagGroup, name: str, field: dataclasses.Field) -> None:
  """Adds the flag of a field that `option` made."""
  aliases, how = field.metadata["option"]
  default = {} if field.default is dataclasses.MISSING else {"default": field.default}
  names = (f"--{name}", *aliases) if field.metadata.get("flag", True) else (name,)
  parser.add_argument(*names, **default, **how)


def max_bad_option() -> Any:
  return option(
    0.0,
    "largest accepted fraction of bad inputs, 0..1; above it the exit code is 3, but everything else is written"
    " (default: 0)",
    type=fraction,
    metavar="F",
  )


def max_pixels_option() -> Any:
  help = "decode images of at most N pixels, height x width (default: %(default)d)"
  return option(MAX_PIXELS, help, type=positive_int, metavar="N")


def trunk_threads_option() -> Any:
  return option(
    None,
    "trunk threads per process (default: the machine's cores, or the container's limit, divided by its worker"
    " processes)",
    type=positive_int,
    metavar="N",
  )
