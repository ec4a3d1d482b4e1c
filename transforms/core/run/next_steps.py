"""Last lines of a command: its report, and the next command."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence

from beam_retrain.transforms.core.printing import is_stage, say
from beam_retrain.transforms.core.records.schema import INFO_FILE

STORE_FLAGS: list[str] = []
"""Of `s3://` in this command, but for secrets: what reads there next needs them."""


def say_next(*words: str, report: str = "") -> None:
  """Prints a report's path and a command; nothing for a stage."""
  if is_stage():
    return
  if report:
    say(f"report: {report}")
  if words:
    needed = STORE_FLAGS if any("s3://" in word for word in words) else []
    say(f"next: {shlex.join((program(), *words, *(flag for flag in needed if flag not in words)))}")


def program() -> str:
  """Returns what to type: a path if `PATH` lacks the program."""
  typed = sys.argv[0]
  found = shutil.which("beam-retrain")
  is_found = found and os.path.exists(typed) and os.path.samefile(found, typed)
  return "beam-retrain" if is_found or os.path.basename(typed) != "beam-retrain" else typed


def beside(output: str, name: str, exists: Callable[[str], bool] = os.path.exists) -> str:
  """Returns a new path beside an output: `name`, or `name_2`, ...

  An object store has no folders: there, one is taken that has an `info.json`.
  """
  folder = os.path.dirname(output.rstrip("/"))
  paths = (os.path.join(folder, name if number == 1 else f"{name}_{number}") for number in range(1, 1000))
  return next(path for path in paths if not (exists(path) or exists(os.path.join(path, INFO_FILE))))


def replace_flags(words: Sequence[str], flags: Mapping[str, str | None]) -> list[str]:
  """Returns a command line with other flags; None: without one."""
  kept: list[str] = []
  follows = False
  for word in words:
    name, is_joined, _ = word.partition("=")
    is_replaced = name.removeprefix("--") in flags and name.startswith("--")
    if not (is_replaced or follows):
      kept.append(word)
    follows = is_replaced and not is_joined
  return [*kept, *(f"--{name}={value}" for name, value in flags.items() if value is not None)]
