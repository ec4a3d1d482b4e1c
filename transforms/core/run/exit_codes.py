"""Runs a command; returns its exit code, prints why it fails.

Exit codes: 0 done; 1 a gate set by the user was missed; 2 wrong usage or a failed job; 3 more bad inputs than allowed.
That of a finished Beam job is decided by `exit_code` in `pipelines/jobs/runner.py`.
"""

from __future__ import annotations

import contextlib
import enum
import io
import logging
import os
import platform
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import NoReturn

from beam_retrain.transforms.core.errors import FullDiskInputError, InputError, describe_os_error, is_full_disk
from beam_retrain.transforms.core.log_file import add_ending, logged
from beam_retrain.transforms.core.printing import PrintableFormatter, print
from beam_retrain.transforms.core.run.flags import accept_bad
from beam_retrain.transforms.core.run.run_info import versions, without_secrets


class ExitCode(enum.IntEnum):
  DONE = 0
  GATE_MISSED = 1  # a gate that the user set
  FAILED = 2  # wrong usage, or the job failed
  TOO_MANY_BAD = 3  # more bad inputs than allowed


def exit_code_for_images(bad: int, images: int, max_bad_fraction: float) -> ExitCode:
  """Reports bad images of a command without a job."""
  if not bad or bad / images <= max_bad_fraction:  # a product would be rounded: 0.58 * 50 is below 29
    return ExitCode.DONE
  accepting = f"to accept this, give {accept_bad(bad / images)}"
  many = "s" * (images != 1)
  print(f"beam-retrain: {bad} of {images} image{many} could not be used; see above; {accepting}.", file=sys.stderr)
  return ExitCode.TOO_MANY_BAD


def run_command(run: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
  """Runs a command; prints one sentence on standard error if it fails."""
  # `lastResort` writes to `sys.stderr` as it is at the time, which `capture_output` replaces.
  handler = logging.lastResort or logging.NullHandler()
  handler.setFormatter(PrintableFormatter())
  logging.basicConfig(level=logging.WARNING, handlers=[handler])
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors="backslashreplace")  # file names may not be valid text
  about = f"process {os.getpid()} on {platform.node()}: {', '.join(map(' '.join, versions().items()))}"
  with logged([shlex.join(["beam-retrain", *without_secrets(argv)]), about]):
    return _run(run, argv)


def _run(run: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
  try:
    with _interrupted_by_sigterm():
      code = run(argv)
    add_ending(int(code))
    sys.stdout.flush()  # now rather than at exit, where a BrokenPipeError could not be caught
    return code
  except BrokenPipeError:
    # The reader has closed the pipe, as `| head` does: not an error. Discards what is still buffered.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  except (Exception, KeyboardInterrupt) as error:
    print(_explain(error, argv), file=sys.stderr)
    add_ending(error)
  return ExitCode.FAILED


def _explain(error: BaseException, argv: Sequence[str] = ()) -> str:
  match error:
    case InputError():  # those of the command line begin with the command
      return str(error) if str(error).startswith("beam-retrain ") else f"beam-retrain: {error}"
    case KeyboardInterrupt():
      return "beam-retrain: interrupted; run the same command again to resume."
    case OSError() if sentence := describe_os_error(error):
      return f"beam-retrain: {sentence}"
    case FileNotFoundError() if "temporary directory" in str(error):  # of `tempfile`, which has tried to write there
      return "beam-retrain: no folder for temporary files can be written: free some space, or set TMPDIR to another."
    case _ if is_full_disk(error):
      return f"beam-retrain: {FullDiskInputError(_fullest(argv), error)}"
  failure = f"beam-retrain: the job failed: {error_line(error)}"
  try:
    with tempfile.NamedTemporaryFile("w", prefix="beam-retrain-", suffix=".log", delete=False) as log:
      traceback.print_exception(error, file=log)
  except OSError:
    return f"{failure}."
  return f"{failure} (see the traceback in {log.name})."


def _fullest(argv: Sequence[str]) -> str:
  """Returns the place with the least room where a command writes."""
  named = [argument.partition("=")[2] or argument for argument in argv]
  standard_output = os.path.realpath("/proc/self/fd/1")  # where Linux tells it, and it is a file
  places = [tempfile.gettempdir(), os.path.expanduser("~"), standard_output, *named]
  return min((place for place in places if os.path.exists(place)), key=lambda place: shutil.disk_usage(place).free)


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
