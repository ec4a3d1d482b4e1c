"""Errors that a user reads: one sentence that names the thing, the cause and the remedy."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar


class InputError(Exception):
  """Something the user gave cannot be used. Its text is printed as it is, and the exit code is 2."""

  def __init__(self, sentence: str):
    # One line, so that the sentence survives a runner that hands exceptions back as the text of a traceback.
    super().__init__(" ".join(sentence.split()))


_IN_TRACEBACK = re.compile(r"InputError: (?P<sentence>.+?)(?: \[while running .*)?$", re.MULTILINE)


def user_sentence(error: BaseException) -> str | None:
  """Returns the sentence of the `InputError` behind `error`, or None where it is some other fault.

  Runners wrap what a worker raises: in-process ones keep the exception and append `[while running 'Step']`, the others
  hand back a RuntimeError whose text holds the worker's traceback.
  """
  if isinstance(error, InputError):
    return re.sub(r" \[while running .*$", "", str(error), flags=re.DOTALL)
  found = _IN_TRACEBACK.findall(str(error))
  return found[-1] if found else None


def first_line(error: BaseException) -> str:
  """Returns the first line of what an error says, or the name of its class where it says nothing."""
  return next(iter(str(error).splitlines()), type(error).__name__)


_FLAG_NAMES: ContextVar[Mapping[str, str]] = ContextVar("flag names", default={})  # noqa: B039  never changed in place


def flag(name: str) -> str:
  """Returns a flag as the user typed it: `--input`, or what `flag_names` calls it."""
  return f"--{_FLAG_NAMES.get().get(name, name)}"


@contextlib.contextmanager
def flag_names(names: Mapping[str, str]) -> Iterator[None]:
  """Has `flag` use a command's own names, where it runs a stage: `flag_names({"input": "image_dir"})`."""
  token = _FLAG_NAMES.set(names)
  try:
    yield
  finally:
    _FLAG_NAMES.reset(token)
