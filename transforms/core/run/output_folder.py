"""Output folders of commands: claimed, resumed, completed, read.

`info.json` is written first and names the owner; `COMPLETED` is written last. A killed run of the same request is
resumed; any other request starts empty. Files that a command does not own are never deleted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Protocol

from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.records.schema import (
  COMPLETED_FILE,
  INFO_FILE,
  LABELS_FILE,
  QUARANTINE_FILE,
  REPORTS_FOLDER,
  STATS_FILE,
)
from beam_retrain.transforms.core.run.run_info import RunInfo
from beam_retrain.transforms.core.system import local_files

# The marker is deleted first, so that no reader takes the folder for finished.
_ALWAYS_OWNED = (COMPLETED_FILE, STATS_FILE, QUARANTINE_FILE, LABELS_FILE, REPORTS_FOLDER)


class Files(Protocol):
  """A file system: `local_files` or `transforms.io.files`."""

  def exists(self, path: str) -> bool: ...
  def is_empty(self, folder: str) -> bool: ...
  def make_folder(self, folder: str) -> None: ...
  def find_in(self, folder: str, pattern: str) -> list[str]: ...
  def read_bytes(self, path: str) -> bytes: ...
  def write_text(self, path: str, text: str) -> None: ...
  def delete(self, paths: Iterable[str]) -> None: ...


def find_info(folder: str, files: Files = local_files) -> RunInfo | None:
  """Returns a folder's `info.json`, or None if beam-retrain did not write it."""
  path = os.path.join(folder, INFO_FILE)
  return RunInfo.from_json(files.read_bytes(path)) if files.exists(path) else None


def read_info(folder: str, stage: str, files: Files = local_files) -> RunInfo:
  """Returns the `info.json` that a finished stage wrote as its `--output`.

  Raises InputError if the folder is missing, unfinished or of another stage.
  """
  if not files.exists(os.path.join(folder, INFO_FILE)):
    raise InputError(f"{folder} has no {INFO_FILE}: give the folder that `beam-retrain {stage}` wrote.")
  info = find_info(folder, files)
  if info is None or info.stage != stage:
    writer = f"`beam-retrain {info.stage}`" if info else "something other than beam-retrain"
    raise InputError(f"{folder} was written by {writer}: give the folder that `beam-retrain {stage}` wrote.")
  if not is_completed(folder, files):
    raise InputError(f"{folder} is not finished: run `beam-retrain {stage}` into it again to resume.")
  return info


def is_completed(folder: str, files: Files = local_files) -> bool:
  """Returns whether a folder's run completed."""
  return files.exists(os.path.join(folder, COMPLETED_FILE))


def read_labels(folder: str, files: Files = local_files) -> list[str]:
  """Returns a folder's label list: class index -> label."""
  return files.read_bytes(os.path.join(folder, LABELS_FILE)).decode().splitlines()


def write_labels(folder: str, labels: Sequence[str], files: Files = local_files, name: str = LABELS_FILE) -> None:
  """Writes a label list, one label per line."""
  files.write_text(os.path.join(folder, name), "".join(f"{label}\n" for label in labels))


def find_earlier(folder: str, stage: str, files: Files = local_files) -> RunInfo | None:
  """Returns the `info.json` of an earlier run, finished or not, or None.

  Raises InputError if the folder contains something that this stage did not write.
  """
  if os.path.isfile(folder):
    raise InputError(f"{folder} is a file: give a new or empty folder as {flag('output')}.")
  earlier = find_info(folder, files)
  if earlier and earlier.stage != stage:
    raise InputError(f"{folder} holds the output of `beam-retrain {earlier.stage}`: give another {flag('output')}.")
  if not earlier and not files.is_empty(folder):
    raise InputError(
      f"{folder} is not empty and was not written by beam-retrain: give a new or empty folder as {flag('output')}."
    )
  return earlier


def claim_folder(
  folder: str, info: RunInfo, *, owned: Sequence[str], work_folder: str, files: Files = local_files
) -> bool:
  """Claims a folder for this run; returns whether it resumes one.

  `owned` are names or glob patterns of what this stage writes into it besides the common files; `work_folder` in it, of
  work that can be resumed, is created. Raises InputError as `find_earlier`.
  """
  earlier = find_earlier(folder, info.stage, files)
  resumes = earlier is not None and earlier.request == info.request and not is_completed(folder, files)
  if resumes:
    for place in (folder, f"{folder}/{work_folder}"):  # a killed run left temporary files
      files.delete(files.find_in(place, f"*{local_files.TEMPORARY}*"))
  elif earlier:
    if unsafe := [pattern for pattern in owned if "/" in pattern or pattern.strip(".*") == ""]:
      raise ValueError(f"{unsafe[0]!r} is not a plain file name")
    for pattern in (*_ALWAYS_OWNED, *owned):
      files.delete(files.find_in(folder, pattern) if "*" in pattern else [f"{folder}/{pattern}"])
  files.make_folder(f"{folder}/{work_folder}")
  files.write_text(f"{folder}/{INFO_FILE}", info.to_json())
  return resumes


def complete_folder(folder: str, files: Files = local_files) -> None:
  files.write_text(f"{folder}/{COMPLETED_FILE}", "")


def reopen_folder(folder: str, files: Files = local_files) -> None:
  """Removes `COMPLETED`, so that no reader takes the folder for finished."""
  files.delete([f"{folder}/{COMPLETED_FILE}"])
