"""Flags, error messages and exit codes common to all commands.

Exit codes: 0 done; 1 a gate set by the user was missed; 2 wrong usage or a failed job; 3 more bad inputs than allowed.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import enum
import errno
import io
import logging
import math
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


class ExitCode(enum.IntEnum):
  """Exit code of a command."""

  DONE = 0
  GATE_MISSED = 1  # a gate that the user set
  FAILED = 2  # wrong usage, or the job failed
  TOO_MANY_BAD = 3  # more bad inputs than allowed


def exit_code_for_images(bad: int, images: int, max_bad_fraction: float) -> ExitCode:
  """Reports bad images of a command that runs no job; returns the exit code."""
  if bad <= max_bad_fraction * images:
    return ExitCode.DONE
  print(f"beam-retrain: {bad} of {images} images could not be used; see above.", file=sys.stderr)
  return ExitCode.TOO_MANY_BAD


class ArgumentParser(argparse.ArgumentParser):
  """Raises `InputError` instead of exiting; allows no abbreviated flags."""

  def __init__(self, *args: Any, **kwargs: Any) -> None:
    kwargs.setdefault("allow_abbrev", False)
    kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
    super().__init__(*args, **kwargs)

  def error(self, message: str) -> NoReturn:
    raise InputError(f"{self.prog}: {message}; see `{self.prog} --help`.")


def parse_flags(
  parser: argparse.ArgumentParser, argv: Sequence[str], flags: argparse.Namespace | None = None
) -> argparse.Namespace:
  """Parses the flags of a command without a job; may raise InputError."""
  known, complaint = flags_of(parser), "unknown flag"
  validate_spelling(parser, argv, known, complaint)
  namespace, unknown = parser.parse_known_args(argv, flags)
  if unknown:
    raise InputError(unknown_argument(parser, unknown[0], known, complaint))
  return namespace


def validate_spelling(
  parser: argparse.ArgumentParser, argv: Sequence[str], known: Sequence[str], complaint: str
) -> None:
  """Raises InputError for an unknown flag, before parsing.

  With `--inputt DIR`, argparse would report that `--input` is missing.
  """
  for argument in argv:
    if argument.startswith("--") and argument.split("=")[0] not in (*known, "--"):
      raise InputError(unknown_argument(parser, argument, known, complaint))


def unknown_argument(parser: argparse.ArgumentParser, argument: str, known: Sequence[str], complaint: str) -> str:
  """Returns the message for an unknown argument, with the nearest flag."""
  if not argument.startswith("-"):
    return f"{parser.prog}: {argument!r} is not expected here; see `{parser.prog} --help`."
  flag = argument.split("=")[0]
  nearest = difflib.get_close_matches(flag, known, n=1, cutoff=0.0)
  return f"{parser.prog}: {flag}: {complaint}; the nearest flag is {nearest[0]}."


def fraction(text: str) -> float:
  """Argparse type: a number 0..1."""
  value = float(text)
  if not 0 <= value <= 1:
    raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
  return value


def whole_number(low: float = -math.inf, high: float = math.inf) -> Callable[[str], int]:
  """Returns an argparse type: an integer from `low` to `high`."""

  def parse(text: str) -> int:
    try:
      value = int(text)
    except ValueError as error:
      raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error
    if not low <= value <= high:
      limits = f"at least {low}" if high == math.inf else f"between {low} and {high}"
      raise argparse.ArgumentTypeError(f"{text} is not {limits}")
    return value

  return parse


positive_int = whole_number(1)
seed_number = whole_number(0, (1 << 63) - 1)


def positive_number(text: str) -> float:
  """Argparse type: a finite number above 0."""
  try:
    value = float(text)
  except ValueError:
    value = 0.0
  if not 0 < value < math.inf:
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
  return value


def add_max_bad_fraction(parser: FlagGroup) -> None:
  parser.add_argument(
    "--max_bad_fraction",
    type=fraction,
    default=0.0,
    metavar="F",
    help="largest accepted fraction of bad inputs, 0..1; above it the exit code is 3, but everything else is written"
    " (default: 0)",
  )


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--max_pixels",
    type=positive_int,
    default=MAX_PIXELS,
    metavar="N",
    help="decode images of at most N pixels, height x width (default: %(default)d)",
  )


def add_decoding_flags(parser: argparse.ArgumentParser) -> None:
  """Adds `--max_pixels` and `--trunk_threads` (None: auto)."""
  add_max_pixels(parser)
  parser.add_argument(
    "--trunk_threads",
    type=positive_int,
    metavar="N",
    help="trunk threads per process (default: the machine's cores, or the container's limit, divided by its worker"
    " processes)",
  )


def run_command(run: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
  """Runs a command; prints one sentence on standard error if it fails."""
  # `lastResort` writes to `sys.stderr` as it is at the time, which `capture_output` replaces.
  logging.basicConfig(
    level=logging.WARNING, format="%(message)s", handlers=[logging.lastResort or logging.NullHandler()]
  )
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors="backslashreplace")  # file names may not be valid text
  try:
    with _interrupted_by_sigterm():
      code = run(argv)
    sys.stdout.flush()  # now rather than at exit, where a BrokenPipeError could not be caught
    return code
  except BrokenPipeError:
    # The reader has closed the pipe, as `| head` does: not an error. Discards what is still buffered.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  except (Exception, KeyboardInterrupt) as error:
    print(_explain(error), file=sys.stderr)
  return ExitCode.FAILED


def _explain(error: BaseException) -> str:
  match error:
    case InputError():  # those of the command line begin with the command
      return str(error) if str(error).startswith("beam-retrain ") else f"beam-retrain: {error}"
    case KeyboardInterrupt():
      return "beam-retrain: interrupted; run the same command again to resume."
    case PermissionError() | NotADirectoryError() | IsADirectoryError():
      return f"beam-retrain: {error.filename}: {error.strerror}: fix it, or give another path."
    case OSError(errno=errno.ENOSPC | errno.EROFS | errno.EDQUOT):
      place = error.filename or "the output"
      return f"beam-retrain: {place}: {error.strerror}: free some space, or write elsewhere."
  with tempfile.NamedTemporaryFile("w", prefix="beam-retrain-", suffix=".log", delete=False) as log:
    traceback.print_exception(error, file=log)
  return f"beam-retrain: the job failed: {error_line(error)} (see the traceback in {log.name})."


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
  """Makes SIGTERM end the block like Ctrl-C; a second kills it.

  So temporary folders are removed and the message is printed. Shells (`command &`) and many schedulers start background
  commands with SIGINT ignored: SIGTERM is then the only way to end them early.
  """
  # Only the main thread may set handlers; one that is set already, or ignores SIGTERM, is kept.
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


def error_line(error: BaseException) -> str:
  """Returns an exception's class and first line, at most 200 characters."""
  lines = [line for line in str(error).splitlines() if line.strip()] or [""]
  if "Traceback (most recent call last):" in lines:  # a worker's
    return lines[-1][:200]
  return f"{type(error).__name__}: {lines[0]}"[:200]
