"""Finds and reads the nights of a history folder.

`history` writes them.
"""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from beam_retrain.transforms.bottlenecks.store import store_folder
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics.figures import Metrics, TrendPoint
from beam_retrain.transforms.core.metrics.metrics_file import METRICS_FILE, MetricsError, metrics_from_json
from beam_retrain.transforms.core.records.schema import COMPLETED_FILE, INFO_FILE
from beam_retrain.transforms.evaluation.evaluate import PREDICTIONS_FILE
from beam_retrain.transforms.io import files

STAGE = "reevaluate"
UNFINISHED_FOLDER = "unfinished"
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_REQUIRED = (
  "predictions_sha256",
  "labels",
  "night",
  "accuracy",
  "accuracy_interval_95",
  "total",
  "per_label",
  "gates",
)


class Night(NamedTuple):
  """A finished night, named `YYYY-MM-DD`."""

  name: str
  path: str
  figures: TrendPoint


class Damaged(NamedTuple):
  """A night's folder that cannot be used."""

  name: str
  why: str


class DamagedError(Exception):
  """What is wrong with a folder, in a few words."""


def check_date(text: str | None, today: datetime.date, finished: Sequence[Night]) -> str:
  """Returns tonight's name: `--date`, or else today.

  Raises:
    InputError: `text` is not a date, or a finished night is later than today.
  """
  if text is not None:
    if not is_date(text):
      raise InputError(f"--date {text!r} is not a date: give it as YYYY-MM-DD, for example {today.isoformat()}.")
    return text
  name = today.isoformat()
  if finished and finished[-1].name > name:
    raise InputError(
      f"today is {name} by this machine's clock, but there is a finished night of {finished[-1].name}: set the clock,"
      f" give --date, or move {files.shown(finished[-1].path)} away."
    )
  return name


def trend(finished: Sequence[Night], until: str, limit: int = 90) -> list[TrendPoint]:
  """Returns the last `limit` nights before `until`, oldest first."""
  return [night.figures for night in finished if night.name < until][-limit:]


def stores(history: str, date: str, fingerprint: str, working: str = "") -> list[str]:
  """Returns finished folders of a trunk's bottlenecks.

  These are: an older night of the same date, the last night before it, and the last unfinished work up to then except
  `working` (it had too many bad images to be published). Call it within `tonight`: otherwise another night may delete
  them.
  """
  usable: list[str] = []
  for name in reversed(dates(history)):
    night = os.path.join(history, name)
    store = store_folder(night, fingerprint)
    if name <= date and is_completed(night) and is_completed(store):
      usable.append(store)
      if name < date:
        break
  unfinished = os.path.join(history, UNFINISHED_FOLDER)
  for name in sorted(os.listdir(unfinished), reverse=True) if os.path.isdir(unfinished) else []:
    store = store_folder(os.path.join(unfinished, name), fingerprint)
    if name[: len(date)] <= date and os.path.join(unfinished, name) != working and is_completed(store):
      return [*usable, store]
  return usable


def is_date(text: str) -> bool:
  try:
    return bool(DATE.fullmatch(text) and datetime.date.fromisoformat(text))
  except ValueError:
    return False


def dates(history: str) -> list[str]:
  return sorted(filter(is_date, os.listdir(history))) if os.path.isdir(history) else []


def check_history(history: str) -> None:
  if not files.is_local(history):
    raise InputError(
      f"--history {history} is remote, where folders cannot be renamed atomically: give a local or mounted folder."
    )
  if not os.path.lexists(history):
    return
  if not os.path.isdir(history):
    raise InputError(f"--history {history} is a file: give a folder.")
  if os.path.islink(os.path.join(history, UNFINISHED_FOLDER)):
    raise InputError(
      f"{os.path.join(history, UNFINISHED_FOLDER)} is a link, but all nights must be on one disk: remove it."
    )
  # Hidden files and a mounted disk's `lost+found` do not count.
  names = [name for name in os.listdir(history) if not name.startswith(".") and name != "lost+found"]
  if names and not any(is_date(name) or name == UNFINISHED_FOLDER for name in names):
    raise InputError(
      f"--history {history} contains {sorted(names)[0]!r} but no nights of reevaluate: give a new or empty folder, or"
      " the one with earlier nights."
    )


def read_json(path: str) -> dict[str, Any]:
  """Reads a JSON object.

  Raises:
    DamagedError: the file is missing or is not a JSON object.
  """
  name = os.path.basename(path)
  try:
    value = json.loads(files.read_bytes(path))
  except OSError as error:
    raise DamagedError(f"{name} is missing or cannot be read") from error
  except (ValueError, RecursionError) as error:  # RecursionError: thousands of nested brackets
    raise DamagedError(f"{name} is not valid JSON") from error
  if not isinstance(value, dict):
    raise DamagedError(f"{name} is not a JSON object")
  return value


def read_night(folder: str, name: str | None = None) -> Metrics:
  """Reads a finished night's `metrics.json`; `name` is its expected name.

  Does not verify the predictions' checksum.

  Raises:
    DamagedError: it is not a finished night.
  """
  if not is_completed(folder):
    raise DamagedError(f"it has no {COMPLETED_FILE}")
  if read_json(files.join(folder, INFO_FILE)).get("stage") != STAGE:
    raise DamagedError(f"its {INFO_FILE} was not written by `beam-retrain {STAGE}`")
  metrics = read_metrics(folder, _REQUIRED)
  if name is not None and metrics.night != name:
    raise DamagedError(f"its {METRICS_FILE} is of the night {metrics.night!r}")
  if not files.exists(files.join(folder, PREDICTIONS_FILE)):
    raise DamagedError(f"it has no {PREDICTIONS_FILE}")
  return metrics


def read_metrics(folder: str, required: Collection[str] = ("labels",)) -> Metrics:
  """Reads a folder's `metrics.json`.

  Raises:
    DamagedError: the file is missing or invalid, or lacks a required key.
  """
  try:
    return metrics_from_json(read_json(files.join(folder, METRICS_FILE)), required)
  except MetricsError as error:
    raise DamagedError(str(error)) from error


def is_completed(folder: str) -> bool:
  return files.exists(files.join(folder, COMPLETED_FILE))
