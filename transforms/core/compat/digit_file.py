"""The CSV file of `label_imageV3.py`, with its columns and line ends.

| column              | content                                                                      |
|---------------------|------------------------------------------------------------------------------|
| file_name           | the image's path as the user typed it                                        |
| actual_digit        | the label that the name of its folder stands for, else that name, normalised |
| predicted_digit     | the label with the highest score                                             |
| confidence          | that score, percent                                                          |
| prediction_accuracy | `True` if the two labels are the same, else `False`                          |
| Execution time      | the job's start as written by `time.ctime()`, the same in every line         |

Unlike the script, which compared class indices with folder names, right for digits only, this compares names.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.labels import normalise
from beam_retrain.transforms.core.records.csv_format import csv_line, escape_cell

FILE_NAME = "digit_prediction_file.csv"
QUARANTINE_NAME = "digit_prediction_file_quarantine.csv"
_LINE_END = "\r\n"  # as in the script's file
HEADER = f"file_name,actual_digit,predicted_digit,confidence,prediction_accuracy,Execution time{_LINE_END}"


class Answer(NamedTuple):
  """The predicted label and its score, 0..100."""

  label: str
  percent: float


def parse_labels(data: bytes, path: str) -> list[str]:
  """Returns the labels; raises InputError if there are none, or no text."""
  try:
    labels = [normalise(line) for line in data.decode("utf-8-sig").splitlines()]
  except UnicodeDecodeError as error:
    raise InputError(f"{path} is not UTF-8 text: give a file with one label per line as --labels.") from error
  while labels and not labels[-1]:
    labels.pop()
  if not labels:
    raise InputError(f"{path} is empty: give a file with one label per line as --labels.")
  return labels


def check_labels(labels: Sequence[str], classes: int, *, labels_path: str, graph_path: str, output_layer: str) -> None:
  """Raises InputError unless there is one label per score."""
  if len(labels) != classes:
    raise InputError(
      f"{labels_path} has {len(labels)} labels, but {output_layer} of {graph_path} gives {classes} scores per image:"
      " give the labels that were written with the graph as --labels, or another --output_layer."
    )


def best(scores: np.ndarray, labels: Sequence[str]) -> Answer:
  """Returns the first label with the highest score; `scores` is [C]."""
  index = int(np.argmax(scores))
  return Answer(labels[index], 100 * float(scores[index]))


def single_line(file_name: str, answer: Answer) -> str:
  """Returns the line for a single image: path, label, percent."""
  return _csv_line([escape_cell(file_name), escape_cell(answer.label), answer.percent])


def part_line(file_name: str, actual: str, answer: Answer) -> str:
  """Returns an image's line without the time, which a resumed run changes."""
  return _csv_line(
    [escape_cell(file_name), escape_cell(actual), escape_cell(answer.label), answer.percent, actual == answer.label]
  )


def whole_lines(part: Iterable[str], execution_time: str) -> Iterator[str]:
  """Adds the execution time to lines of `part_line`, read with `newline=""`."""
  return (_csv_line([*cells, execution_time]) for cells in csv.reader(part))


def _csv_line(cells: Iterable[object]) -> str:
  return csv_line(cells, end=_LINE_END)
