"""The baseline: an earlier night, or an output of `evaluate`."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from beam_retrain.pipelines.reevaluate.history import STAGE, DamagedError, dates, is_date, read_metrics, read_night
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics.figures import Metrics
from beam_retrain.transforms.core.metrics.predictions import read_predictions
from beam_retrain.transforms.core.printing import print
from beam_retrain.transforms.core.run.output_folder import find_info, read_info
from beam_retrain.transforms.evaluation.evaluate import PREDICTIONS_FILE
from beam_retrain.transforms.io import files

NO_BASELINE = "none"
_MAX_LISTED = 10


class Baseline(NamedTuple):
  """What tonight is compared with; `sha256` is that of its `predictions.csv`."""

  name: str
  predictions: str
  labels: Sequence[str]
  sha256: str


def choose_baseline(history: str, date: str, given: str | None, labels: Sequence[str]) -> Baseline | None:
  """Returns what the night of `date` is compared with, if anything.

  Args:
    given: `none`; a night; a folder written by `evaluate` or `reevaluate`; or None: the last finished night before
      `date` whose predictions are intact (damaged ones are reported on standard error).
    labels: the model's label list.
  """
  if given == NO_BASELINE:
    return None
  try:
    chosen = _last_baseline(history, date) if given is None else _given_baseline(history, date, given)
  except DamagedError as error:
    raise InputError(f"--baseline {given} is damaged, {error}: {_choices(history, date)}.") from error
  if chosen and set(chosen.labels) != set(labels):
    raise InputError(_labels_differ(chosen, labels))
  return chosen


def check_unchanged(baseline: Baseline) -> None:
  """Raises InputError if a rerun of its night has replaced the baseline."""
  try:
    unchanged = files.sha256(baseline.predictions) == baseline.sha256
  except OSError:
    unchanged = False
  if not unchanged:
    raise InputError(f"the baseline {baseline.name} was replaced during the comparison: run the command again.")


def _last_baseline(history: str, date: str) -> Baseline | None:
  for name in reversed(dates(history)):
    if name < date:
      try:
        return _night(history, name)
      except DamagedError as error:
        print(f"the night {name} is damaged and is not used as the baseline: {error}", file=sys.stderr)
  return None


def _given_baseline(history: str, date: str, given: str) -> Baseline:
  if not given:
    raise InputError(f"--baseline is empty: {_choices(history, date)}.")
  folder = os.path.join(history, given) if is_date(given) else files.absolute(given)
  parent, name = os.path.split(folder.rstrip("/"))
  if files.is_local(folder) and is_date(name) and os.path.realpath(parent) == os.path.realpath(history):
    if name == date:
      raise InputError(f"--baseline {name} is tonight itself: {_choices(history, date)}.")
    if not os.path.lexists(folder):
      raise InputError(f"--baseline {name}: {history} has no such night: {_choices(history, date)}.")
    return _night(history, name)
  info = find_info(folder, files)
  if info is None or info.stage not in (STAGE, "evaluate"):
    raise InputError(
      f"--baseline {given} is neither a night nor an output of evaluate or reevaluate: {_choices(history, date)}."
    )
  if info.stage == STAGE:
    return _baseline(given, folder, read_night(folder))
  read_info(folder, "evaluate", files)
  return _baseline(given, folder, read_metrics(folder))


def _night(history: str, name: str) -> Baseline:
  folder = os.path.join(history, name)
  return _baseline(name, folder, read_night(folder, name))


def _baseline(name: str, folder: str, metrics: Metrics) -> Baseline:
  predictions = files.join(folder, PREDICTIONS_FILE)
  try:
    digest = files.sha256(predictions)
    if metrics.predictions_sha256 is not None:
      whole = metrics.predictions_sha256 == digest
    else:  # written by an earlier version's `evaluate`
      whole = _count_rows(predictions) == metrics.model.total
  except OSError as error:
    raise DamagedError(f"its {PREDICTIONS_FILE} is missing or cannot be read") from error
  if not whole:
    raise DamagedError(f"its {PREDICTIONS_FILE} has changed since it was written")
  return Baseline(name, predictions, metrics.model.labels, digest)


def _count_rows(predictions: str) -> int | None:
  """Returns the number of rows of a `predictions.csv`; None if unreadable."""
  try:
    return sum(1 for _ in read_predictions(files.read_lines(predictions), predictions))
  except (ValueError, csv.Error):
    return None


def _is_usable(history: str, name: str) -> bool:
  try:
    _night(history, name)
  except DamagedError:
    return False
  return True


def _choices(history: str, date: str) -> str:
  nights = [name for name in dates(history) if name != date and _is_usable(history, name)]
  more = f" and {len(nights) - _MAX_LISTED} earlier ones" if len(nights) > _MAX_LISTED else ""
  listed = f"one of {', '.join(nights[-_MAX_LISTED:])}{more}, " if nights else "(there is no other night) "
  return f"give {listed}the output folder of an evaluate, or {NO_BASELINE}"


def _labels_differ(baseline: Baseline, labels: Sequence[str]) -> str:
  sides = {
    "only the baseline has": [label for label in baseline.labels if label not in labels],
    "only the model has": [label for label in labels if label not in baseline.labels],
  }
  differences = "; ".join(
    f"{side} {', '.join(map(repr, extra[:_MAX_LISTED]))}"
    + (f" and {len(extra) - _MAX_LISTED} more" if len(extra) > _MAX_LISTED else "")
    for side, extra in sides.items()
    if extra
  )
  return (
    f"the baseline {baseline.name} has other labels than the model ({differences}): give another --baseline, or"
    f" --baseline {NO_BASELINE} to start over."
  )
