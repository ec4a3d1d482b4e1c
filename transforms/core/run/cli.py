"""What every command does alike, whether it runs a Beam job or not: how flags are refused, and how a fault is told.

Exit codes: 0 done; 1 a gate that the user set was missed; 2 wrong usage, or the job failed; 3 more bad inputs than
allowed.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import errno
import io
import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.quarantine import MAX_PIXELS
from beam_retrain.transforms.core.run.argparse_internals import FlagGroup, flags_of

DONE, GATE_MISSED, FAILED, TOO_MANY_BAD = 0, 1, 2, 3
_NO_ROOM = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)


class ArgumentParser(argparse.ArgumentParser):
  """Takes no abbreviations, and raises `InputError` instead of printing its usage and leaving."""

  def __init__(self, *args: Any, **kwargs: Any) -> None:
    kwargs.setdefault("allow_abbrev", False)
    kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
    super().__init__(*args, **kwargs)

  def error(self, message: str) -> NoReturn:
    raise InputError(f"{self.prog}: {message}; `{self.prog} --help` shows what there is.")


def parse_flags(
  parser: argparse.ArgumentParser, argv: Sequence[str], flags: argparse.Namespace | None = None
) -> argparse.Namespace:
  """Parses the flags of a command that runs no Beam job, into `flags` where that is given.

  Raises:
    InputError: an unknown flag; names the nearest known one.
  """
  known, complaint = flags_of(parser), "this command does not know it"
  validate_spelling(parser, argv, known, complaint)
  namespace, unknown = parser.parse_known_args(argv, flags)
  if unknown:
    raise InputError(unknown_argument(parser, unknown[0], known, complaint))
  return namespace


def validate_spelling(
  parser: argparse.ArgumentParser, argv: Sequence[str], known: Sequence[str], complaint: str
) -> None:
  """Looks for unknown flags before anything is parsed.

  Of `--inputt DIR` the misspelt flag is the news, not that `--input` is missing.

  Raises:
    InputError: an unknown flag; names the nearest of the `known` ones.
  """
  for argument in argv:
    if argument.startswith("--") and argument.split("=")[0] not in (*known, "--"):
      raise InputError(unknown_argument(parser, argument, known, complaint))


def unknown_argument(parser: argparse.ArgumentParser, argument: str, known: Sequence[str], complaint: str) -> str:
  """Returns the sentence for an argument that nobody knows, with the nearest of the `known` flags."""
  if not argument.startswith("-"):
    return f"{parser.prog}: {argument!r} is not expected here; `{parser.prog} --help` shows what there is."
  flag = argument.split("=")[0]
  nearest = difflib.get_close_matches(flag, known, n=1, cutoff=0.0)
  return f"{parser.prog}: {flag}: {complaint}; the nearest flag is {nearest[0]}."


def fraction(text: str) -> float:
  """Argparse type: a number 0..1."""
  value = float(text)
  if not 0 <= value <= 1:
    raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
  return value


def positive_int(text: str) -> int:
  """Argparse type: a whole number, at least 1."""
  try:
    value = int(text)
  except ValueError as error:
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error
  if value < 1:
    raise argparse.ArgumentTypeError(f"{text} is not at least 1")
  return value


def add_max_bad_fraction(parser: FlagGroup) -> None:
  parser.add_argument(
    "--max_bad_fraction",
    type=fraction,
    default=0.0,
    metavar="F",
    help="accept up to this part of the inputs as bad, 0..1 (default 0: any bad input makes the exit code 3, after"
    " everything else has been written)",
  )


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--max_pixels",
    type=positive_int,
    default=MAX_PIXELS,
    metavar="N",
    help="largest height x width that is decoded (default: %(default)d)",
  )


def add_decoding_flags(parser: argparse.ArgumentParser) -> None:
  """Adds `max_pixels`, and `trunk_threads` (None: auto)."""
  add_max_pixels(parser)
  parser.add_argument(
    "--trunk_threads",
    type=positive_int,
    metavar="N",
    help="threads of the trunk in each process (default: the cores that it may use, within a container's limits, shared"
    " out to the processes on a machine)",
  )


def run_command(run: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
  """Runs a command: one sentence on standard error for whatever goes wrong, never a traceback.

  The traceback of an unexpected fault goes to a file that the sentence names.
  """
  logging.basicConfig(level=logging.WARNING, format="%(message)s")
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors="backslashreplace")  # a file name may be no text
  try:
    with _interrupted_by_sigterm():
      code = run(argv)
    sys.stdout.flush()  # here, and not when Python ends, where nobody could catch that the reader has gone
    return code
  except InputError as error:
    # A fault of the command line names its command itself.
    print(error if str(error).startswith("beam-retrain ") else f"beam-retrain: {error}", file=sys.stderr)
  except BrokenPipeError:
    # Whoever read our output has gone, as `| head` does: no fault to tell. What is still buffered goes nowhere.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  except (PermissionError, NotADirectoryError, IsADirectoryError) as error:
    print(f"beam-retrain: {error.filename}: {error.strerror}: give another path, or change it.", file=sys.stderr)
  except OSError as error:
    if error.errno not in _NO_ROOM:
      return _failed(error)
    print(
      f"beam-retrain: {error.filename or 'the output'}: {error.strerror}: make room, or write elsewhere.",
      file=sys.stderr,
    )
  except KeyboardInterrupt:
    print("beam-retrain: interrupted; the same command goes on where it was.", file=sys.stderr)
  except Exception as error:
    return _failed(error)
  return FAILED


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
  """Has SIGTERM end the block as Ctrl-C does: temporary folders are removed, one sentence is printed.

  A shell starts a background command (`command &`), and so do many schedulers, with SIGINT ignored: Ctrl-C is then
  meant for others, and SIGTERM is the only way to end the command early. A second SIGTERM ends it at once.
  """
  # Only the main thread may; and whoever has seen to SIGTERM, or ignores it, is left alone.
  if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
    signal.signal(signal.SIGTERM, _interrupt)
  try:
    yield
  finally:
    if signal.getsignal(signal.SIGTERM) is _interrupt:
      signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
  signal.signal(number, signal.SIG_DFL)
  raise KeyboardInterrupt


def _failed(error: Exception) -> int:
  with tempfile.NamedTemporaryFile("w", prefix="beam-retrain-", suffix=".log", delete=False) as log:
    traceback.print_exception(error, file=log)
  print(f"beam-retrain: the job failed: {error_line(error)} (the whole traceback is in {log.name}).", file=sys.stderr)
  return FAILED


def error_line(error: Exception) -> str:
  """Returns what an exception says; where it holds a worker's traceback, that one's last line: what the worker said."""
  lines = [line for line in str(error).splitlines() if line.strip()] or [""]
  if "Traceback (most recent call last):" in lines:
    return lines[-1][:200]
  return f"{type(error).__name__}: {lines[0]}"[:200]
