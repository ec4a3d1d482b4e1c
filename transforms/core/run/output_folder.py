"""Output folders of commands: claimed, resumed, completed, read.

`info.json` is written first and names the owner; `COMPLETED` is written last and lists all files (`contents`). A killed
run of the same request is resumed; any other request starts empty. Files that a command does not own are never deleted.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence

from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.labels import merged, normalise
from beam_retrain.transforms.core.log_file import keep_in
from beam_retrain.transforms.core.printing import say
from beam_retrain.transforms.core.records.schema import (
  COMPLETED_FILE,
  CONFIG_FILE,
  INFO_FILE,
  LABELS_FILE,
  QUARANTINE_FILE,
  REPORTS_FOLDER,
  SAVED_MODEL_FOLDER,
  STATS_FILE,
)
from beam_retrain.transforms.core.run import config, contents
from beam_retrain.transforms.core.run.contents import Files
from beam_retrain.transforms.core.run.run_info import RunInfo
from beam_retrain.transforms.core.system import local_files
from beam_retrain.transforms.core.system.locks import Claim
from beam_retrain.transforms.core.system.small_files import RUN_AGAIN, read_small

# Read from the folder of `run` too, by `find_output`.
_OF_RUN = ("bottlenecks", "train", "evaluate")
_STAGES = ("convert", *_OF_RUN)
# The marker is deleted first, so that no reader takes the folder for finished.
_ALWAYS_OWNED = (COMPLETED_FILE, CONFIG_FILE, STATS_FILE, QUARANTINE_FILE, LABELS_FILE, REPORTS_FOLDER)


def find_info(folder: str, files: Files = local_files) -> RunInfo | None:
  """Returns a folder's `info.json`, or None if beam-retrain did not write it.

  If it is damaged or missing in a finished folder, only the stage is known.
  """
  path = os.path.join(folder, INFO_FILE)
  info = RunInfo.from_json(files.read_bytes(path)) if files.exists(path) else None
  if info is None and (stage := contents.read_stage(folder, files)):
    return RunInfo(stage, lists_files=True)
  return info


def _is_there(folder: str) -> bool:
  """Raises InputError if this user may not look into it."""
  try:
    os.stat(os.path.join(folder, INFO_FILE))
  except PermissionError as error:
    raise InputError(
      f"{folder} cannot be entered ({error.strerror}): give this user the right to read it, and to enter the folders"
      " above it."
    ) from error
  except OSError:
    return os.path.exists(folder)
  return True


def read_info(folder: str, stage: str, files: Files = local_files) -> RunInfo:
  """Returns the `info.json` that a finished stage wrote as its `--output`.

  Raises InputError if the folder is missing, unfinished or of another stage.
  """
  shown = folder if "://" in folder else local_files.shown(folder)
  of_run = ", or that of `beam-retrain run`" if stage in _OF_RUN else ""
  give = f"give the folder that `beam-retrain {stage}` wrote{of_run}"
  info = find_info(folder, files)
  if info is None and not files.exists(os.path.join(folder, INFO_FILE)):
    is_there = "://" in folder or _is_there(folder)
    if stage in _OF_RUN:
      _refuse_unfinished_run(folder, files)
    problem = f"has no {INFO_FILE}" if is_there else "does not exist"
    raise InputError(f"{shown} {problem}: {give}.")
  if info is None:
    raise InputError(f"{os.path.join(shown, INFO_FILE)} is damaged, or not of beam-retrain: {give}, or run that again.")
  if info.stage != stage:
    raise InputError(f"{shown} was written by `beam-retrain {info.stage}`: {give}.")
  if not is_completed(folder, files):
    _refuse_too_many_bad(folder, stage, files)
    raise InputError(
      f"{shown} is not finished: repeat the `beam-retrain {stage}`, or the `beam-retrain run`, that writes it."
    )
  check_contents(folder, info, files)
  return info


def _refuse_unfinished_run(folder: str, files: Files) -> None:
  """Raises InputError if a folder is of a `run` that ended early."""
  for stage in stages_in(folder, files, _OF_RUN):
    read_info(os.path.join(folder, stage), stage, files)
    raise InputError(f"{folder} is not finished: repeat the `beam-retrain run` that writes it.")


def stages_in(folder: str, files: Files = local_files, stages: Sequence[str] = _STAGES) -> list[str]:
  """Returns the stages whose outputs are in a folder of `run`."""
  return [stage for stage in stages if files.exists(os.path.join(folder, stage, INFO_FILE))]


def _refuse_too_many_bad(folder: str, stage: str, files: Files) -> None:
  """Raises InputError if bad inputs are why a folder is not finished."""
  from beam_retrain.transforms.core.run.stats import read_stats  # it imports this module

  if files.exists(os.path.join(folder, STATS_FILE)) and (stats := read_stats(folder, files)).bad_fraction:
    shown = folder if "://" in folder else local_files.shown(folder)
    listed = stats.describe_bad(os.path.join(shown, QUARANTINE_FILE))
    raise InputError(
      f"{shown} is not finished: {listed} and repeat the `beam-retrain {stage}`, or the `beam-retrain run`, that"
      " writes it."
    )


def find_output(path: str, stage: str, files: Files = local_files) -> str:
  """Returns a stage's output folder, from that of `run` above it, too.

  Of `train`, the `saved_model` in the output may be given as well, since the command names it. Any other path is
  returned as it is.
  """
  if files.exists(os.path.join(path, INFO_FILE)):
    return path
  below = os.path.join(path, stage)
  if files.exists(os.path.join(below, INFO_FILE)):
    return below
  above, name = os.path.split(path.rstrip("/"))
  is_model = stage == "train" and name == SAVED_MODEL_FOLDER and files.exists(os.path.join(above, INFO_FILE))
  return above if is_model else path


def check_contents(folder: str, info: RunInfo, files: Files = local_files, names: Sequence[str] = ()) -> None:
  """Checks a finished folder against its list; see `contents.find_faults`.

  Raises InputError for the first file that is not as it was written.
  """
  if not info.lists_files:
    _report_unchecked(folder)
  for path, fault in find_faults(folder, files, names=names):
    remedy = f"repeat the `beam-retrain {info.stage}`, or the `beam-retrain run`, that wrote {folder}"
    raise InputError(f"{folder}/{path} {fault}: {remedy}.")


def check_file(path: str) -> None:
  """Checks a local file, if it lies in a finished folder."""
  folder, name = os.path.split(os.path.abspath(path))
  info = find_info(folder)
  if info and info.lists_files and is_completed(folder):
    check_contents(folder, info, names=(name,))


@functools.cache  # once a command
def _report_unchecked(folder: str) -> None:
  say(
    f"{folder} was written by an earlier version, without a list of its files: they are not checked.", file=sys.stderr
  )


def is_completed(folder: str, files: Files = local_files) -> bool:
  """Returns whether a folder's run completed."""
  return files.exists(os.path.join(folder, COMPLETED_FILE))


