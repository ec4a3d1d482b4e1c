"""The CSV file of `label_imageV3.py`, with its columns and line ends.

| column              | content                                                                      |
|---------------------|------------------------------------------------------------------------------|
| file_name           | the image's path as given                                                    |
| actual_digit        | the label that the name of its folder stands for, else that name, normalised |
| predicted_digit     | the label with the highest score                                             |
| confidence          | that score, percent                                                          |
| prediction_accuracy | `True` if the two labels are the same, else `False`                          |
| Execution time      | the job's start as written by `time.ctime()`, the same in every line         |

The script wrote class indices for labels and compared them with folder names, which is right only for the digits it was
made for. Here both are names.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.csv_format import csv_line, escape_cell

FILE_NAME = "digit_prediction_file.csv"
QUARANTINE_NAME = "digit_prediction_file_quarantine.csv"
COLUMNS = ("file_name", "actual_digit", "predicted_digit", "confidence", "prediction_accuracy", "Execution time")


class Answer(NamedTuple):
  """The predicted label, and its score in percent, 0..100."""

  label: str
  percent: float


def parse_labels(data: bytes, path: str) -> list[str]:
  """Returns class index -> label; raises InputError if empty or not text."""
  try:
    labels = [line.rstrip() for line in data.decode("utf-8-sig").splitlines()]
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


def normalised(name: str) -> str:
  """Returns the label that `retrain.py` made of a folder's name."""
  return re.sub(r"[^a-z0-9]+", " ", name.lower())


class ActualLabels:
  """Maps folder names to labels.

  `retrain.py` normalised its labels, `beam-retrain train` keeps the folders' names. Spaces at the ends are ignored: a
  folder `Roses!` had the label `roses `, which is read without its line end.
  """

  def __init__(self, labels: Iterable[str]):
    self._exact = frozenset(labels)
    self._normalised: dict[str, str] = {}
    for label in labels:
      self._normalised.setdefault(normalised(label).strip(), label)

  def find(self, folder: str) -> str | None:
    """Returns the label of a folder, or None."""
    return folder if folder in self._exact else self._normalised.get(normalised(folder).strip())


def best(scores: np.ndarray, labels: Sequence[str]) -> Answer:
  """Returns the first label with the highest score; `scores` is [C]."""
  index = int(np.argmax(scores))
  return Answer(labels[index], 100 * float(scores[index]))


def single_line(file_name: str, answer: Answer) -> str:
  """Returns the line for a single image: path, label, percent."""
  return _csv_line([escape_cell(file_name), escape_cell(answer.label), answer.percent])


def part_line(file_name: str, actual: str, answer: Answer) -> str:
  """Returns an image's line without the execution time.

  A resumed run has another execution time.
  """
  return _csv_line(
    [escape_cell(file_name), escape_cell(actual), escape_cell(answer.label), answer.percent, actual == answer.label]
  )


def header() -> str:
  return _csv_line(COLUMNS)


def whole_lines(part: Iterable[str], execution_time: str) -> Iterator[str]:
  """Adds the execution time to lines of `part_line`, read with `newline=""`."""
  for cells in csv.reader(part):
    yield _csv_line([*cells, execution_time])


def _csv_line(cells: Iterable[object]) -> str:
  return csv_line(cells, end="\r\n")  # as the script's file has them
