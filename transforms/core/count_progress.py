"""How far a loop is that takes a while: what has been counted, on standard error, from time to time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

_TERMINAL_SECS = 1.0
_PLAIN_SECS = 15.0


class CountProgress:
  """`NAME: 1,200 of 10,000 images, 431/s`, on a terminal in one line that changes and goes away at the end.

  Attributes:
    name: what is being done.
    unit: what is counted.
    total: how many there will be; None where nobody knows.
  """

  def __init__(
    self,
    name: str,
    unit: str = "images",
    total: int | None = None,
    *,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    self._name = name
    self._unit = unit
    self._total = total
    self._stream = stream or sys.stderr
    self._clock = clock
    self._start = self._told = clock()
    self._count = 0
    self._on_line = False

  def add(self, count: int = 1) -> None:
    self._count += count
    now = self._clock()
    on_terminal = self._stream.isatty()
    if now - self._told < (_TERMINAL_SECS if on_terminal else _PLAIN_SECS):
      return
    self._told = now
    of = "" if self._total is None else f" of {self._total:,}"
    rate = self._count / (now - self._start)
    line = f"{self._name}: {self._count:,}{of} {self._unit}, {rate:,.{1 if rate < 10 else 0}f}/s"
    self._stream.write(f"\r\033[K{line}" if on_terminal else f"{line}\n")
    self._stream.flush()
    self._on_line = on_terminal

  def __enter__(self) -> CountProgress:
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    if self._on_line:
      self._stream.write("\r\033[K")
      self._stream.flush()
