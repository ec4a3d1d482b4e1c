"""Output directories: claimed by one command, worked in, completed.

`info.json` is written first and says whose the directory is; `COMPLETED` is written last. A killed run of the same
request goes on where it was; any other request starts empty. What a command does not own is never deleted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.records.schema import (
  COMPLETED_FILE,
  INFO_FILE,
  LABELS_FILE,
  QUARANTINE_FILE,
  REPORTS_FOLDER,
  STATS_FILE,
)
from beam_retrain.transforms.core.run.run_info import RunInfo, WritableFiles, find_info, is_completed
from beam_retrain.transforms.core.run.stats import Stats
from beam_retrain.transforms.core.system import local_files

# The marker goes first: from there on, no reader takes the directory for finished.
_ALWAYS_OWNED = (COMPLETED_FILE, STATS_FILE, QUARANTINE_FILE, LABELS_FILE, REPORTS_FOLDER)


class OutputDir:
  """Claims, resumes and completes an output directory.

  Attributes:
    path: what the user gave as `--output`.
    files: the file system that it is on.
  """

  def __init__(self, path: str, files: WritableFiles = local_files):
    self.path = path
    self.files = files

  @property
  def is_completed(self) -> bool:
    return is_completed(self.path, self.files)

  def find_earlier(self, stage: str) -> RunInfo | None:
    """Returns the `info.json` of an earlier run of a stage, finished or not; None without one.

    Raises:
      InputError: the directory holds something that this stage did not write.
    """
    if os.path.isfile(self.path):
      raise InputError(f"{self.path} is a file: give a new or empty folder as {flag('output')}.")
    found = find_info(self.path, self.files)
    if found and found.stage != stage:
      raise InputError(f"{self.path} holds the output of `beam-retrain {found.stage}`: give another {flag('output')}.")
    if not found and not self.files.is_empty(self.path):
      raise InputError(
        f"{self.path} is not empty and was not written by beam-retrain: give a new or empty folder as {flag('output')}."
      )
    return found

  def claim(self, info: RunInfo, *, owned: Sequence[str], work_folder: str) -> bool:
    """Makes the directory this run's; returns whether a killed run of the same request goes on in it.

    Args:
      info: of this run.
      owned: names, or glob patterns, directly in the directory, that this stage writes besides the common files.
      work_folder: path in the directory of a folder that a killed run goes on from; made here.

    Raises:
      InputError: the directory holds something that this stage did not write.
    """
    found = self.find_earlier(info.stage)
    resumes = found is not None and found.request == info.request and not self.is_completed
    if found and not resumes:
      self._clear(owned)
    elif resumes:
      self._sweep("", f"/{work_folder}")
    self.files.make_folder(f"{self.path}/{work_folder}")
    self.files.write_text(f"{self.path}/{INFO_FILE}", info.to_json())
    return resumes

  def complete(self, stats: Stats | None = None, max_bad_fraction: float = 1.0) -> bool:
    """Writes `COMPLETED`, unless more inputs were bad than the user accepts; returns whether it did.

    Args:
      stats: of the job; None: nothing was counted.
      max_bad_fraction: 0..1.
    """
    if stats is not None and stats.bad_fraction > max_bad_fraction:
      return False
    self.files.write_text(f"{self.path}/{COMPLETED_FILE}", "")
    return True

  def reopen(self) -> None:
    """Removes `COMPLETED`: no reader takes the directory for finished."""
    self.files.delete([f"{self.path}/{COMPLETED_FILE}"])

  def _sweep(self, *folders: str) -> None:
    """Removes what killed writes have left."""
    for folder in folders:
      self.files.delete(self.files.find_in(f"{self.path}{folder}", f"*{local_files.TEMPORARY}*"))

  def _clear(self, owned: Sequence[str]) -> None:
    for pattern in owned:
      if "/" in pattern or pattern.strip(".*") == "":
        raise ValueError(f"{pattern!r} is no name directly in a folder")
    for pattern in (*_ALWAYS_OWNED, *owned):
      paths = self.files.find_in(self.path, pattern) if "*" in pattern else [f"{self.path}/{pattern}"]
      self.files.delete(paths)
