"""The CSV of `label_imageV3.py`, as that script wrote it: names, columns, line ends. No Beam, no TensorFlow.

| column              | what                                                                                      |
|---------------------|-------------------------------------------------------------------------------------------|
| file_name           | the image's path as it was asked for                                                    |
| actual_digit        | the name of the folder that it lies in, as the label that it stands for is spelled        |
| predicted_digit     | the label with the highest score                                                          |
| confidence          | that score, percent                                                                       |
| prediction_accuracy | `True` where the two are the same, else `False`                                           |
| Execution time      | the job's start as `time.ctime()` writes it, the same in every line                       |

The script wrote the class index for the label, and compared the index with the folder's name: the same thing for the
digits, which it was made for, and never true of other labels. Here both are names.
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
  """What the graph takes a image for: `percent` is 0..100."""

  label: str
  percent: float


def parse_labels(data: bytes, path: str) -> list[str]:
  """Returns class index -> label: one line each.

  Raises:
    InputError: it is not text, or empty.
  """
  try:
    labels = [line.rstrip() for line in data.decode("utf-8-sig").splitlines()]
  except UnicodeDecodeError as error:
    raise InputError(f"{path} is not a text file in UTF-8: give the file of labels as --labels, one a line.") from error
  while labels and not labels[-1]:
    labels.pop()
  if not labels:
    raise InputError(f"{path} is empty: give the file of labels as --labels, one a line.")
  return labels


def check_labels(labels: Sequence[str], classes: int, *, labels_path: str, graph_path: str, output_layer: str) -> None:
  """Checks that there is one label for each score.

  Raises:
    InputError: there is not.
  """
  if len(labels) != classes:
    raise InputError(
      f"{labels_path} has {len(labels)} labels, but {output_layer} of {graph_path} gives {classes} numbers per image:"
      " give the labels that were written with the graph as --labels, or another --output_layer."
    )


def normalised(name: str) -> str:
  """Returns a folder's name as `retrain.py` and `label_imageV3.py` made a label of it."""
  return re.sub(r"[^a-z0-9]+", " ", name.lower())


class ActualLabels:
  """Finds the label that a folder's name stands for.

  `retrain.py` wrote its labels normalised, `beam-retrain train` writes them as the folders are called. Spaces at the
  ends do not count: a folder `Roses!` had the label `roses `, and the labels are read without what a line ends with.
  """

  def __init__(self, labels: Iterable[str]):
    self._exact = frozenset(labels)
    self._normalised: dict[str, str] = {}
    for label in labels:
      self._normalised.setdefault(normalised(label).strip(), label)

  def find(self, folder: str) -> str | None:
    """Returns the label; None where there is none for this folder."""
    return folder if folder in self._exact else self._normalised.get(normalised(folder).strip())


def best(scores: np.ndarray, labels: Sequence[str]) -> Answer:
  """Returns the label with the highest score, of equal ones the first.

  Args:
    scores: [C].
    labels: class index -> label, C of them.
  """
  index = int(np.argmax(scores))
  return Answer(labels[index], 100 * float(scores[index]))


def single_line(file_name: str, answer: Answer) -> str:
  """Returns the one line for a single image: its path, label and percent, without a header."""
  return _csv_line([escape_cell(file_name), escape_cell(answer.label), answer.percent])


def part_line(file_name: str, actual: str, answer: Answer) -> str:
  """Returns a image's line without the execution time: a run that goes on where a killed one was has another."""
  return _csv_line(
    [escape_cell(file_name), escape_cell(actual), escape_cell(answer.label), answer.percent, actual == answer.label]
  )


def header() -> str:
  return _csv_line(COLUMNS)


def whole_lines(part: Iterable[str], execution_time: str) -> Iterator[str]:
  """Yields the lines of the whole file for those of a part.

  Args:
    part: lines that `part_line` made, read with `newline=""`.
    execution_time: the job's start as `time.ctime()` writes it.
  """
  for cells in csv.reader(part):
    yield _csv_line([*cells, execution_time])


def _csv_line(cells: Iterable[object]) -> str:
  return csv_line(cells, end="\r\n")  # as the script's file has them
