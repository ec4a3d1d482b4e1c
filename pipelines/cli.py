"""`beam-retrain COMMAND`: imports and runs the module of a command."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import sys
from collections.abc import Sequence

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.printing import print
from beam_retrain.transforms.core.run.exit_codes import run_command
from beam_retrain.transforms.core.system.imports import gc_paused

# Command -> (module below `pipelines` with a `run(argv) -> exit code`, help).
COMMANDS = {
  "run": ("run", "the whole chain: data, images, bottlenecks, head, evaluation"),
  "convert": ("convert", "MNIST-style IDX files to a class-folder tree and to records"),
  "bottlenecks": ("bottlenecks", "images through the frozen trunk to one vector each"),
  "plan": ("plan.command", "estimate of the time, memory and disk of bottlenecks, measured on a few images"),
  "train": ("train", "a softmax head on the bottlenecks, exported with all it needs"),
  "evaluate": ("evaluate", "right and wrong, per image and per label"),
  "reevaluate": (
    "reevaluate.command",
    "nightly evaluation: what got worse, per image; compares a candidate model",
  ),
  "predict": ("predict", "label and confidence of single images"),
  "export": ("export.command", "bottlenecks, predictions and figures as Parquet, npz or CSV"),
  "doctor": ("doctor.command", "checks of an engine, its workers and this machine before a long job"),
  "verify": ("verify", "checks that all ways to an image's scores agree, or that two output folders are equal"),
  "retrain": ("compat.retrain", "what retrain.py did, with its flags: from images to a graph and its labels"),
  "label_image": ("compat.label_image", "what label_imageV3.py did, with any frozen graph, in batches"),
}

_USAGE = """\
usage: beam-retrain COMMAND [flags]

Image transfer learning on Apache Beam: labelled images go through a frozen Inception v3 in a data-parallel job, a head
is trained on the resulting vectors, and a second Beam job evaluates it, per image and per label.

{commands}

  beam-retrain run --data digits --trunk bundled --output output/digits      the quick start: offline, half a minute
  beam-retrain COMMAND --help                                                 what a command reads and writes, its flags

exit codes: 0 done, 1 a gate that you set was missed, 2 wrong usage or the job failed, 3 more bad inputs than allowed"""


def main(argv: Sequence[str] | None = None) -> int:
  return run_command(dispatch, sys.argv[1:] if argv is None else argv)


def dispatch(argv: Sequence[str]) -> int:
  """Runs the command named by `argv[0]`.

  Raises:
    InputError: there is no such command; names a near one.
  """
  if not argv or argv[0] in ("-h", "--help", "help"):
    commands = "\n".join(f"  {name:<12} {what}" for name, (_, what) in COMMANDS.items())
    print(*_USAGE.format(commands=commands).split("\n"), sep="\n")
    return 0 if argv else 2
  if argv[0] == "--version":
    print(f"beam-retrain {importlib.metadata.version('beam-retrain')}")
    return 0
  command, *rest = argv
  if command not in COMMANDS:
    near = difflib.get_close_matches(command, COMMANDS, n=1)
    remedy = f"the nearest is `beam-retrain {near[0]}`" if near else "`beam-retrain --help` lists them"
    raise InputError(f"there is no command {command!r}; {remedy}.")
  with gc_paused():
    module = importlib.import_module(f"beam_retrain.pipelines.{COMMANDS[command][0]}")
  code: int = module.run(rest)
  return code


if __name__ == "__main__":
  sys.exit(main())
