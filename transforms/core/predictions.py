"""The article's CSV: one line per evaluated picture. Plain functions, no Beam, no TensorFlow.

| column                               | what                                                                          |
|--------------------------------------|-------------------------------------------------------------------------------|
| file_name                            | the picture's key                                                             |
| actual_digit, predicted_digit        | label names                                                                   |
| confidence                           | the model's score of the predicted label, percent, four decimals              |
| prediction_accuracy                  | `True` where the two names are the same, else `False`                         |
| Execution time                       | the job's start as `time.ctime()` writes it, the same in every line           |
| second_digit, second_confidence      | the label with the second highest score; empty where the model has one label  |
| third_digit, third_confidence        | likewise the third                                                            |
| margin                               | confidence - second_confidence, percent: near 0 where the model hesitated     |
| sha256                               | of the picture's own bytes, 64 hex digits                                     |
| split                                | the input's part that the picture is in: `training`, `testing`, or `all`      |

A shard's lines are made without the execution time: a run that goes on where a killed one was has another start.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from transforms.core.csv_cells import escape_cell
from transforms.core.label_stats import TOP, Outcome

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
_EXECUTION_TIME_AT = COLUMNS.index(EXECUTION_TIME)


class Scored(NamedTuple):
  """One picture and its scores.

  Attributes:
    key: the picture's key.
    actual: its label.
    sha256: of its own bytes, 64 hex digits.
    scores: float32 [C], 0..1, in the order of the model's label list.
  """

  key: str
  actual: str
  sha256: str
  scores: np.ndarray


class Prediction(NamedTuple):
  """What the model said of one picture.

  Attributes:
    scored: the picture.
    top: up to `TOP` (label, score 0..1), the highest score first; of equal ones, the first in the label list.
    outcome: what is counted of it.
  """

  scored: Scored
  top: tuple[tuple[str, float], ...]
  outcome: Outcome


def predict(scored: Scored, labels: Sequence[str]) -> Prediction:
  """Reads a picture's scores; names are compared, not indices.

  Raises:
    ValueError: the picture's label is not in `labels`.
  """
  order = np.argsort(-scored.scores, kind="stable")
  actual = labels.index(scored.actual)
  top = tuple((labels[index], float(scored.scores[index])) for index in order[:TOP].tolist())
  predicted, confidence = top[0]
  rank = int(np.flatnonzero(order == actual)[0]) + 1
  return Prediction(scored, top, Outcome(scored.actual, predicted, confidence, float(scored.scores[actual]), rank))


def part_line(prediction: Prediction, split: str) -> bytes:
  """Returns the CSV line of one picture, UTF-8, without the execution time."""
  scored, outcome = prediction.scored, prediction.outcome
  (_, first), *others = prediction.top
  cells = [escape_cell(scored.key), escape_cell(outcome.actual), escape_cell(outcome.predicted), _percent(first)]
  cells.append(str(outcome.actual == outcome.predicted))
  for place in range(TOP - 1):
    label, score = others[place] if place < len(others) else ("", None)
    cells += [escape_cell(label), "" if score is None else _percent(score)]
  margin = _percent(first - others[0][1]) if others else ""
  return _line([*cells, margin, scored.sha256, split]).encode()


def predictions_lines(parts: Iterable[Iterable[str]], execution_time: str) -> Iterator[str]:
  """Yields the lines of the whole file, the header first, one at a time.

  Args:
    parts: the text lines of the shards' files, in the order of the shards.
    execution_time: the job's start as `time.ctime()` writes it.
  """
  yield _line(COLUMNS)
  for part in parts:
    for row in csv.reader(part):
      yield _line([*row[:_EXECUTION_TIME_AT], execution_time, *row[_EXECUTION_TIME_AT:]])


def _percent(score: float) -> str:
  return f"{100 * score:.4f}"


def _line(cells: Sequence[str]) -> str:
  text = io.StringIO()
  csv.writer(text, lineterminator="\n").writerow(cells)
  return text.getvalue()
