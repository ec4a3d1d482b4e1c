"""Prints messages whose names cannot act on a terminal.

File names, labels and the messages of libraries may hold terminal escapes, line ends, bytes that are not text, and
characters that reorder a line ("Trojan Source", CVE-2021-42574). They are printed as Python writes them in a string:
`\\x1b`, `\\n`, `\\u202e`, `\\udcff`.
"""

from __future__ import annotations

import builtins
import logging
import re
from typing import TextIO

# Control, format and surrogate characters, line ends and what XML forbids, but not the joiners that scripts need.
_UNSAFE = re.compile(
  "[\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
  "\ufff9-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
  """Returns `text` on one line, with its control characters escaped."""
  return _UNSAFE.sub(lambda unsafe: unsafe[0].encode("unicode_escape").decode(), text)


def print(*values: object, sep: str = " ", end: str = "\n", file: TextIO | None = None, flush: bool = False) -> None:
  """Prints each value on one line, escaped, as `print` does otherwise.

  Several lines are several values, with `sep="\\n"`.
  """
  builtins.print(*(printable(str(value)) for value in values), sep=sep, end=end, file=file, flush=flush)


class PrintableFormatter(logging.Formatter):
  """Escapes each line of what libraries log."""

  def format(self, record: logging.LogRecord) -> str:
    return "\n".join(map(printable, super().format(record).split("\n")))
