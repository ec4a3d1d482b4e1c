"""`beam-retrain COMMAND`: imports and runs the module of a command."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import Any

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.cli import run_command
from beam_retrain.transforms.core.system.imports import gc_paused

# Command -> (module with a `run(argv) -> exit code`, help).
COMMANDS = {
  "run": ("beam_retrain.pipelines.run", "the whole chain: data, images, bottlenecks, head, evaluation"),
  "convert": ("beam_retrain.pipelines.convert", "MNIST-style IDX files to a class-folder tree and to records"),
  "bottlenecks": ("beam_retrain.pipelines.bottlenecks", "images through the frozen trunk to one vector each"),
  "plan": (
    "beam_retrain.pipelines.plan.command",
    "estimate of the time, memory and disk of bottlenecks, measured on a few images",
  ),
  "train": ("beam_retrain.pipelines.train", "a softmax head on the bottlenecks, exported with all it needs"),
  "evaluate": ("beam_retrain.pipelines.evaluate", "right and wrong, per image and per label"),
  "reevaluate": (
    "beam_retrain.pipelines.reevaluate.command",
    "nightly evaluation: what got worse, image by image; compares a candidate model",
  ),
  "predict": ("beam_retrain.pipelines.predict", "label and confidence of single images"),
  "doctor": (
    "beam_retrain.pipelines.doctor.command",
    "checks of an engine, its workers and this machine before a long job",
  ),
  "verify": (
    "beam_retrain.pipelines.verify",
    "checks that all ways to an image's scores agree, or that two output folders are equal",
  ),
  "retrain": (
    "beam_retrain.pipelines.compat.retrain",
    "what retrain.py did, with its flags: from images to a graph and its labels",
  ),
  "label_image": (
    "beam_retrain.pipelines.compat.label_image",
    "what label_imageV3.py did, with any frozen graph, in batches",
  ),
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
    InputError: there is no such command; names the nearest.
  """
  if not argv or argv[0] in ("-h", "--help", "help"):
    print(usage())
    return 0 if argv else 2
  if argv[0] == "--version":
    print(f"beam-retrain {importlib.metadata.version('beam-retrain')}")
    return 0
  command, *rest = argv
  if command not in COMMANDS:
    nearest = difflib.get_close_matches(command, COMMANDS, n=1, cutoff=0.0)[0]
    raise InputError(f"there is no command {command!r}; the nearest is `beam-retrain {nearest}`.")
  code: int = _module(command).run(rest)
  return code


def _module(command: str) -> Any:
  name = COMMANDS[command][0]
  if name not in sys.modules:
    with gc_paused():
      importlib.import_module(name)
  return sys.modules[name]


def usage() -> str:
  return _USAGE.format(commands="\n".join(f"  {name:<12} {what}" for name, (_, what) in COMMANDS.items()))


if __name__ == "__main__":
  sys.exit(main())
