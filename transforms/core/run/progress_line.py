"""Progress: a bar on a terminal, elsewhere lines now and then."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from beam_retrain.transforms.core.printing import (
  Level,
  clear_line,
  has_colours,
  is_terminal,
  level,
  record,
  update_line,
)

TERMINAL_SECS = 1.0
PLAIN_SECS = 15.0
_RATE_SECS = 60.0
_BAR_WIDTH = 30


class ProgressLine:
  """Prints progress, rate and time left of a task; `clock` returns seconds.

  On a terminal, one line is updated and finally cleared. The rate is that of the last minute, so that the time left
  adapts quickly.
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
    self.name = name
    self._unit = unit
    self._total = total
    self._stream = stream or sys.stderr
    self._clock = clock
    self._count = 0
    self._shown_at = self._logged_at = clock()
    self._recorded: deque[tuple[float, int]] = deque()
    self.on_terminal = is_terminal(self._stream)

  @property
  def interval_secs(self) -> float:
    """Minimum time between two lines."""
    return TERMINAL_SECS if self.on_terminal else PLAIN_SECS

  def record(self, count: int) -> None:
    now = self._clock()
    self._recorded.append((now, count))
    while now - self._recorded[0][0] > _RATE_SECS and len(self._recorded) > 1:
      self._recorded.popleft()

  def show(self, count: int, total: int | None = None, bad: int = 0) -> None:
    """Prints the line; `total` is None if unknown."""
    self.record(count)
    (since, before), (now, _) = self._recorded[0], self._recorded[-1]
    rate = (count - before) / (now - since) if now > since else 0.0
    text = describe(count, total, self._unit, rate, bad)
    if now - self._logged_at >= PLAIN_SECS:
      record(f"{self.name}: {text}")
      self._logged_at = now
    if level() < Level.NORMAL:
      return
    if self.on_terminal:
      show_bar(self.name, text, count, total, self._stream)
    else:
      self._stream.write(f"{self.name}: {text}\n")
      self._stream.flush()

  def __enter__(self) -> ProgressLine:
    self.record(0)
    return self

  def add(self, count: int = 1) -> None:
    """Adds to the count, and prints the line if it is time."""
    self._count += count
    if self._clock() - self._shown_at >= self.interval_secs:
      self._shown_at = self._clock()
      self.show(self._count, self._total)

  def __exit__(self, *_: object) -> None:
    clear_line()


def show_bar(name: str, text: str, count: int, total: int | None, stream: TextIO) -> None:
  """Updates a terminal's line, cut to its width: name, bar, text.

  Without a total there is no bar, without colours none of what is left.
  """
  from rich.console import Console  # slow to import
  from rich.progress_bar import ProgressBar
  from rich.table import Table
  from rich.text import Text

  try:
    columns = os.get_terminal_size(stream.fileno()).columns or 80
  except OSError:  # no terminal of the system's
    columns = 80
  # A full line would make some terminals begin the next.
  console = Console(file=stream, width=columns - 1, force_terminal=True, no_color=not has_colours(stream))
  line = Table.grid(padding=(0, 1))
  bar = [ProgressBar(total, min(count, total), width=max(4, min(_BAR_WIDTH, columns // 4)))] if total else []
  line.add_row(Text(name, no_wrap=True), *bar, Text(text, no_wrap=True, overflow="ellipsis"))
  with console.capture() as capture:
    console.print(line, end="")
  update_line(capture.get().rstrip("\n"), stream)


def describe(count: int, total: int | None, unit: str, rate: float, bad: int = 0) -> str:
  """Returns for example `12,288 of 60,000 images, 168/s, 4:45 left, 2 bad`.

  `total` is None if unknown; `rate` is per second; `bad` is part of `count`.
  """
  parts = [f"{count:,}{'' if total is None else f' of {total:,}'} {unit}"]
  if rate > 0:
    parts.append(f"{rate:,.{1 if rate < 10 else 0}f}/s")
    if total is not None and total > count:
      parts.append(f"{_clock_time((total - count) / rate)} left")
  if bad:
    parts.append(f"{bad:,} bad")
  return ", ".join(parts)


def _clock_time(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
