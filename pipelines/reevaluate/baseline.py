"""Baseline and reference: an earlier night, or an output of `evaluate`."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from beam_retrain.pipelines.reevaluate.history import (
  STAGE,
  DamagedError,
  dates,
  is_date,
  night_folder,
  read_metrics,
  read_night,
)
from beam_retrain.transforms.core.errors import InputError, listed
from beam_retrain.transforms.core.metrics.comparison import BASELINE, REFERENCE
from beam_retrain.transforms.core.metrics.figures import MISSED, Metrics
from beam_retrain.transforms.core.metrics.predictions import read_predictions
from beam_retrain.transforms.core.printing import say
from beam_retrain.transforms.core.records.schema import INFO_FILE
from beam_retrain.transforms.core.run.output_folder import find_info, find_output, read_info
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
      `date` that passed its gates and whose predictions are intact (the others are named on standard error). A
      candidate's gates do not count.
    labels: the model's label list.
  """
  if given == NO_BASELINE:
    return None
  chosen = _last_passed(history, date) if given is None else _given(history, date, given, BASELINE)
  return chosen and _with_labels(chosen, labels, BASELINE)


def choose_reference(history: str, date: str, given: str | None, labels: Sequence[str]) -> Baseline | None:
  """Returns what `--reference` names, a night or a folder, if given."""
  return None if given is None else _with_labels(_given(history, date, given, REFERENCE), labels, REFERENCE)


def check_unchanged(baseline: Baseline) -> None:
  """Raises InputError if a rerun of its night has replaced it."""
  try:
    unchanged = files.sha256(baseline.predictions) == baseline.sha256
  except OSError:
    unchanged = False
  if not unchanged:
    raise InputError(f"{baseline.name} was replaced while tonight was compared with it: run the command again.")


def _last_passed(history: str, date: str) -> Baseline | None:
  chosen: Baseline | None = None
  missed: list[str] = []
  for name in reversed([name for name in dates(history) if name < date]):
    folder = night_folder(history, name)
    try:
      metrics = read_night(folder, name)
      if metrics.trend_point().verdict != MISSED:
        chosen = _baseline(name, folder, metrics)
        break
      missed.insert(0, name)
    except DamagedError as error:
      say(f"the night {name} is damaged and is not used as the baseline: {error}", file=sys.stderr)
  if missed:
    what = f"{chosen.name}, the last night that passed" if chosen else f"nothing, as no night before {date} passed"
    say(
      f"compared with {what} its gates: {_listed(missed)} did not (--baseline NIGHT chooses another)", file=sys.stderr
    )
  return chosen


def _given(history: str, date: str, given: str, kind: str) -> Baseline:
  try:
    return _read_given(history, date, given, kind)
  except DamagedError as error:
    raise InputError(f"--{kind} {given} is damaged, {error}: {_choices(history, date, kind)}.") from error


def _read_given(history: str, date: str, given: str, kind: str) -> Baseline:
  if not given:
    raise InputError(f"--{kind} is empty: {_choices(history, date, kind)}.")
  folder = os.path.join(history, given) if is_date(given) else find_output(files.absolute(given), "evaluate", files)
  parent, name = os.path.split(folder.rstrip("/"))
  if is_date(name) and (parent == history or os.path.realpath(parent) == os.path.realpath(history)):
    if name == date:
      raise InputError(f"--{kind} {name} is tonight itself: {_choices(history, date, kind)}.")
    if name not in dates(history):
      raise InputError(f"--{kind} {name}: {history} has no such night: {_choices(history, date, kind)}.")
    return _night(history, name)
  info = find_info(folder, files)
  if info is None and files.exists(files.join(folder, INFO_FILE)):
    raise DamagedError(f"its {INFO_FILE} is none of beam-retrain")
  if info is None or info.stage not in (STAGE, "evaluate"):
    raise InputError(
      f"--{kind} {given} is neither a night nor an output of evaluate or reevaluate: {_choices(history, date, kind)}."
    )
  if info.stage == STAGE:
    return _baseline(given, folder, read_night(folder))
  read_info(folder, "evaluate", files)
  return _baseline(given, folder, read_metrics(folder))


def _night(history: str, name: str) -> Baseline:
  folder = night_folder(history, name)
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


def _choices(history: str, date: str, kind: str) -> str:
  nights = [name for name in dates(history) if name != date and _is_usable(history, name)]
  listed = f"one of {_listed(nights)}, " if nights else "(there is no other night) "
  an_evaluation = "the output folder of an evaluate"
  return f"give {listed}" + (f"{an_evaluation}, or {NO_BASELINE}" if kind == BASELINE else f"or {an_evaluation}")


def _listed(nights: Sequence[str]) -> str:
  more = f" and {len(nights) - _MAX_LISTED} earlier ones" if len(nights) > _MAX_LISTED else ""
  return ", ".join(nights[-_MAX_LISTED:]) + more


def _with_labels(baseline: Baseline, labels: Sequence[str], kind: str) -> Baseline:
  """Returns `baseline`; raises InputError if it has other labels."""
  if set(baseline.labels) == set(labels):
    return baseline
  sides = {
    f"only the {kind} has": [label for label in baseline.labels if label not in labels],
    "only the model has": [label for label in labels if label not in baseline.labels],
  }
  differences = "; ".join(f"{side} {listed(extra)}" for side, extra in sides.items() if extra)
  start_over = f"--baseline {NO_BASELINE} to start over" if kind == BASELINE else "leave it out"
  raise InputError(
    f"the {kind} {baseline.name} has other labels than the model ({differences}): give another --{kind}, or"
    f" {start_over}."
  )
