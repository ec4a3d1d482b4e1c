"""Prints lines whose names cannot act on a terminal; updates one.

File names, labels and the messages of libraries may hold terminal escapes, line ends, bytes that are not text, and
characters that reorder a line ("Trojan Source", CVE-2021-42574). They are printed as Python writes them in a string:
`\\x1b`, `\\n`, `\\u202e`, `\\udcff`.

`print` is for results and errors, `say` for what `-q` leaves out, `detail` for what only `-v` shows.
"""

from __future__ import annotations

import builtins
import contextlib
import enum
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO


class Level(enum.IntEnum):
  """How much commands print."""

  SILENT = 0  # errors alone: of a stage whose command prints the result
  QUIET = 1  # the result
  NORMAL = 2
  VERBOSE = 3


_level = Level.NORMAL
_listener: Callable[[str], None] | None = None
_command = ""  # of which this is a stage


def level() -> Level:
  return _level


def set_level(chosen: Level) -> None:
  """Sets how much this process prints."""
  global _level
  _level = chosen


@contextlib.contextmanager
def as_stage(command: str, has_result: bool = False) -> Iterator[None]:
  """Marks the block as a stage of another command line.

  With `-q` it prints its result only if it `has_result`, that of the command.
  """
  global _command
  before = _level, _command
  _command = command
  if _level == Level.QUIET and not has_result:
    set_level(Level.SILENT)
  try:
    yield
  finally:
    set_level(before[0])
    _command = before[1]


def is_stage() -> bool:
  return bool(_command)


def command_of_stage() -> str:
  """Returns the command line of which this is a stage; else ""."""
  return _command


# Control, format and surrogate characters, line ends and what XML forbids, but not the joiners that scripts need.
_UNSAFE = re.compile(
  "[\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
  "\ufff9-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)

# First words of a line -> SGR codes: bold, and red, yellow or green.
_COLOURS = {"beam-retrain: warning:": "1;33", "beam-retrain:": "1;31", "NO GATE SET": "1;33", "warning:": "1;33"}
_COLOURS |= {"FAILED": "1;31", "problem:": "1;31", "MISSED": "1;31", "PASSED": "1;32", "ok:": "1;32"}
_FIRST_WORDS = re.compile(f"^(?:{'|'.join(_COLOURS)})")
_updated: list[TextIO] = []  # the terminal that shows an updated line, if any


def printable(text: str) -> str:
  """Returns `text` on one line, with its control characters escaped."""
  return _UNSAFE.sub(lambda unsafe: unsafe[0].encode("unicode_escape").decode(), text)


def print(*values: object, sep: str = " ", end: str = "\n", file: TextIO | None = None, flush: bool = False) -> None:
  """Prints each value on one line, escaped, as `print` does otherwise.

  Several lines are several values, with `sep="\\n"`. On a terminal, words such as FAILED have a colour.
  """
  texts = [printable(str(value)) for value in values]
  record(sep.join(texts))
  if _level == Level.SILENT and file is None:
    return
  clear_line()
  if has_colours(file or sys.stdout):
    texts = [_FIRST_WORDS.sub(lambda word: f"\033[{_COLOURS[word[0]]}m{word[0]}\033[0m", text) for text in texts]
  builtins.print(*texts, sep=sep, end=end, file=file, flush=flush)


def is_terminal(stream: TextIO) -> bool:
  """Returns whether a stream shows lines that are updated."""
  return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_colours(stream: TextIO) -> bool:
  """Returns whether a stream is a terminal, and NO_COLOR is not set."""
  return is_terminal(stream) and not os.environ.get("NO_COLOR")


def update_line(line: str, stream: TextIO) -> None:
  """Shows a line on a terminal, instead of the last such line."""
  clear_line()
  stream.write(line)
  stream.flush()
  _updated[:] = [stream]


def clear_line() -> None:
  """Clears the line that `update_line` has shown."""
  while _updated:
    with contextlib.suppress(ValueError):  # its stream is closed
      stream = _updated.pop()
      stream.write("\r\033[K")
      stream.flush()


def say(*values: object, sep: str = " ", end: str = "\n", file: TextIO | None = None) -> None:
  """Prints as `print` does, unless the user wants the result alone (`-q`)."""
  _print_from(Level.NORMAL, values, sep, end, file)


def detail(*values: object, sep: str = " ", end: str = "\n", file: TextIO | None = None) -> None:
  """Prints as `print` does, if the user wants details (`-v`)."""
  _print_from(Level.VERBOSE, values, sep, end, file)


def _print_from(least: Level, values: Sequence[object], sep: str, end: str, file: TextIO | None) -> None:
  if _level >= least:
    print(*values, sep=sep, end=end, file=file, flush=True)
  else:
    record(sep.join(printable(str(value)) for value in values))


def listen(listener: Callable[[str], None] | None) -> None:
  """Gives what is printed, and what `-q` hides, to a listener, too."""
  global _listener
  _listener = listener


def record(text: str) -> None:
  """Gives the listener a text that is not printed."""
  if _listener:
    with contextlib.suppress(OSError, ValueError):  # of the log: a full disk, a closed file
      _listener(text)


class PrintableFormatter(logging.Formatter):
  """Escapes each line of what libraries log."""

  def format(self, record: logging.LogRecord) -> str:
    return "\n".join(map(printable, super().format(record).split("\n")))
