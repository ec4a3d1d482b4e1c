"""Output directories: claimed, resumed and completed by one command.

`info.json` is written first and names the owner; `COMPLETED` is written last. A killed run of the same request is
resumed; any other request starts empty. Files that a command does not own are never deleted.
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
from beam_retrain.transforms.core.run.run_info import Files, RunInfo, find_info, is_completed
from beam_retrain.transforms.core.run.stats import Stats
from beam_retrain.transforms.core.system import local_files

# The marker is deleted first, so that no reader takes the directory for finished.
_ALWAYS_OWNED = (COMPLETED_FILE, STATS_FILE, QUARANTINE_FILE, LABELS_FILE, REPORTS_FOLDER)


class OutputDir:
  """Claims, resumes and completes an output directory."""

  def __init__(self, path: str, files: Files = local_files):
    self.path = path
    self.files = files

  @property
  def is_completed(self) -> bool:
    return is_completed(self.path, self.files)

  def find_earlier(self, stage: str) -> RunInfo | None:
    """Returns the `info.json` of an earlier run, finished or not, or None.

    Raises InputError if the directory contains something that this stage did not write.
    """
    if os.path.isfile(self.path):
      raise InputError(f"{self.path} is a file: give a new or empty folder as {flag('output')}.")
    earlier = find_info(self.path, self.files)
    if earlier and earlier.stage != stage:
      raise InputError(
        f"{self.path} holds the output of `beam-retrain {earlier.stage}`: give another {flag('output')}."
      )
    if not earlier and not self.files.is_empty(self.path):
      raise InputError(
        f"{self.path} is not empty and was not written by beam-retrain: give a new or empty folder as {flag('output')}."
      )
    return earlier

  def claim(self, info: RunInfo, *, owned: Sequence[str], work_folder: str) -> bool:
    """Claims the directory for this run; returns whether it resumes one.

    Raises InputError as `find_earlier`.

    Args:
      owned: names or glob patterns of what this stage writes into the directory besides the common files.
      work_folder: subfolder of work that can be resumed; created here.
    """
    earlier = self.find_earlier(info.stage)
    resumes = earlier is not None and earlier.request == info.request and not self.is_completed
    if earlier and not resumes:
      self._clear(owned)
    elif resumes:
      for folder in (self.path, f"{self.path}/{work_folder}"):  # a killed run left temporary files
        self.files.delete(self.files.find_in(folder, f"*{local_files.TEMPORARY}*"))
    self.files.make_folder(f"{self.path}/{work_folder}")
    self.files.write_text(f"{self.path}/{INFO_FILE}", info.to_json())
    return resumes

  def complete(self, stats: Stats | None = None, max_bad_fraction: float = 1.0) -> bool:
    """Writes `COMPLETED` unless too many inputs were bad; returns whether it did."""
    if stats is not None and stats.bad_fraction > max_bad_fraction:
      return False
    self.files.write_text(f"{self.path}/{COMPLETED_FILE}", "")
    return True

  def reopen(self) -> None:
    """Removes `COMPLETED`, so that no reader takes the directory for finished."""
    self.files.delete([f"{self.path}/{COMPLETED_FILE}"])

  def _clear(self, owned: Sequence[str]) -> None:
    for pattern in owned:
      if "/" in pattern or pattern.strip(".*") == "":
        raise ValueError(f"{pattern!r} is not a plain file name")
    for pattern in (*_ALWAYS_OWNED, *owned):
      paths = self.files.find_in(self.path, pattern) if "*" in pattern else [f"{self.path}/{pattern}"]
      self.files.delete(paths)
