"""Captures the output of Beam and its workers; shown only on failure.

A fault of a worker is logged, with its traceback, by the worker, by its harness and by the runner, and printed
besides: a user would have to look for our one sentence below 200 lines.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import TextIO

_KEPT_CHARACTERS = 1_000_000
_STDERR = 2
_OURS = "beam-retrain: "


@contextlib.contextmanager
def capture_output() -> Iterator[TextIO]:
  """Sends logging, `sys.stderr` and file descriptor 2 to a file.

  An engine's messages go to the root logger, a worker in this process prints its tracebacks, and worker processes
  inherit the descriptor. Yields the terminal, for progress lines. Those of workers, which start as
  all of ours do, are printed when the block has ended well, each once. An exception that leaves the block takes the
  file's text along as a note, which is printed with its traceback; else the text is gone.
  """
  with tempfile.TemporaryFile("w+", buffering=1, errors="replace") as log:
    try:
      with _stderr_sent_to(log) as terminal, _logged_to(log):
        yield terminal
    except Exception as error:
      log.seek(0)
      if said := log.read()[-_KEPT_CHARACTERS:]:
        error.add_note(f"What Beam and its workers said:\n{said}")
      raise
    else:
      log.seek(0)
      for sentence in dict.fromkeys(line for line in log if line.startswith(_OURS)):
        sys.stderr.write(sentence)
    finally:
      # Each time: what is registered last is called first, and this has to be before what Beam has registered.
      atexit.register(_hush)


def _hush() -> None:
  """Drops what job servers and workers print when Beam stops them as Python ends."""
  sys.stderr.flush()
  os.dup2(os.open(os.devnull, os.O_WRONLY), _STDERR)


@contextlib.contextmanager
def _logged_to(log: TextIO) -> Iterator[None]:
  root = logging.getLogger()
  handlers, root.handlers = root.handlers, [logging.StreamHandler(log)]
  try:
    yield
  finally:
    root.handlers = handlers


@contextlib.contextmanager
def _stderr_sent_to(log: TextIO) -> Iterator[TextIO]:
  """Gives what `sys.stderr` wrote to before."""
  descriptor = os.dup(_STDERR)
  python_stderr = sys.stderr
  python_stderr.flush()
  os.dup2(log.fileno(), _STDERR)
  try:
    with open(descriptor, "w", buffering=1, closefd=False) as terminal, contextlib.redirect_stderr(log):
      yield terminal if _writes_to_stderr(python_stderr) else python_stderr
  finally:
    os.dup2(descriptor, _STDERR)
    os.close(descriptor)


def _writes_to_stderr(stream: TextIO) -> bool:
  try:
    return stream.fileno() == _STDERR
  except (AttributeError, OSError):  # a stream of a notebook or a test: no file behind it
    return False
