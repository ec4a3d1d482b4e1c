"""What Beam and its worker processes say while a job runs is kept from the terminal, and told where it is needed.

A fault of a worker is logged, with its traceback, by the worker, by its harness and by the runner, and printed
besides: a user would have to look for our one sentence below 200 lines.
"""

from __future__ import annotations

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
def kept_from_terminal() -> Iterator[None]:
  """Sends Beam's log and the file descriptor 2, which worker processes inherit, to a file for the block's time.

  `sys.stderr` stays what it was, for our own words; those of worker processes, which start as all of ours do, are
  printed when the block has ended well, each once. An exception that leaves the block takes the file's text along as a
  note, which is printed with its traceback; else the text is gone.
  """
  beam_log = logging.getLogger("apache_beam")
  with tempfile.TemporaryFile("w+", errors="replace") as log:
    handler = logging.StreamHandler(log)
    propagated, beam_log.propagate = beam_log.propagate, False
    beam_log.addHandler(handler)
    try:
      with _stderr_sent_to(log.fileno()):
        yield
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
      beam_log.removeHandler(handler)
      beam_log.propagate = propagated


@contextlib.contextmanager
def _stderr_sent_to(descriptor: int) -> Iterator[None]:
  terminal = os.dup(_STDERR)
  python_stderr = sys.stderr
  python_stderr.flush()
  os.dup2(descriptor, _STDERR)
  if _writes_to_stderr(python_stderr):
    sys.stderr = open(terminal, "w", buffering=1, closefd=False)  # noqa: SIM115 - closed below
  try:
    yield
  finally:
    if sys.stderr is not python_stderr:
      sys.stderr.close()
      sys.stderr = python_stderr
    os.dup2(terminal, _STDERR)
    os.close(terminal)


def _writes_to_stderr(stream: TextIO) -> bool:
  try:
    return stream.fileno() == _STDERR
  except (AttributeError, OSError):  # a stream of a notebook or a test: no file behind it
    return False
