"""Errors shown to users: the thing, the cause and the remedy."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar


class InputError(Exception):
  """Invalid input from the user: printed as it is, exit code 2."""

  def __init__(self, message: str):
    # On one line, so that it can be found in the text of a traceback.
    super().__init__(" ".join(message.split()))


_FULL = (errno.ENOSPC, errno.EDQUOT)
_OF_PATHS = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENOENT, errno.EROFS)


class UnknownFlagError(InputError):
  """A command does not have a flag.

  `about`: the message without its remedy.
  """

  def __init__(self, flag: str, about: str, remedy: str):
    super().__init__(f"{about}; {remedy}.")
    self.flag, self.about = flag, about


class DamagedInputError(InputError):
  """A file of ours is not as we wrote it."""


class FullDiskInputError(InputError, OSError):
  """A disk is full, or a quota used up.

  Args:
    path: the file, or a message that another such error had.
    error: what its writer raised.
  """

  def __init__(self, path: str, error: BaseException | None = None):
    super().__init__(_name_disk(path, error) if error else path)
    self.errno, self.strerror = errno.ENOSPC, os.strerror(errno.ENOSPC)

  def __str__(self) -> str:
    return str(self.args[0])  # OSError's own would be the two above


def is_full_disk(error: BaseException) -> bool:
  """Returns whether an error, of whatever library, means a full disk."""
  if isinstance(error, OSError) and error.errno in _FULL:
    return True
  return any(os.strerror(number) in str(error) for number in _FULL)


def _name_disk(path: str, error: BaseException) -> str:
  place = os.path.realpath(path)
  while not os.path.exists(place):
    place = os.path.dirname(place)
  free, mount = shutil.disk_usage(place).free, place
  while not os.path.ismount(mount):
    mount = os.path.dirname(mount)
  quota = os.strerror(errno.EDQUOT) in str(error)
  why = f"your quota on {mount} is used up" if quota else f"the disk of {mount} is full"
  return f"{path} cannot be written: {why} ({free / 1e6:,.1f} MB left): free some space there, or write elsewhere."


@contextlib.contextmanager
def naming_full_disk(path: str) -> Iterator[None]:
  """Raises FullDiskInputError where the block cannot write `path`."""
  try:
    yield
  except Exception as error:
    if isinstance(error, InputError) or not is_full_disk(error):
      raise
    raise FullDiskInputError(path, error) from error


_OS_ERROR_IN_TRACEBACK = re.compile(r"Error: \[Errno (\d+)\] ([^:\n]+): '([^'\n]+)'$", re.MULTILINE)
_IN_TRACEBACK = re.compile(r"InputError: (?P<message>.+?)(?: \[while running .*)?$", re.MULTILINE)


def user_sentence(error: BaseException) -> str | None:
  """Returns the message of the `InputError` behind `error`, or None.

  In-process runners keep a worker's exception and append `[while running 'Step']`; the others raise a RuntimeError
  whose text holds the worker's traceback.
  """
  if isinstance(error, InputError):
    return re.sub(r" \[while running .*$", "", str(error), flags=re.DOTALL)
  if messages := _IN_TRACEBACK.findall(str(error)):
    return str(messages[-1])
  for number, why, path in reversed(_OS_ERROR_IN_TRACEBACK.findall(str(error))):
    if int(number) in (*_OF_PATHS, *_FULL):
      return describe_os_error(OSError(int(number), why, path))
  return None


def describe_os_error(error: OSError) -> str | None:
  """Returns the sentence for an operating system's error that names a file."""
  path = error.filename2 or error.filename  # of a copy, the target
  if path and error.errno in _FULL:
    return str(FullDiskInputError(str(path), error))
  return f"{path}: {error.strerror}: fix it, or give another path." if path and error.errno in _OF_PATHS else None


def first_line(error: BaseException) -> str:
  """Returns the first line of an error's message, else its class."""
  return next(iter(str(error).splitlines()), type(error).__name__)


def listed(names: Sequence[str], most: int = 10) -> str:
  """Returns names in quotes, and how many more there are."""
  return ", ".join(map(repr, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


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
