"""The report's tables and galleries, as plain values for the templates.

Ids are built from positions in the label list, never from labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from beam_retrain.reporting.charts import heat_level
from beam_retrain.reporting.text_tables import lowest_f1
from beam_retrain.reporting.wording import count, counted, interval, percent, shortened
from beam_retrain.reporting.wording import images as number_of_images
from beam_retrain.transforms.core.metrics.figures import (
  ColumnSlices,
  Interval,
  LabelRow,
  ModelMetrics,
  PooledSlices,
  ShownImage,
  SliceFigures,
)
from beam_retrain.transforms.core.records.csv_format import escape_cell

MAX_MATRIX_LABELS = 40
MAX_ROWS = 100
MAX_SLICED_COLUMNS = 20
MAX_SLICES = 50
View = dict[str, Any]
"""Values for a template."""

_THUMBNAIL_BUDGET = 7_000_000  # characters
_SCALES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Labels:
  """The label list; finds labels as they are and as CSV cells."""

  def __init__(self, names: Sequence[str]):
    self.names = list(names)
    spelled = {escape_cell(name): place for place, name in enumerate(names)}
    self._places = {**spelled, **{name: place for place, name in enumerate(names)}}

  def __contains__(self, label: str) -> bool:
    return label in self._places

  def place(self, label: str) -> int:
    return self._places[label]


def label_table(model: ModelMetrics, candidate: ModelMetrics | None, matrix: Matrix) -> View:
  """Returns the table of labels, or of those with the lowest F1."""
  labels = Labels(model.labels)
  shown = sorted(lowest_f1(model.rows, MAX_ROWS), key=lambda row: labels.place(row.label))
  others = {row.label: row for row in candidate.rows} if candidate else {}
  all_rows = [*shown, *(others[row.label] for row in shown if candidate)]
  scale = _scale([rate for row in all_rows for rate in (row.recall, row.precision)])
  return {
    "left_out": len(model.rows) - len(shown),
    "scale": percent(scale, 0),
    "rows": [
      {
        "label": shortened(row.label),
        "support": count(row.support),
        "correct": count(row.correct),
        "recall": _rate(row.recall, row.recall_interval, scale),
        "precision": _rate(row.precision, row.precision_interval, scale),
        "f1": percent(row.f1),
        "candidate": _rate(others[row.label].recall, others[row.label].recall_interval, scale) if candidate else None,
        "confused": _confused(row, labels, matrix),
      }
      for row in shown
    ],
  }


def _scale(rates: Sequence[float | None]) -> float:
  """Returns the error rate, 0..1, of a bar's full width."""
  most = max((1 - rate for rate in rates if rate is not None), default=0.0)
  return next(scale for scale in _SCALES if scale >= min(1.25 * most, 1.0))


def _rate(rate: float | None, bounds: Interval | None, scale: float) -> View:
  """Returns a rate as text, with a bar of its complement."""
  if rate is None:
    return {"text": percent(None), "interval": "", "bar": None, "whisker": None}

  def width(wrong: float) -> float:
    return round(100 * min(wrong / scale, 1.0), 2)

  whisker = None if bounds is None else (width(1 - bounds[1]), width(1 - bounds[0]))
  return {
    "text": percent(rate),
    "interval": "" if bounds is None else interval(bounds),
    "bar": width(1 - rate),
    "whisker": None if whisker is None else (whisker[0], round(whisker[1] - whisker[0], 2)),
  }


def _confused(row: LabelRow, labels: Labels, matrix: Matrix) -> View | None:
  other = row.most_confused_with
  if not other:
    return None
  cell = (labels.place(row.label), labels.place(other))
  target = cell_id(matrix.prefix, cell) if cell in matrix.cells else None
  return {"label": shortened(other), "count": count(row.most_confused_count), "target": target}


@dataclasses.dataclass(frozen=True)
class Matrix:
  """A confusion matrix as shown on the page.

  Attributes:
    prefix: of the ids of its cells' image groups.
    long: whether any label is too long to stand upright above a column.
    left_out: number of labels not shown.
    mistakes: number of mistakes between the labels shown; empty if none.
    cells: (actual, predicted) -> images, for mistakes with an image group.
  """

  prefix: str
  labels: list[str]
  long: bool
  left_out: int
  mistakes: str
  cells: Mapping[tuple[int, int], int]
  legend: list[View]
  rows: list[View]


def cell_id(prefix: str, cell: tuple[int, int]) -> str:
  return f"{prefix}-{cell[0]}-{cell[1]}"


def confusion(model: ModelMetrics, prefix: str, linked: bool = True) -> Matrix:
  """Returns the confusion matrix, or that of the labels with most mistakes.

  `linked`: whether its cells have image groups.
  """
  names, table = model.labels, model.confusion
  shown = list(range(len(names)))
  if len(names) > MAX_MATRIX_LABELS:
    columns = [sum(column) for column in zip(*table, strict=True)]
    wrong = [sum(row) + columns[place] - 2 * row[place] for place, row in enumerate(table)]
    shown = sorted(sorted(shown, key=lambda place: (-wrong[place], place))[:MAX_MATRIX_LABELS])
  mistakes = {(i, j): table[i][j] for i in shown for j in shown if i != j and table[i][j]}
  most = max(mistakes.values(), default=0)
  return Matrix(
    prefix=prefix,
    labels=[shortened(names[place]) for place in shown],
    long=any(len(names[place]) > 3 for place in shown),
    left_out=len(names) - len(shown),
    mistakes=count(sum(mistakes.values())) if mistakes else "",
    cells=mistakes if linked else {},
    legend=_legend(most),
    rows=[
      {
        "label": shortened(names[i]),
        "cells": [_cell(table[i][j], (i, j), names, most, prefix if linked else None) for j in shown],
        "support": count(sum(table[i])),
      }
      for i in shown
    ],
  )


