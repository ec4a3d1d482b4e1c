"""How far a running job is, from what it has finished: the reports beside its shards. No worker is asked."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

from transforms import files
from transforms.core.schema import parse_shard_name
from transforms.core.shards import ShardReport
from transforms.shard_work import REPORTS_FOLDER

_TERMINAL_SECS = 1.0
_PLAIN_SECS = 15.0


@contextlib.contextmanager
def shard_progress(name: str, shards_folder: str, stream: TextIO | None = None) -> Iterator[None]:
  """Prints a line from time to time while the block runs; on a terminal, one line that changes.

  Args:
    name: the stage.
    shards_folder: where its shards are written; looked at only where it is local, and so cheap to list.
    stream: where to print; standard error if not given.
  """
  if not files.is_local(shards_folder):
    yield
    return
  stop = threading.Event()
  thread = threading.Thread(
    target=_report, args=(name, shards_folder, stop, stream or sys.stderr), name="progress", daemon=True
  )
  thread.start()
  try:
    yield
  finally:
    stop.set()
    thread.join()


def _report(name: str, shards_folder: str, stop: threading.Event, stream: TextIO) -> None:
  on_terminal = stream.isatty()
  progress = ShardProgress(os.path.join(shards_folder, REPORTS_FOLDER))
  progress.look()  # what an earlier run has finished is not this run's speed
  start, kept, told = time.monotonic(), progress.images, progress.images
  while not stop.wait(_TERMINAL_SECS if on_terminal else _PLAIN_SECS):
    progress.look()
    if progress.images > told:
      told = progress.images
      rate = (told - kept) / (time.monotonic() - start)
      line = f"{name}: {progress.describe()}, {rate:,.0f} images/s"
      stream.write(f"\r\033[K{line}" if on_terminal else f"{line}\n")
      stream.flush()
  if told > kept and on_terminal:
    stream.write("\r\033[K")
    stream.flush()


class ShardProgress:
  """Adds up the reports of finished shards; each is read once.

  Attributes:
    images: pictures dealt with, quarantined ones too.
  """

  def __init__(self, reports_folder: str):
    self._folder = reports_folder
    self._seen: set[str] = set()
    self._shards: dict[str, tuple[int, int]] = {}  # split -> (finished, of)
    self.images = 0

  def look(self) -> None:
    """Takes in what has been finished since the last look."""
    with contextlib.suppress(FileNotFoundError):
      for name in sorted(set(os.listdir(self._folder)) - self._seen):
        parsed = parse_shard_name(name.removesuffix(".json"))
        if parsed and name.endswith(".json"):
          self._seen.add(name)
          path = os.path.join(self._folder, name)
          # A damaged one belongs to a shard that is worked again.
          with contextlib.suppress(ValueError, TypeError, KeyError), open(path) as file:
            self.images += ShardReport.from_json(file.read()).inputs
          split, _, of = parsed
          self._shards[split] = (self._shards.get(split, (0, of))[0] + 1, of)

  def describe(self) -> str:
    """Returns for example `training 12 of 59 shards, 12,288 images`."""
    shards = ", ".join(f"{split} {done} of {of}" for split, (done, of) in sorted(self._shards.items(), reverse=True))
    return f"{shards} shards, {self.images:,} images"
