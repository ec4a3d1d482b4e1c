"""Captures the output of Beam and its workers; shown only on failure.

A worker's error is logged, with its traceback, by the worker, its harness and the runner, and also printed: our one
sentence would be lost below 200 lines.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any, TextIO, cast

from beam_retrain.transforms.core.printing import record, say
from beam_retrain.transforms.core.system.stderr import STDERR, redirect_native_stderr

_KEPT_CHARACTERS = 1_000_000
_LOGGED_BYTES = 100_000  # of a job that succeeds
_OURS = "beam-retrain: "


@contextlib.contextmanager
def capture_output() -> Iterator[TextIO]:
  """Sends logging, `sys.stderr` and file descriptor 2 to a file.

  An engine's messages go to the root logger, a worker in this process prints its tracebacks, and worker processes
  inherit the descriptor. Yields the terminal, for progress lines. If the block succeeds, our own workers' messages are
  printed, each once. An exception that leaves the block gets the file's text as a note, printed with its traceback.
  """
  with tempfile.TemporaryFile("w+", buffering=1, errors="replace") as log:
    try:
      with _sent_to(log) as terminal:
        yield terminal
    except Exception as error:
      log.seek(0)  # with the error's traceback, it goes into the command's log
      if text := log.read()[-_KEPT_CHARACTERS:]:
        error.add_note(f"Output of Beam and its workers:\n{text}")
      raise
    else:
      log.seek(0)
      if text := _tail(log):
        record(f"output of Beam and its workers:\n{text}")
      for sentence in dict.fromkeys(line for line in log if line.startswith(_OURS)):
        say(sentence.rstrip("\n"), file=sys.stderr)
    finally:
      if not isinstance(sys.stderr, _MainThreadStream):
        sys.stderr = cast(TextIO, _MainThreadStream(sys.stderr))
      # Each time, to be called before Beam's own handlers: the last one registered is called first.
      atexit.register(_hush)


def _tail(log: TextIO) -> str:
  size_bytes = os.fstat(log.fileno()).st_size
  return os.pread(log.fileno(), _LOGGED_BYTES, max(0, size_bytes - _LOGGED_BYTES)).decode(errors="replace").rstrip()


class _MainThreadStream:
  """A stream that drops what other threads write.

  A worker in a thread of this process prints the traceback of each bundle that fails after the job has.
  """

  def __init__(self, stream: TextIO):
    self._stream = stream

  def write(self, text: str) -> int:
    if threading.current_thread() is threading.main_thread():
      self._stream.write(text)
    return len(text)

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)


def _hush() -> None:
  """Drops the output of job servers and workers stopped at exit."""
  sys.stderr.flush()
  os.dup2(os.open(os.devnull, os.O_WRONLY), STDERR)


@contextlib.contextmanager
def _sent_to(log: TextIO) -> Iterator[TextIO]:
  """Yields the stream that `sys.stderr` wrote to before."""
  python_stderr, root = sys.stderr, logging.getLogger()
  handlers, root.handlers = root.handlers, [logging.StreamHandler(log)]
  try:
    with (
      redirect_native_stderr(log) as descriptor,
      open(descriptor, "w", buffering=1, closefd=False) as terminal,
      contextlib.redirect_stderr(log),
    ):
      yield terminal if _writes_to_stderr(python_stderr) else python_stderr
  finally:
    root.handlers = handlers


def _writes_to_stderr(stream: TextIO) -> bool:
  try:
    return stream.fileno() == STDERR
  except (AttributeError, OSError):  # a notebook's or a test's stream has no file
    return False