def _cell(number: int, cell: tuple[int, int], names: Sequence[str], most: int, prefix: str | None) -> View:
  actual, predicted = cell
  if actual == predicted:
    return {"right": True, "text": count(number) if number else "", "level": 0, "target": None, "name": ""}
  name = f"{shortened(names[actual])} taken for {shortened(names[predicted])}: {number_of_images(number)}"
  target = cell_id(prefix, cell) if number and prefix else None
  return {
    "right": False,
    "text": count(number) if number else "",
    "level": heat_level(number, most),
    "target": target,
    "name": name,
  }


def _legend(most: int) -> list[View]:
  numbers = sorted({1, most // 9, most // 3, most} - {0}) if most else []
  return [{"level": heat_level(number, most), "number": count(number)} for number in numbers]


class Gallery:
  """Prepares images for the page, within a size budget."""

  def __init__(self, labels: Labels):
    self._labels = labels
    self._room = _THUMBNAIL_BUDGET

  def shown(self, images: Sequence[ShownImage]) -> list[View]:
    return list(map(self._shown, images))

  def _shown(self, image: ShownImage) -> View:
    thumbnail = image.thumbnail or ""
    usable = thumbnail.startswith("data:image/") and len(thumbnail) <= self._room
    self._room -= len(thumbnail) if usable else 0
    before = image.baseline_confidence
    return {
      "thumbnail": thumbnail if usable else None,
      # Small images are PNG; sharp pixels show more than blurred ones.
      "tiny": thumbnail.startswith("data:image/png"),
      "edited": image.edited,
      "key": shortened(image.key),
      "actual": shortened(image.actual),
      "predicted": shortened(image.predicted),
      "confidence": percent(image.confidence / 100, 1),
      "baseline": shortened(image.baseline_predicted or ""),
      "baseline_confidence": "" if before is None else percent(before / 100, 1),
    }

  def mistakes(self, images: Sequence[ShownImage], model: ModelMetrics, matrix: Matrix) -> list[View]:
    """Returns image groups by label, then by predicted label.

    Each mistake in the matrix has a group, possibly empty, as the target of its cell's link. Labels not in the
    label list come last.
    """
    used = {label for image in images for label in (image.actual, image.predicted)}
    labels = Labels([*self._labels.names, *sorted(label for label in used if label not in self._labels)])
    table = model.confusion
    groups: dict[tuple[int, int], list[ShownImage]] = {cell: [] for cell in matrix.cells}
    for image in images:
      groups.setdefault((labels.place(image.actual), labels.place(image.predicted)), []).append(image)
    by_label: dict[int, list[tuple[int, int]]] = {}
    for cell in sorted(groups):
      by_label.setdefault(cell[0], []).append(cell)
    return [
      {
        "label": shortened(labels.names[actual]),
        "wrong": count(sum(table[actual]) - table[actual][actual]) if actual < len(table) else "",
        "support": count(sum(table[actual])) if actual < len(table) else "",
        "groups": list(self._groups(cells, groups, table, labels, matrix.prefix)),
      }
      for actual, cells in by_label.items()
    ]

  def _groups(
    self,
    cells: Sequence[tuple[int, int]],
    groups: Mapping[tuple[int, int], Sequence[ShownImage]],
    table: Sequence[Sequence[int]],
    labels: Labels,
    prefix: str,
  ) -> Iterator[View]:
    size = len(table)
    numbers = {cell: table[cell[0]][cell[1]] if max(cell) < size else len(groups[cell]) for cell in cells}
    # Groups with images first: the others take one line each.
    for cell in sorted(cells, key=lambda cell: (not groups[cell], -numbers[cell], cell)):
      surest_first = sorted(groups[cell], key=lambda image: (-image.confidence, image.key))
      yield {
        "id": cell_id(prefix, cell),
        "predicted": shortened(labels.names[cell[1]]),
        "number": number_of_images(numbers[cell]),
        "shown": count(len(surest_first)) if len(surest_first) < numbers[cell] else "",
        "images": self.shown(surest_first),
      }


def slice_tables(slices: Mapping[str, ColumnSlices]) -> list[View]:
  """Returns a table per manifest column, the lowest accuracy first."""
  return [_slice_table(column, column_slices) for column, column_slices in list(slices.items())[:MAX_SLICED_COLUMNS]]


def _slice_table(column: str, column_slices: ColumnSlices) -> View:
  rows = sorted(column_slices.values.items(), key=lambda entry: (entry[1].accuracy, entry[0]))
  others: list[tuple[str, SliceFigures | PooledSlices]] = []
  if small := column_slices.small:
    slices, images = counted(small.slices, "slice"), number_of_images(small.fewer_than)
    others.append((f"{slices} of fewer than {images}", small))
  if column_slices.unlisted:
    others.append(("not in the manifest", column_slices.unlisted))
  scale = _scale([figures.accuracy for _, figures in (*rows, *others)])
  return {
    "column": shortened(column),
    "scale": percent(scale, 0),
    "left_out": max(len(rows) - MAX_SLICES, 0),
    "rows": [_slice_row(value, figures, scale) for value, figures in rows[:MAX_SLICES]],
    "beside": [_slice_row(words, figures, scale) for words, figures in others],
  }


def _slice_row(name: str, figures: SliceFigures | PooledSlices, scale: float) -> View:
  return {
    "value": shortened(name),
    "images": count(figures.images),
    "correct": count(figures.correct),
    "accuracy": _rate(figures.accuracy, figures.interval, scale),
  }
