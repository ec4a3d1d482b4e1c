"""Flags in a TOML file, and the file of a command line.

Keys are the names of flags. Those at the top, and those in the table named after the command, are the command's; tables
of other commands are left alone. A switch is true; a flag that can be repeated may have a list.
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import json
import re
import shlex
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.argparse_internals import actions_of, is_repeated
from beam_retrain.transforms.core.run.run_info import HIDDEN

COMMANDS = (
  *("run", "convert", "bottlenecks", "plan", "train", "evaluate", "reevaluate", "predict", "serve", "export"),
  *("doctor", "verify", "cache"),
  *("retrain", "label_image"),
)

_NEAR = 0.8  # of difflib's ratio
_LEAST_BEGINNING = len("--out")

Value = str | int | float | bool | list[str]
_PLACE = "images"  # key of what belongs to no flag
_SWITCHES = ("--quiet", "--verbose", "--print_config")
_SHORT = {"-q": "--quiet", "-v": "--verbose"}
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,17})(\.\d+)?")


def read(path: str, command: str) -> dict[str, Value]:
  """Returns a command's flags: name without dashes -> value.

  Raises InputError if the file cannot be read, or holds what is no flag.
  """
  try:
    with open(path, "rb") as file:
      entries = tomllib.load(file)
  except OSError as error:
    raise InputError(
      f"--config {path} cannot be read ({error.strerror}): give a file as --print_config makes."
    ) from error
  except ValueError as error:  # of TOML, or of UTF-8
    raise InputError(f"--config {path} is not TOML ({error}): give a file as --print_config makes.") from error
  tables = {name: value for name, value in entries.items() if isinstance(value, dict)}
  for name in tables:
    if name not in COMMANDS:
      near = nearest(name, COMMANDS)
      raise InputError(f"{path}: [{name}] is no command{f'; the nearest is [{near}]' if near else ''}.")
  flags = {name: value for name, value in entries.items() if name not in tables} | tables.get(command, {})
  for name, value in flags.items():
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str | int | float) for one in values):
      raise InputError(f"{path}: {name} is neither text, a number, true or false, nor a list of these.")
  return flags


def validate(path: str, command: str, ours: Sequence[str], known: Sequence[str]) -> None:
  """Raises InputError for a key that is none of the known flags."""
  for key in read(path, command):
    if f"--{key}" not in {*ours, *known} - {"--config", "--print_config", "--help"}:
      near = nearest(f"--{key}", ours, known).removeprefix("--")
      raise InputError(
        f"{path}: `beam-retrain {command}` has no flag {key}"
        f"{f'; the nearest is {near}' if near else ''} (flags of other commands belong in their tables, as [train])."
      )


def nearest(name: str, *known: Sequence[str]) -> str:
  """Returns the nearest name, of the first group that has one."""
  ours, *others = ([*difflib.get_close_matches(name, names, n=1, cutoff=_NEAR)] for names in known)
  begun = sorted((each for each in known[0] if each.startswith(name) and len(name) >= _LEAST_BEGINNING), key=len)
  return next(iter(itertools.chain(ours, begun, *others)), "")


def to_arguments(path: str, command: str, parser: argparse.ArgumentParser, given: Sequence[str]) -> list[str]:
  """Returns a file's flags as arguments, without those given."""
  named = {_SHORT.get(argument, argument).partition("=")[0] for argument in given if argument.startswith("-")}
  by_flag = {flag: action for action in actions_of(parser) for flag in action.option_strings}
  places = [action.dest for action in actions_of(parser) if not action.option_strings]
  arguments: list[str] = []
  for key, value in read(path, command).items():
    flag = f"--{key}"
    action = by_flag.get(flag)
    if key in places:
      arguments += [] if _has_places(by_flag, given) else _texts(value)
    elif flag not in named and not (action and named.intersection(action.option_strings)):
      arguments += _of_flag(path, flag, value, action)
  return arguments


def _of_flag(path: str, flag: str, value: Value, action: argparse.Action | None) -> list[str]:
  if action and action.nargs == 0 and not isinstance(value, bool):
    raise InputError(f"{path}: {flag.removeprefix('--')} is a switch: give true or false.")
  if isinstance(value, bool) and (action is None or action.nargs == 0):
    return [flag] if value else []
  texts = _texts(value)
  if action and action.nargs:
    return [flag, *texts]
  if action is None or is_repeated(action):
    return [f"{flag}={text}" for text in texts]
  return [f"{flag}={','.join(texts)}"]


def _texts(value: Value) -> list[str]:
  return [
    str(one).lower() if isinstance(one, bool) else str(one) for one in (value if isinstance(value, list) else [value])
  ]


def _has_places(by_flag: Mapping[str, argparse.Action], given: Sequence[str]) -> bool:
  """Returns whether an argument belongs to no flag."""
  takes_value = False
  for argument in given:
    if not argument.startswith("-"):
      if not takes_value:
        return True
      takes_value = False
    else:
      action = by_flag.get(argument)
      takes_value = action is not None and action.nargs != 0
  return False


def to_toml(command: str, argv: Iterable[str]) -> str:
  """Returns the TOML of a command line, or "" without flags."""
  flags: dict[str, list[str | bool]] = {}
  for name, value in _given(argv):
    if f"--{name}" not in _SWITCHES:  # how much is printed is no part of a run
      flags.setdefault(name, []).append(value)
  lines = [f"# beam-retrain {command} --config THIS_FILE"] if flags else []
  for name, values in flags.items():
    if any(value == HIDDEN or not _is_text(value) for value in values):
      lines.append(f"# --{name} is not kept here: give it on the command line")
    elif len(values) == 1 and name != _PLACE:
      lines.append(f"{name} = {_literal(values[0])}")
    else:
      lines.append(f"{name} = [{', '.join(map(_literal, values))}]")
  return "".join(f"{line}\n" for line in lines)


def to_toml_of(command_line: str) -> str:
  """Returns the TOML of a command line as `info.json` has it."""
  _, command, *argv = shlex.split(command_line) or ["", ""]
  return to_toml(command, argv)


def _given(argv: Iterable[str]) -> Iterator[tuple[str, str | bool]]:
  """Yields each flag with its value; a switch is True."""
  rest = [_SHORT.get(argument, argument) for argument in argv]
  while rest:
    argument = rest.pop(0)
    name, equals, value = argument.partition("=")
    if not argument.startswith("--"):
      yield _PLACE, argument
    elif equals:
      yield name.removeprefix("--"), value
    elif name in _SWITCHES or not rest or (rest[0].startswith("-") and not _NUMBER.fullmatch(rest[0])):
      yield name.removeprefix("--"), True
    else:
      yield name.removeprefix("--"), rest.pop(0)


def _is_text(value: str | bool) -> bool:
  """Returns whether TOML can hold a value; it holds no bytes."""
  return not any("\ud800" <= character <= "\udfff" for character in str(value))


def _literal(value: str | bool) -> str:
  if value is True:
    return "true"
  if _NUMBER.fullmatch(str(value)) and str(tomllib.loads(f"x = {value}")["x"]) == value:
    return str(value)
  # A JSON string is one of TOML, but for the characters that a terminal would act on.
  text = json.dumps(str(value), ensure_ascii=False)
  return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in text)
