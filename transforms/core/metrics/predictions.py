"""Predictions, the mistakes among them, and their file `predictions.csv`.

It has one line per image, the article's columns first.

| column                               | what                                                                          |
|--------------------------------------|-------------------------------------------------------------------------------|
| file_name                            | the image's key                                                               |
| actual_digit, predicted_digit        | label names                                                                   |
| confidence                           | score of the predicted label, percent, four decimals                          |
| prediction_accuracy                  | `True` if the two names are the same, else `False`                            |
| Execution time                       | the job's start, as `time.ctime()` writes it; the same in every line          |
| second_digit, second_confidence      | the label with the second highest score; empty if the model has one label     |
| third_digit, third_confidence        | likewise the third                                                            |
| margin                               | confidence - second_confidence, percent                                       |
| sha256                               | of the image's bytes, 64 hex digits                                           |
| split                                | `training`, `testing`, or `all`                                               |
| trained_on                           | `True` if the model was trained on the image, else `False`; empty if unknown  |

Where the model does not record its training images, as those of version 0.4, there is no column `trained_on`.

Lines of a shard lack the execution time, because a resumed run has another start. They begin with the model's name,
because several models may score an image in one pass.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics.figures import ShownImage
from beam_retrain.transforms.core.metrics.label_stats import TOP, Outcome
from beam_retrain.transforms.core.records.csv_format import csv_line, escape_cell

EXECUTION_TIME = "Execution time"
COLUMNS = (
  "file_name",
  "actual_digit",
  "predicted_digit",
  "confidence",
  "prediction_accuracy",
  EXECUTION_TIME,
  "second_digit",
  "second_confidence",
  "third_digit",
  "third_confidence",
  "margin",
  "sha256",
  "split",
)
TRAINED_ON = "trained_on"
_EXECUTION_TIME_AT = COLUMNS.index(EXECUTION_TIME)
HEADER = ",".join(COLUMNS) + "\n"
HEADER_TRAINED_ON = ",".join([*COLUMNS, TRAINED_ON]) + "\n"
ROW_COLUMNS = ("file_name", "actual_digit", "predicted_digit", "confidence", "sha256")
_PART_COLUMNS = tuple(name for name in COLUMNS if name != EXECUTION_TIME)
_PART_PLACES = tuple(_PART_COLUMNS.index(name) for name in ROW_COLUMNS)

SUSPICIOUS_COLUMNS = (*ROW_COLUMNS, "rank")
LABEL_ERROR_COLUMNS = (*SUSPICIOUS_COLUMNS, "out_of_fold_confidence", "suggested_digit", "agreeing_neighbours")
"""Of `suspicious_labels.csv`, without and with a search for label errors; the last two confidences in percent."""

SUSPICIOUS_PERCENT = 95.0
"""A mistake of at least this confidence may be a wrong label."""
MAX_SUSPICIOUS = 10_000
MAX_SHOWN = 600
MAX_SHOWN_SUSPICIOUS = 60
MAX_PER_CELL = 12
MAX_SHOWN_RIGHT = 240
MAX_RIGHT_PER_LABEL = 4


class Scored(NamedTuple):
  """One image and its scores, float32 [C], 0..1.

  `vector`: its bottleneck, float32 [D], if it is at hand.
  """

  key: str
  actual: str
  sha256: str
  scores: np.ndarray
  vector: np.ndarray | None = None


class Prediction(NamedTuple):
  """The prediction for one image.

  `top`: up to `TOP` (label, score 0..1), the highest first; in a tie, the first in the label list.
  """

  scored: Scored
  top: tuple[tuple[str, float], ...]
  outcome: Outcome


def predict(scored: Scored, labels: Sequence[str]) -> Prediction:
  """Returns the prediction for an image's scores.

  Raises ValueError if the image's label is not in `labels`.
  """
  order = np.argsort(-scored.scores, kind="stable")
  actual = labels.index(scored.actual)
  top = tuple((labels[index], float(scored.scores[index])) for index in order[:TOP].tolist())
  predicted, confidence = top[0]
  rank = int(np.flatnonzero(order == actual)[0]) + 1
  return Prediction(scored, top, Outcome(scored.actual, predicted, confidence, float(scored.scores[actual]), rank))


class Row(NamedTuple):
  """The columns that are read back, spelled as in the file.

  They are `ROW_COLUMNS`, and `trained_on`, which is empty if unknown.
  """

  key: str
  actual: str
  predicted: str
  confidence: str
  sha256: str
  trained_on: str = ""

  @property
  def right(self) -> bool:
    return self.actual == self.predicted


def part_line(model: str, prediction: Prediction, split: str, *trained_on: bool | None) -> bytes:
  """Returns a prediction's line in a shard, UTF-8.

  `trained_on` is given if the model's training images are known.
  """
  scored, outcome = prediction.scored, prediction.outcome
  (_, first), *others = prediction.top
  cells = [model, *map(escape_cell, (scored.key, outcome.actual, outcome.predicted)), _percent(first)]
  cells.append(str(outcome.actual == outcome.predicted))
  for label, score in others:
    cells += [escape_cell(label), _percent(score)]
  cells += [""] * (2 * (TOP - 1 - len(others)))
  margin = _percent(first - others[0][1]) if others else ""
  known = ["" if value is None else str(value) for value in trained_on]
  return csv_line([*cells, margin, scored.sha256, split, *known]).encode()


def read_part(lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
  """Yields (model, cells without the execution time) per line of a shard."""
  for model, *cells in csv.reader(lines):
    yield model, cells


def whole_line(cells: Sequence[str], execution_time: str) -> str:
  """Returns a line of `predictions.csv` from a shard line's cells."""
  return csv_line([*cells[:_EXECUTION_TIME_AT], execution_time, *cells[_EXECUTION_TIME_AT:]])