def read_labels(folder: str, files: Files = local_files) -> list[str]:
  """Returns a folder's label list: class index -> normalised label.

  Raises InputError if it is not that of `info.json`, which names the labels since 0.1, or two are one when normalised,
  as 0.4 wrote them.
  """
  labels = list(info.labels) if (info := find_info(folder, files)) else []

  def decode(data: bytes) -> list[str]:
    text = data.decode()
    if not text or (labels and text != _lines(labels)):
      raise ValueError(f"not the labels of {INFO_FILE}")
    return labels or text.splitlines()

  read = read_small(os.path.join(folder, LABELS_FILE), decode, RUN_AGAIN, files.read_bytes)
  for sentence in merged(read):
    raise InputError(f"{folder} has classes that earlier versions told apart: {sentence}; {RUN_AGAIN}.")
  return list(map(normalise, read))


def _lines(labels: Sequence[str]) -> str:
  return "".join(f"{label}\n" for label in labels)


def write_labels(folder: str, labels: Sequence[str], files: Files = local_files, name: str = LABELS_FILE) -> None:
  """Writes a label list, one label per line."""
  files.write_text(os.path.join(folder, name), _lines(labels))


def find_earlier(folder: str, stage: str, files: Files = local_files) -> RunInfo | None:
  """Returns the `info.json` of an earlier run, finished or not, or None.

  Raises InputError if the folder contains something that this stage did not write.
  """
  if os.path.isfile(folder):
    raise InputError(f"{folder} is a file: give a new or empty folder as {flag('output')}.")
  earlier = find_info(folder, files)
  if earlier and earlier.stage != stage:
    raise InputError(f"{folder} holds the output of `beam-retrain {earlier.stage}`: give another {flag('output')}.")
  if not earlier and not files.is_empty(folder) and not _is_blank(folder, files):
    raise InputError(
      f"{folder} is not empty and was not written by beam-retrain: give a new or empty folder as {flag('output')}."
    )
  return earlier


