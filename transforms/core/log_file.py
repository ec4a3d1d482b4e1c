"""A command's log, in its output: what it printed, with times.

Each command adds to `.beam-retrain.log`, which is hidden so that it is none of the output's files. In an object store
it is written at the end.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import traceback
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from beam_retrain.transforms.core import printing

if TYPE_CHECKING:
  from beam_retrain.transforms.core.run.contents import Files

LOG_FILE = ".beam-retrain.log"
_MOST_CHARACTERS = 1 << 20
"""Of one command; as many bytes are kept of those before."""


class _Log:
  """Lines of one command; until it has an output, in memory."""

  def __init__(self) -> None:
    self._process = os.getpid()  # children print what this process prints again
    self._lines: list[str] = []
    self._left = _MOST_CHARACTERS
    self._descriptor: int | None = None
    self.place: tuple[str, Files] | None = None

  def add(self, text: str) -> None:
    if os.getpid() != self._process or self._left <= 0:
      return
    self._left -= len(text)
    self.write(text if self._left > 0 else "what follows is too much to be kept")

  def write(self, text: str) -> None:
    line = f"{datetime.datetime.now().astimezone().isoformat(' ', 'milliseconds')} {text}\n"
    if self._descriptor is None:
      self._lines.append(line)
    else:
      os.write(self._descriptor, _encode(line))

  def keep_in(self, folder: str, files: Files) -> None:
    self.place = f"{folder}/{LOG_FILE}", files
    if files.is_local(folder):
      with contextlib.suppress(OSError):  # on a full disk the command itself says so
        _shorten(*self.place)
        self._descriptor = os.open(self.place[0], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.write(self._descriptor, _encode("".join(self._lines)))

  def close(self) -> None:
    if self._descriptor is not None:
      os.close(self._descriptor)
    elif self.place:
      path, files = self.place
      files.write_bytes(path, _earlier(path, files) + _encode("".join(self._lines)))


_log: _Log | None = None


@contextlib.contextmanager
def logged(beginning: Sequence[str]) -> Iterator[None]:
  """Keeps a log of the command while the block runs.

  `beginning`: its first lines.
  """
  global _log
  before, _log = _log, _Log()
  printing.listen(_log.add)
  for line in beginning:
    _log.add(line)
  try:
    yield
  finally:
    printing.listen(before.add if before else None)
    # Whatever becomes of the log, the command's result stays.
    with contextlib.suppress(Exception):
      _log.close()
    _log = before


def keep_in(folder: str, files: Files) -> None:
  """Puts the command's log into the output that it has claimed first."""
  if _log and not _log.place:
    _log.keep_in(folder, files)


def add_ending(ending: int | BaseException) -> None:
  """Adds the exit code, or the traceback of what ended the command."""
  if _log:
    with contextlib.suppress(OSError, ValueError):
      lines = [f"exit code {ending:d}"] if isinstance(ending, int) else traceback.format_exception(ending)
      _log.write("".join(lines)[-_MOST_CHARACTERS:].rstrip())


def _encode(text: str) -> bytes:
  return text.encode(errors="backslashreplace")


def _shorten(path: str, files: Files) -> None:
  if files.exists(path) and os.path.getsize(path) > _MOST_CHARACTERS:
    files.write_bytes(path, _earlier(path, files))


def _earlier(path: str, files: Files) -> bytes:
  """Returns whole lines of earlier commands, the last ones."""
  data = files.read_bytes(path) if files.exists(path) else b""
  return data if len(data) <= _MOST_CHARACTERS else data[-_MOST_CHARACTERS:].partition(b"\n")[2]
