"""`beam-retrain retrain`: what `retrain.py` did, with its flags."""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import os
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from beam_retrain.pipelines.compat.retrain_options import PROG, check_flags, make_parser, work_dir
from beam_retrain.pipelines.compat.retrain_stages import Stages, train_request
from beam_retrain.pipelines.jobs.runner import run_command
from beam_retrain.pipelines.options.request import parse_job
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.log_file import keep_in
from beam_retrain.transforms.core.metrics.predictions import Row, read_predictions
from beam_retrain.transforms.core.printing import print, say
from beam_retrain.transforms.core.records.csv_format import unescape_cell
from beam_retrain.transforms.core.records.schema import (
  CONFIG_FILE,
  FROZEN_GRAPH_FILE,
  RETRAINED_LABELS_FILE,
  SAVED_MODEL_FOLDER,
)
from beam_retrain.transforms.core.run.config import to_toml
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from beam_retrain.transforms.core.run.flags import expand
from beam_retrain.transforms.core.run.next_steps import say_next
from beam_retrain.transforms.core.run.run_info import without_secrets
from beam_retrain.transforms.core.system import local_files, locks
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.folders import ClassFolder, count_files, find_class_folders, list_class_folders

_FEW = 20
_MANY = 2**27 - 1  # retrain.py's MAX_NUM_IMAGES_PER_CLASS
_SAYS_WARNINGS, _SAYS_ALL = ("DEBUG", "INFO", "WARN"), ("DEBUG", "INFO")


def run(argv: Sequence[str]) -> int:
  """Runs the stages; returns the first exit code that is not 0."""
  parser = make_parser()
  flags, _ = parse_job(parser, argv)
  beam_options = parser.parse_known_args(argv)[1]
  check_flags(flags)
  # Its input does not exist yet; everything else is checked before any work.
  train_request(flags, ".", ".").validate()
  folders = find_folders(flags.image_dir)
  check_outputs(flags, folders)
  if flags.logging_verbosity in _SAYS_WARNINGS:
    for warning in warnings_of(flags, folders):
      say(f"WARNING: {warning}", file=sys.stderr)
  with hold_outputs(flags), contextlib.ExitStack() as quiet:
    if flags.logging_verbosity not in _SAYS_ALL:
      quiet.enter_context(contextlib.redirect_stdout(quiet.enter_context(open(os.devnull, "w"))))
    typed = list(without_secrets(expand(parser, argv)))
    stages = Stages(flags, folders, beam_options, f"{PROG} {shlex.join(typed)}")
    check_saved_model(flags, stages)
    files.make_folder(work_dir(flags))
    keep_in(work_dir(flags), files)
    files.write_text(os.path.join(work_dir(flags), CONFIG_FILE), to_toml("retrain", typed))
    stages.bottlenecks()
    stages.train()
    stages.evaluate()
    if stages.chain.code == ExitCode.DONE:
      put_outputs(flags)
      stages.remember_model(flags.saved_model_dir)
      _report(flags, stages.predictions)
  return stages.chain.code


def find_folders(image_dir: str) -> list[ClassFolder]:
  """Returns the class folders with images; raises InputError if unsuitable."""
  if not os.path.isdir(image_dir):
    raise InputError(f"--image_dir {image_dir} is not a folder: give a folder of folders of images, one per label.")
  return find_class_folders(image_dir, retrain_names=True)


def warnings_of(flags: argparse.Namespace, folders: Sequence[ClassFolder]) -> Iterator[str]:
  """Yields `retrain.py`'s warnings, and one for `--model_dir`."""
  if flags.model_dir is not None:
    yield (
      f"--model_dir {flags.model_dir} does nothing, as in retrain.py, which ignored it: --tfhub_module names the trunk."
    )
  used = {folder.prefix for folder in folders}
  for folder in list_class_folders(flags.image_dir):
    if folder.prefix not in used:
      yield f"Folder {folder.prefix} has no images named .jpg, .jpeg or .png: it is left out."
  for folder in folders:
    images = count_files(folder).images
    if images < _FEW:
      yield f"Folder {folder.prefix} has less than {_FEW} images, which may cause issues."
    elif images > _MANY:
      yield f"Folder {folder.prefix} has more than {_MANY} images."