def _is_blank(folder: str, files: Files) -> bool:
  """Whether a folder holds an empty `info.json` alone, after a power cut."""
  sizes = [(path, size_bytes) for path, size_bytes in files.list_sizes(folder, ()) if path != local_files.LOCK_FILE]
  return [entry for entry in sizes if local_files.TEMPORARY not in entry[0]] == [(INFO_FILE, 0)]


def claim_folder(
  folder: str,
  info: RunInfo,
  *,
  owned: Sequence[str],
  work_folder: str,
  owned_folders: Sequence[str] = (),
  files: Files = local_files,
) -> bool:
  """Claims a folder for this run; returns whether it resumes one.

  `owned` are names or glob patterns of what this stage writes into it besides the common files, `owned_folders` names,
  never patterns; `work_folder` in it, of work that can be resumed, is created. Raises InputError as `find_earlier`.
  """
  earlier = find_earlier(folder, info.stage, files)
  resumes = earlier is not None and earlier.request == info.request and not is_completed(folder, files)
  for place in (folder, f"{folder}/{work_folder}"):  # a killed run left temporary files
    files.delete(files.find_in(place, f"*{local_files.TEMPORARY}*"))
  if earlier and not resumes:
    if unsafe := [name for name in (*owned, *owned_folders) if "/" in name or name.strip(".*") == ""]:
      raise ValueError(f"{unsafe[0]!r} is not a plain file name")
    for pattern in (*_ALWAYS_OWNED, *owned):
      files.delete(files.find_in(folder, pattern) if "*" in pattern else [f"{folder}/{pattern}"])
    files.delete(f"{folder}/{name}" for name in owned_folders)
  files.make_folder(folder)
  files.write_text(f"{folder}/{INFO_FILE}", info.to_json())  # first: without it nobody knows whose the rest is
  if text := config.to_toml_of(info.command):
    files.write_text(f"{folder}/{CONFIG_FILE}", text)
  keep_in(folder, files)
  files.make_folder(f"{folder}/{work_folder}")
  files.sync(folder)  # after a power cut, too, the folder must be known as ours
  return resumes


def complete_folder(folder: str, files: Files = local_files, claim: Claim | None = None) -> None:
  """Writes `COMPLETED`, the list of all files; see `contents.write_list`."""
  info = find_info(folder, files)
  contents.write_list(folder, info.stage if info else "", files, claim=claim)


def update_info(folder: str, info: RunInfo, files: Files = local_files) -> None:
  """Replaces a folder's `info.json`, also in the list of a finished one."""
  entries = list(contents.read_list(folder, files)) if is_completed(folder, files) else []
  reopen_folder(folder, files)
  files.write_text(f"{folder}/{INFO_FILE}", info.to_json())
  if entries:
    data = info.to_json().encode()
    new = contents.Entry(INFO_FILE, len(data), hashlib.sha256(data).hexdigest())
    contents.write_list(folder, info.stage, files, [new if old.path == INFO_FILE else old for old in entries])


def reopen_damaged(folder: str, files: Files = local_files) -> str:
  """Makes a rerun mend a finished folder whose files have changed.

  Returns what is wrong with the first, or "". The rerun resumes; without a readable `info.json` it starts anew.
  """
  faults = list(find_faults(folder, files, with_data=True))
  if faults and INFO_FILE not in dict(faults):
    reopen_folder(folder, files)
    files.delete(f"{folder}/{path}" for path, _ in faults)
  return " ".join(faults[0]) if faults else ""


def find_faults(
  folder: str, files: Files = local_files, *, with_data: bool = False, names: Sequence[str] = ()
) -> Iterator[tuple[str, str]]:
  """Yields (path, what is wrong) for a finished folder; see `contents.find_faults`.

  Folders of 0.4, which have no list, have no faults.
  """
  if contents.has_list(folder, files):
    yield from contents.find_faults(folder, files, with_data=with_data, names=names)
  elif (info := find_info(folder, files)) and info.lists_files:
    yield COMPLETED_FILE, "is empty"


def reopen_folder(folder: str, files: Files = local_files) -> None:
  """Removes `COMPLETED`, so that no reader takes the folder for finished."""
  files.delete([f"{folder}/{COMPLETED_FILE}"])
