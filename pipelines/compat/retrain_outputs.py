"""The outputs of `retrain`: checked and locked first, written whole last."""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import os
import shutil
from collections.abc import Iterator

from beam_retrain.pipelines.compat.retrain_options import PROG, work_dir
from beam_retrain.pipelines.jobs import locks
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import FROZEN_GRAPH_FILE, RETRAINED_LABELS_FILE
from beam_retrain.transforms.core.system import local_files
from beam_retrain.transforms.io import files

_GRAPH, _LABELS, _SAVED_MODEL = FROZEN_GRAPH_FILE, RETRAINED_LABELS_FILE, "saved_model"


def check_outputs(flags: argparse.Namespace) -> None:
  """Checks that all outputs can be written, and makes their folders.

  Raises:
    InputError: one cannot be written, two have the same path, or the stages would write into the images' folder.
  """
  seen: dict[str, str] = {}
  for flag, path in _targets(flags).items():
    if path in seen:
      raise InputError(f"{PROG}: --{seen[path]} and --{flag} are both {path}: give two paths.")
    seen[path] = flag
  images, work = os.path.realpath(flags.image_dir), os.path.realpath(work_dir(flags))
  if os.path.commonpath([images, work]) in (images, work):
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
  for flag, path in _targets(flags).items():
    with _writing(flag, path):
      os.makedirs(path if flag == "work_dir" else os.path.dirname(path), exist_ok=True)


def check_saved_model(flags: argparse.Namespace, is_kept: bool) -> None:
  """Checks that `--saved_model_dir` can be written.

  Args:
    is_kept: whether an earlier run's model will be kept.
  """
  folder = flags.saved_model_dir
  if folder and os.path.isdir(folder) and os.listdir(folder):
    trained = os.path.join(work_dir(flags), "train", _SAVED_MODEL)
    if not (is_kept and _hold_the_same(folder, trained)):
      raise InputError(f"{PROG}: --saved_model_dir {folder} is not empty: give a new or empty folder.")


@contextlib.contextmanager
def hold_outputs(flags: argparse.Namespace) -> Iterator[None]:
  """Locks the outputs against other runs.

  Raises:
    InputError: another run writes to one, or a lock file cannot be written.
  """
  with contextlib.ExitStack() as held:
    # In a fixed order: of two runs that begin at once, one gets all locks.
    for path, flag in sorted((path, flag) for flag, path in _targets(flags).items()):
      folder, name = os.path.split(path)
      lock = os.path.join(path, ".lock") if flag == "work_dir" else os.path.join(folder, f".{name}.lock")
      busy = f"{PROG}: another run is writing to {path}: wait until it ends, or give another --{flag}."
      with _writing(flag, path):
        held.enter_context(locks.hold_alone(lock, busy))
    yield


def put_outputs(flags: argparse.Namespace) -> None:
  """Copies graph, labels and SavedModel to their places, each whole."""
  trained = os.path.join(work_dir(flags), "train")
  for name, path in ((_GRAPH, flags.output_graph), (_LABELS, flags.output_labels)):
    with open(os.path.join(trained, name), "rb") as source, files.write_atomically(path) as target:
      shutil.copyfileobj(source, target)
  if flags.saved_model_dir:
    folder = os.path.realpath(flags.saved_model_dir)  # a link to an empty folder cannot be replaced
    if not (os.path.isdir(folder) and os.listdir(folder)):
      with local_files.atomic_folder(folder) as temporary:
        shutil.copytree(os.path.join(trained, _SAVED_MODEL), temporary)


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