def check_outputs(flags: argparse.Namespace, folders: Sequence[ClassFolder]) -> None:
  """Checks that all outputs can be written, and makes their folders.

  Raises InputError, also if two have the same path, or one is among the images or the text bottlenecks.
  """
  seen: dict[str, str] = {}
  for flag, path in _targets(flags).items():
    if path in seen:
      raise InputError(f"{PROG}: --{seen[path]} and --{flag} are both {path}: give two paths.")
    seen[path] = flag
  if local_files.overlap(flags.image_dir, work := os.path.realpath(work_dir(flags))):
    raise InputError(
      f"{PROG}: the stages' folder {work} overlaps with --image_dir {flags.image_dir}: give another --work_dir."
    )
  for flag in ("output_graph", "output_labels"):
    path = getattr(flags, flag)
    if os.path.isdir(path) or path.endswith("/"):
      raise InputError(f"{PROG}: --{flag} {path} is a folder: give a file in it.")
    if os.path.exists(path) and not os.access(path, os.W_OK):
      raise InputError(f"{PROG}: --{flag} {path} cannot be written: remove it, or give another path.")
  if flags.saved_model_dir and os.path.lexists(flags.saved_model_dir) and not os.path.isdir(flags.saved_model_dir):
    raise InputError(f"{PROG}: --saved_model_dir {flags.saved_model_dir} is a file: give a new or empty folder.")
  classes = [os.path.join(flags.bottleneck_dir, folder.prefix) for folder in folders]
  for flag, path in _targets(flags).items():
    for name, read in (("image_dir", flags.image_dir), *(("bottleneck_dir", folder) for folder in classes)):
      if local_files.is_within(path, read):
        raise InputError(f"{PROG}: --{flag} {path} is in {read}, which --{name} reads: give another --{flag}.")
  for flag, path in _targets(flags).items():
    with _writing(flag, path):
      os.makedirs(path if flag == "work_dir" else os.path.dirname(path), exist_ok=True)


def check_saved_model(flags: argparse.Namespace, stages: Stages) -> None:
  """Checks that `--saved_model_dir` is empty, or this request's own."""
  folder = flags.saved_model_dir
  if folder and os.path.isdir(folder) and os.listdir(folder):
    trained = os.path.join(work_dir(flags), "train", SAVED_MODEL_FOLDER)
    if not (stages.put_model(folder) or (stages.is_trained and _hold_the_same(folder, trained))):
      why = "is not empty, and not as this command left it: empty it, or give a new folder"
      raise InputError(f"{PROG}: --saved_model_dir {folder} {why}.")


@contextlib.contextmanager
def hold_outputs(flags: argparse.Namespace) -> Iterator[None]:
  """Locks the outputs; raises InputError if another run writes to one."""
  with contextlib.ExitStack() as held:
    # In a fixed order: of two runs that begin at once, one gets all locks.
    for path, flag in sorted((path, flag) for flag, path in _targets(flags).items()):
      folder, name = os.path.split(path)
      lock = os.path.join(path, ".lock") if flag == "work_dir" else os.path.join(folder, f".{name}.lock")
      busy, remedy = f"{PROG}: another run is writing to {path}", f"wait until it ends, or give another --{flag}"
      with _writing(flag, path):
        held.enter_context(locks.hold_alone(lock, PROG, busy, remedy))
    yield


def put_outputs(flags: argparse.Namespace) -> None:
  """Copies graph, labels and SavedModel to their places, whole and synced."""
  local_files.sync(work_dir(flags))  # what a later run knows the SavedModel by
  trained = os.path.join(work_dir(flags), "train")
  for name, path in ((FROZEN_GRAPH_FILE, flags.output_graph), (RETRAINED_LABELS_FILE, flags.output_labels)):
    with open(os.path.join(trained, name), "rb") as source, files.write_atomically(path) as target:
      shutil.copyfileobj(source, target)
  if flags.saved_model_dir:
    folder = os.path.realpath(flags.saved_model_dir)  # a link to an empty folder cannot be replaced
    if not _hold_the_same(folder, os.path.join(trained, SAVED_MODEL_FOLDER)):
      with local_files.atomic_folder(folder) as temporary:
        shutil.copytree(os.path.join(trained, SAVED_MODEL_FOLDER), temporary)
        local_files.sync(temporary)
    local_files.sync(os.path.dirname(folder))
  for path in (flags.output_graph, flags.output_labels):
    local_files.sync(os.path.dirname(os.path.abspath(path)))


