"""Progress on standard error: one line, updated from time to time."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from beam_retrain.transforms.core.printing import Level, level

TERMINAL_SECS = 1.0
PLAIN_SECS = 15.0
_RATE_SECS = 60.0


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
    self._name = name
    self._unit = unit
    self._total = total
    self._stream = stream or sys.stderr
    self._clock = clock
    self._count = 0
    self._shown_at = clock()
    self._recorded: deque[tuple[float, int]] = deque()
    self._is_shown = False
    self.on_terminal = self._stream.isatty()

  @property
  def interval_secs(self) -> float:
    """Minimum time between two lines."""
    return TERMINAL_SECS if self.on_terminal else PLAIN_SECS

  def record(self, count: int) -> None:
    """Records a count for the rate."""
    now = self._clock()
    self._recorded.append((now, count))
    while now - self._recorded[0][0] > _RATE_SECS and len(self._recorded) > 1:
      self._recorded.popleft()

  def show(self, count: int, total: int | None = None, bad: int = 0) -> None:
    """Prints the line; `total` is None if unknown."""
    self.record(count)
    if level() < Level.NORMAL:
      return
    (since, before), (now, _) = self._recorded[0], self._recorded[-1]
    rate = (count - before) / (now - since) if now > since else 0.0
    line = f"{self._name}: {describe(count, total, self._unit, rate, bad)}"
    self._stream.write(f"\r\033[K{line}" if self.on_terminal else f"{line}\n")
    self._stream.flush()
    self._is_shown = self.on_terminal

  def clear(self) -> None:
    """Clears the line on a terminal."""
    if self._is_shown:
      self._stream.write("\r\033[K")
      self._stream.flush()
      self._is_shown = False

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
    self.clear()


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