def row_of(cells: Sequence[str]) -> Row:
  return Row(*map(cells.__getitem__, _PART_PLACES), *cells[len(_PART_COLUMNS) :])


def read_predictions(lines: Iterable[str], source: str) -> Iterator[Row]:
  """Reads a `predictions.csv`, opened with `newline=""`; `source` is its path.

  Raises InputError if a column is missing, or a line has another number of cells than the header.
  """
  reader = csv.reader(lines)
  names = next(reader, [])
  missing = [name for name in ROW_COLUMNS if name not in names]
  if missing:
    raise InputError(f"{source} has no column {missing[0]!r}: give a predictions.csv written by `beam-retrain`.")
  places = [names.index(name) for name in (*ROW_COLUMNS, TRAINED_ON) if name in names]
  for cells in reader:
    if len(cells) != len(names):
      raise InputError(
        f"{source}: line {reader.line_num} has {len(cells)} cells instead of {len(names)}: the file is damaged."
      )
    yield Row(*(cells[place] for place in places))


def _percent(score: float) -> str:
  return f"{100 * score:.4f}"


class LabelError(NamedTuple):
  """A label that heads trained on other images, and neighbours, contradict.

  `rank` is 1 for the most likely error; `confidence`, 0..1, is the heads' in the label; `agreeing`, 0..1, is the share
  of neighbours that have it.
  """

  rank: int
  confidence: float
  suggested: str
  agreeing: float


class Mistakes:
  """Selects the images of one model to show, and likely wrong labels.

  Memory stays bounded, and the selection depends on the set of predictions, not on their order.

  Args:
    errors: likely wrong labels by key, at most `MAX_SUSPICIOUS`; None: not looked for.

  Attributes:
    suspicious_count: `errors`, and mistakes with a confidence of at least `SUSPICIOUS_PERCENT`.
  """

  def __init__(self, errors: Mapping[str, LabelError] | None = None) -> None:
    self._errors = errors
    self._wrong: list[Row] = []
    self._cells: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    self._suspicious: list[Row] = []
    self._right: defaultdict[str, list[Row]] = defaultdict(list)
    self.suspicious_count = 0

  def add(self, row: Row) -> None:
    if is_error := row.key in (self._errors or ()):
      self._wrong.append(row)
      self.suspicious_count += 1
    if row.right:
      _keep(self._right[row.actual], row, MAX_RIGHT_PER_LABEL, _by_digest)
      return
    _keep(self._cells[row.actual, row.predicted], row, MAX_PER_CELL)
    if float(row.confidence) >= SUSPICIOUS_PERCENT and not is_error:
      self.suspicious_count += 1
      _keep(self._suspicious, row, MAX_SUSPICIOUS)

  def shown(self, limit: int = MAX_SHOWN) -> list[Row]:
    """Returns up to `limit` mistakes: each pair's most confident, then others."""
    places = [entry for rows in self._cells.values() for entry in enumerate(sorted(rows, key=_order)[:MAX_PER_CELL])]
    places.sort(key=lambda entry: (entry[0], _order(entry[1])))
    return [row for _, row in places[:limit]]

  def right(self, limit: int = MAX_SHOWN_RIGHT) -> list[Row]:
    """Returns up to `limit` right images, drawn by digest.

    Labels with mistakes come first.
    """
    wrong = {actual for actual, _ in self._cells}
    places = [
      entry for rows in self._right.values() for entry in enumerate(sorted(rows, key=_by_digest)[:MAX_RIGHT_PER_LABEL])
    ]
    places.sort(key=lambda entry: (entry[0], entry[1].actual not in wrong, _by_digest(entry[1])))
    return [row for _, row in places[:limit]]

  def suspicious(self, limit: int = MAX_SUSPICIOUS) -> list[Row]:
    """Returns up to `limit` suspicious labels: errors, then the most confident."""
    errors = self._errors or {}
    wrong = sorted(self._wrong, key=lambda row: errors[row.key].rank)
    return [*wrong, *sorted(self._suspicious, key=_order)][: min(limit, MAX_SUSPICIOUS)]

  def suspicious_table(self) -> Iterator[Sequence[object]]:
    """Yields the rows of `suspicious_labels.csv`, the header first."""
    yield SUSPICIOUS_COLUMNS if self._errors is None else LABEL_ERROR_COLUMNS
    for rank, row in enumerate(self.suspicious(), 1):
      cells = [*row[: len(ROW_COLUMNS)], rank]
      if self._errors is not None and (error := self._errors.get(row.key)):
        cells += [_percent(error.confidence), escape_cell(error.suggested), f"{100 * error.agreeing:.0f}"]
      elif self._errors is not None:
        cells += ["", "", ""]
      yield cells


def shown_image(model: str, row: Row) -> ShownImage:
  return ShownImage(model, row.key, row.actual, row.predicted, float(row.confidence))


def _order(row: Row) -> tuple[float, str]:
  return -float(row.confidence), row.key


def _by_digest(row: Row) -> tuple[float | str, str]:
  return row.sha256, row.key


def _keep(rows: list[Row], row: Row, limit: int, order: Callable[[Row], tuple[float | str, str]] = _order) -> None:
  """Adds a row; keeps the first `limit` ones and some more."""
  rows.append(row)
  if len(rows) == 2 * limit:
    rows.sort(key=order)
    del rows[limit:]
