"""What a person sees of a training that goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from beam_retrain.trainer.fit.training import Round


class ProgressLine:
  """One line that is written over on a terminal; one line per round anywhere else."""

  def __init__(self, stream: TextIO, rounds: int, clock: Callable[[], float] = time.monotonic):
    self._stream = stream
    self._rounds = rounds
    self._clock = clock
    self._start = clock()

  def show(self, step: int, finished: Round) -> None:
    del step  # its round is named
    line = (
      f"round {finished.number}/{self._rounds} ({finished.steps} steps): training loss {finished.training_loss:.4f},"
      f" accuracy {finished.training_accuracy:.2%}; validation loss {finished.validation_loss:.4f},"
      f" accuracy {finished.validation_accuracy:.2%}; {self._clock() - self._start:.1f} s"
    )
    # \x1b[K clears what a longer line left to the right.
    self._stream.write(f"\r{line}\x1b[K" if self._stream.isatty() else f"{line}\n")
    self._stream.flush()

  def close(self) -> None:
    if self._stream.isatty():
      self._stream.write("\n")
