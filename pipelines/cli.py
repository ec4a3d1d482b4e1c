"""`beam-retrain COMMAND`: parses a command's flags, loads and runs it."""

from __future__ import annotations

import argparse
import difflib
import importlib.metadata
import pkgutil
import sys
from collections.abc import Sequence
from typing import Any

from beam_retrain.transforms.core.errors import InputError, UnknownFlagError
from beam_retrain.transforms.core.printing import print
from beam_retrain.transforms.core.run.argparse_internals import actions_of
from beam_retrain.transforms.core.run.argparse_internals import flags_of as long_flags_of
from beam_retrain.transforms.core.run.exit_codes import run_command
from beam_retrain.transforms.core.system.imports import gc_paused, leave_out_of_beam

# Command -> (its flags below `pipelines`: `make_parser` and `run(argv) -> exit code`; help).
COMMANDS = {
  "run": ("requests.run:RunRequest", "the whole chain: data, images, bottlenecks, head, evaluation"),
  "convert": (
    "requests.convert:ConvertRequest",
    "images of any format, or MNIST-style IDX files, to JPG or PNG folders and to records",
  ),
  "bottlenecks": ("requests.bottlenecks:BottlenecksRequest", "images through the frozen trunk to one vector each"),
  "plan": (
    "plan.request:PlanRequest",
    "estimate of the time, memory and disk of bottlenecks, measured on a few images",
  ),
  "train": ("train", "a softmax head on the bottlenecks, exported with all it needs"),
  "evaluate": ("requests.evaluation:EvaluateRequest", "right and wrong, per image and per label"),
  "reevaluate": (
    "requests.evaluation:ReevaluateRequest",
    "nightly evaluation: what got worse, per image; compares a candidate model",
  ),
  "predict": ("requests.predict:PredictRequest", "label and confidence of single images"),
  "serve": ("requests.serve:ServeRequest", "the model over HTTP, with pages to try it and to correct labels"),
  "export": ("requests.export:ExportRequest", "bottlenecks, predictions and figures as Parquet, npz or CSV"),
  "doctor": ("requests.doctor:DoctorRequest", "checks of an engine, its workers and this machine before a long job"),
  "verify": (
    "requests.verify:VerifyRequest",
    "checks that all ways to an image's scores agree, or that two output folders are equal",
  ),
  "cache": ("options.cache:CacheRequest", "shows and clears the prepared trunks of this machine"),
  "retrain": ("compat.retrain_options", "what retrain.py did, with its flags: from images to a graph and its labels"),
  "label_image": ("compat.label_image", "what label_imageV3.py did, with any frozen graph, in batches"),
}

_COMPLETION, _SHELLS = "--print_completion", ("bash", "zsh", "fish")
_USAGE = """\
usage: beam-retrain COMMAND [flags]

Image transfer learning on Apache Beam: labelled images go through a frozen Inception v3 in a data-parallel job, a head
is trained on the resulting vectors, and a second Beam job evaluates it, per image and per label.

{commands}

  beam-retrain run --data digits --trunk bundled --output output/digits      the quick start: offline, half a minute
  beam-retrain COMMAND --help                                                 what a command reads and writes, its flags
  beam-retrain --print_completion bash|zsh|fish                               a script that completes commands and flags

exit codes: 0 done, 1 a gate that you set was missed, 2 wrong usage or the job failed, 3 more bad inputs than allowed"""


def main(argv: Sequence[str] | None = None) -> int:
  if argv is None:
    leave_out_of_beam()
  return run_command(dispatch, sys.argv[1:] if argv is None else argv)


def dispatch(argv: Sequence[str]) -> int:
  """Runs the command named by `argv[0]`.

  Raises:
    InputError: there is no such command; names a near one.
  """
  if argv[:1] == ["help"] and argv[1:]:  # as of git
    argv = [argv[1], "--help"]
  if not argv or argv[0] in ("-h", "--help", "help"):
    commands = "\n".join(f"  {name:<12} {what}" for name, (_, what) in COMMANDS.items())
    print(*_USAGE.format(commands=commands).split("\n"), sep="\n")
    return 0 if argv else 2
  if argv[0] == "--version":
    print(f"beam-retrain {importlib.metadata.version('beam-retrain')}")
    return 0
  if argv[0].startswith(_COMPLETION):
    sys.stdout.write(complete_in(argv[0].partition("=")[2] or " ".join(argv[1:])))
    return 0
  command, *rest = argv
  if command.startswith("-"):
    raise InputError(f"{command} comes after the command, as in `beam-retrain run {' '.join(argv)}`.")
  if command not in COMMANDS:
    near = difflib.get_close_matches(command, COMMANDS, n=1)
    remedy = f"the nearest is `beam-retrain {near[0]}`" if near else "`beam-retrain --help` lists them"
    raise InputError(f"there is no command {command!r}; {remedy}.")
  with gc_paused():
    flags = flags_of(command)
  try:
    code: int = flags.run(rest)
  except UnknownFlagError as error:
    takers = [f"`{name}`" for name in COMMANDS if error.flag in long_flags_of(flags_of(name).make_parser())]
    if not takers:
      raise
    raise InputError(f"{error.about}; {', '.join(takers)} {'has' if len(takers) == 1 else 'have'} it.") from error
  return code


def flags_of(command: str) -> Any:
  """Imports what parses a command's flags: a class or a module."""
  return pkgutil.resolve_name(f"beam_retrain.pipelines.{COMMANDS[command][0]}")


def complete_in(shell: str) -> str:
  """Returns the script that completes commands and flags in a shell."""
  import shtab

  if shell not in _SHELLS:
    raise InputError(f"beam-retrain {_COMPLETION} needs a shell: give {', '.join(_SHELLS[:-1])} or {_SHELLS[-1]}.")
  parser = argparse.ArgumentParser(prog="beam-retrain")
  commands = parser.add_subparsers()
  for command, (_, what) in COMMANDS.items():
    flags = flags_of(command).make_parser()
    for action in actions_of(flags):
      if action.nargs != 0 and not action.choices:  # else a shell that has the script offers no files at all
        action.complete = shtab.FILE  # type: ignore[attr-defined]
    commands.add_parser(command, parents=[flags], add_help=False, help=what)
  return shtab.complete(parser, shell)


if __name__ == "__main__":
  sys.exit(main())
