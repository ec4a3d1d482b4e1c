"""Errors shown to users: the thing, the cause and the remedy."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar


class InputError(Exception):
  """Invalid input from the user: printed as it is, exit code 2."""

  def __init__(self, message: str):
    # On one line, so that it can be found in the text of a traceback.
    super().__init__(" ".join(message.split()))


_IN_TRACEBACK = re.compile(r"InputError: (?P<message>.+?)(?: \[while running .*)?$", re.MULTILINE)


def user_sentence(error: BaseException) -> str | None:
  """Returns the message of the `InputError` behind `error`, or None.

  In-process runners keep a worker's exception and append `[while running 'Step']`; the others raise a RuntimeError
  whose text holds the worker's traceback.
  """
  if isinstance(error, InputError):
    return re.sub(r" \[while running .*$", "", str(error), flags=re.DOTALL)
  messages = _IN_TRACEBACK.findall(str(error))
  return messages[-1] if messages else None


def first_line(error: BaseException) -> str:
  """Returns the first line of an error's message, else its class."""
  return next(iter(str(error).splitlines()), type(error).__name__)


_FLAG_NAMES: ContextVar[Mapping[str, str]] = ContextVar("flag names", default={})  # noqa: B039  never changed in place


def flag(name: str) -> str:
  """Returns a flag as the user typed it, for example `--input`."""
  return f"--{_FLAG_NAMES.get().get(name, name)}"


@contextlib.contextmanager
def flag_names(names: Mapping[str, str]) -> Iterator[None]:
  """Makes `flag` use a command's names, for example `{"input": "image_dir"}`."""
  token = _FLAG_NAMES.set(names)
  try:
    yield
  finally:
    _FLAG_NAMES.reset(token)