def _hold_the_same(folder: str, other: str) -> bool:
  names, others = (sorted(os.path.relpath(path, root) for path in files.walk(root)) for root in (folder, other))
  return names == others and all(
    filecmp.cmp(os.path.join(folder, name), os.path.join(other, name), shallow=False) for name in names
  )


def _targets(flags: argparse.Namespace) -> dict[str, str]:
  names = ["output_graph", "output_labels", "summaries_dir", "checkpoint_path"]
  if flags.saved_model_dir:
    names.append("saved_model_dir")
  if flags.intermediate_store_frequency:
    names.append("intermediate_output_graphs_dir")
  return {"work_dir": work_dir(flags), **{name: os.path.abspath(getattr(flags, name)) for name in names}}


@contextlib.contextmanager
def _writing(flag: str, path: str) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise InputError(
      f"{PROG}: --{flag} {path} cannot be written: {error.filename}: {error.strerror}; give another path."
    ) from error


def _report(flags: argparse.Namespace, predictions: str) -> None:
  print(
    f"the graph is in {flags.output_graph}, its labels in {flags.output_labels}, the rest in"
    f" {files.shown(work_dir(flags))}"
  )
  tested = next(_rows(predictions), None)
  if tested:  # the last lines are retrain.py's
    model, image = os.path.join(work_dir(flags), "train"), os.path.join(flags.image_dir, unescape_cell(tested.key))
    say_next("predict", "--model", files.shown(model), files.shown(image))
  accuracy, total = final_accuracy(predictions, flags.test_batch_size, flags.seed)
  print(f"Final test accuracy = {100 * accuracy:.1f}% (N={total})")
  if flags.print_misclassified_test_images:
    print("=== MISCLASSIFIED TEST IMAGES ===")
    for row, times in draw_tested(predictions, flags.test_batch_size, flags.seed):
      if not row.right:
        print(*[f"{os.path.join(flags.image_dir, row.key):>70s}  {row.predicted}"] * times, sep="\n")


def draw_tested(path: str, how_many: int, seed: int) -> Iterator[tuple[Row, int]]:
  """Yields images of a `predictions.csv`, and how often each was drawn.

  Each of `how_many` draws is, as in `retrain.py`, of a label at random and then of one of its images, with replacement;
  if negative, each image comes once. Raises InputError if the file is damaged.
  """
  drawn = _draw(path, how_many, seed) if how_many >= 0 else None
  seen: Counter[str] = Counter()
  for row in _rows(path):
    times = 1 if drawn is None else drawn[row.actual, seen[row.actual]]
    seen[row.actual] += 1
    if times:
      yield Row(*map(unescape_cell, row)), times


def final_accuracy(path: str, how_many: int, seed: int) -> tuple[float, int]:
  """Returns (accuracy 0..1, number of images); arguments as of `draw_tested`."""
  right = total = 0
  for row, times in draw_tested(path, how_many, seed):
    total += times
    right += times * row.right
  return right / total, total


def _draw(path: str, how_many: int, seed: int) -> Counter[tuple[str, int]]:
  """Returns (label, position among its images) -> number of draws."""
  counts = Counter(row.actual for row in _rows(path))
  labels = sorted(counts)
  rng = np.random.default_rng([seed, how_many])
  drawn = rng.integers(len(labels), size=how_many)
  positions = rng.integers([counts[labels[index]] for index in drawn])
  return Counter((labels[index], int(position)) for index, position in zip(drawn, positions, strict=True))


def _rows(path: str) -> Iterator[Row]:
  with open(path, newline="", encoding="utf-8") as file:
    yield from read_predictions(file, path)


if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
