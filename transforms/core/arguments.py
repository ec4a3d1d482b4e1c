"""Checks the arguments of library calls, and names them in errors."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence

from beam_retrain.transforms.core.errors import InputError

AnyPath = str | os.PathLike[str]

_FLAG = re.compile(r"`[^`]*`|--([a-z_0-9]+)")


def as_path(path: object, name: str = "path") -> str:
  """Returns a path as str.

  Raises:
    InputError: it is no path.
  """
  if not isinstance(path, str | os.PathLike):
    raise InputError(f"{name} is {_described(path)}: give a str or a pathlib.Path.")
  return os.fsdecode(path)


def check_one_of(name: str, value: object, known: Sequence[str]) -> None:
  """Raises InputError for a value that is none of the known ones."""
  if value not in known:
    raise InputError(f"{name} is {value!r}: give {' or '.join(map(repr, known))}.")


def check_count(name: str, value: object) -> None:
  """Raises InputError for a value that is no whole number above 0."""
  if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < 1:  # numpy's integers, too
    raise InputError(f"{name} is {value!r}: give a whole number of at least 1.")


def _described(value: object) -> str:
  return "None" if value is None else f"of type {type(value).__name__}"


@contextlib.contextmanager
def naming_arguments(**names: str) -> Iterator[None]:
  """Names arguments instead of flags in an InputError.

  `names`: flag -> argument, where they differ. A command line in backticks keeps its flags.
  """
  try:
    yield
  except InputError as error:
    error.args = (_FLAG.sub(lambda found: names.get(found[1], found[1]) if found[1] else found[0], str(error)),)
    raise
