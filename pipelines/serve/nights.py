"""The history as pages show it: nothing in its folder is changed."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Sequence
from typing import NamedTuple

from beam_retrain.pipelines.evaluation.planned import REPORT_FILE
from beam_retrain.pipelines.reevaluate.history import STAGE, DamagedError, dates, read_night
from beam_retrain.pipelines.serve.images import Images, InputImages
from beam_retrain.reporting.gates import verdict_in_words
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics.figures import MODEL, Metrics
from beam_retrain.transforms.core.records.csv_format import unescape_cell
from beam_retrain.transforms.core.records.schema import METRICS_FILE
from beam_retrain.transforms.core.run.output_folder import read_info
from beam_retrain.transforms.core.system import local_files

_LABELS = ("actual_digit", "baseline_digit", "predicted_digit")
MAX_NIGHTS = 400
MAX_CHANGES = 60
MAX_REPORT_BYTES = 1 << 26


class Night(NamedTuple):
  """A night of the history; `fault` says why it cannot be read."""

  date: str
  metrics: Metrics | None = None
  fault: str = ""

  @property
  def verdict(self) -> str:
    return verdict_in_words(self.metrics.verdict) if self.metrics else "cannot be read"

  @property
  def accuracy(self) -> float | None:
    return self.metrics.model.main.accuracy if self.metrics else None


class Change(NamedTuple):
  """An image that was right and is wrong now, or the reverse."""

  key: str
  labels: Sequence[str]  # its own, that predicted before, and that predicted now
  image: int  # its number


class History:
  """The nights of a folder, read again when their files have changed."""

  def __init__(self, folder: str, images: Images):
    if not os.path.isdir(folder):
      raise InputError(f"--history {folder} is no folder: give the one that `beam-retrain reevaluate` writes.")
    self._folder, self._images = folder, images
    self._read: dict[str, tuple[int, Night]] = {}
    self._changes: dict[tuple[str, str, int], list[Change]] = {}

  def nights(self) -> list[Night]:
    """Returns the last nights, the newest first."""
    return [self._night(date) for date in reversed(dates(self._folder)[-MAX_NIGHTS:])]

  def night(self, date: str) -> Night | None:
    return self._night(date) if date in dates(self._folder) else None

  def report(self, date: str) -> bytes | None:
    """Returns the night's report."""
    path = os.path.join(self._folder, date, REPORT_FILE)
    if date not in dates(self._folder) or not 0 < (local_files.size_of(path) or 0) <= MAX_REPORT_BYTES:
      return None
    return local_files.read_bytes(path)

  def changes(self, date: str, kind: str) -> list[Change]:
    """Returns the first of the model's `regressed` or `fixed` images."""
    self._night(date)
    place = date, kind, self._read.get(date, (0,))[0]
    if place not in self._changes:
      self._changes[place] = self._read_changes(os.path.join(self._folder, date), kind)
    return self._changes[place]

  def _read_changes(self, folder: str, kind: str) -> list[Change]:
    path = os.path.join(folder, f"{kind}.csv")
    if not os.path.exists(path):
      return []
    with open(path, encoding="utf-8", newline="") as file:
      of_model = (row for row in csv.DictReader(file) if row["model"] == MODEL)
      rows = list(itertools.islice(of_model, MAX_CHANGES))
    keys = [unescape_cell(row["file_name"]) for row in rows]
    source = InputImages(read_info(folder, STAGE), keys)
    return [
      Change(key, [unescape_cell(row[name]) for name in _LABELS], self._images.number(source, key, row["sha256"]))
      for key, row in zip(keys, rows, strict=True)
    ]

  def _night(self, date: str) -> Night:
    folder = os.path.join(self._folder, date)
    try:
      changed = os.stat(os.path.join(folder, METRICS_FILE)).st_mtime_ns
      if self._read.get(date, (0,))[0] != changed:
        self._read[date] = changed, Night(date, read_night(folder, date))
      return self._read[date][1]
    except (DamagedError, OSError) as error:
      return Night(date, fault=str(error))
