"""The rows, cells and images that the report shows.

Ids are built from positions in the label list, never from labels.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from beam_retrain.reporting.text_tables import lowest_f1
from beam_retrain.reporting.wording import counted
from beam_retrain.transforms.core.metrics.figures import (
  ColumnSlices,
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
HEAT_LEVELS = 10  # of a cell of the confusion matrix; the lowest means none
_THUMBNAIL_BUDGET = 7_000_000  # characters
_SCALES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

Cell = tuple[int, int]
"""Actual and predicted label of a mistake, as positions in the label list."""


def label_positions(labels: Sequence[str]) -> dict[str, int]:
  """Returns label -> position, also by its CSV cell."""
  places = {label: place for place, label in enumerate(labels)}
  return {**{escape_cell(label): place for label, place in places.items()}, **places}


class LabelTable(NamedTuple):
  """Rows (model's, candidate's) of all labels or the lowest F1."""

  rows: Sequence[tuple[LabelRow, LabelRow | None]]
  scale: float


def label_table(model: ModelMetrics, candidate: ModelMetrics | None) -> LabelTable:
  shown = set(lowest_f1(model.rows, MAX_ROWS))
  others = {row.label: row for row in candidate.rows} if candidate else {}
  rows = [(row, others.get(row.label)) for row in model.rows if row in shown]
  return LabelTable(rows, _scale(rate for pair in rows for row in pair if row for rate in (row.recall, row.precision)))


def _scale(rates: Iterable[float | None]) -> float:
  """Returns the error rate, 0..1, of a bar's full width."""
  most = max((1 - rate for rate in rates if rate is not None), default=0.0)
  return next(scale for scale in _SCALES if scale >= min(1.25 * most, 1.0))


class Matrix(NamedTuple):
  """A confusion matrix, or that of the labels with most mistakes.

  Attributes:
    prefix: of the ids of its cells' image groups.
    shown: positions of the labels.
    mistakes: images of the mistakes between these labels.
    linked: whether the mistakes have image groups.
  """

  prefix: str
  labels: Sequence[str]
  shown: Sequence[int]
  mistakes: Mapping[Cell, int]
  linked: bool

  @property
  def most(self) -> int:
    return max(self.mistakes.values(), default=0)

  @property
  def has_long_labels(self) -> bool:
    """Whether any label is too long to stand upright above a column."""
    return any(len(self.labels[place]) > 3 for place in self.shown)

  @property
  def legend(self) -> list[int]:
    return sorted({1, self.most // 9, self.most // 3, self.most} - {0}) if self.most else []

  def link(self, actual: str, predicted: str) -> str | None:
    """Returns the id of a mistake's image group, if it has one."""
    cell = self.labels.index(actual), self.labels.index(predicted)
    return self.group_id(cell) if self.linked and cell in self.mistakes else None

  def group_id(self, cell: Cell) -> str:
    return f"{self.prefix}-{cell[0]}-{cell[1]}"


def heat_colours() -> list[tuple[str, str]]:
  """Returns (background, text) colours of each level, as `#rrggbb`.

  Backgrounds are cividis; the text is black or white, whichever contrasts more. J. R. Nuñez, C. R. Anderton,
  R. S. Renslow, "Optimizing colormaps with consideration for color vision deficiency to enable accurate interpretation
  of scientific data", PLoS ONE 13 (2018).
  """
  from matplotlib import colormaps
  from matplotlib.colors import to_hex

  backgrounds = [colormaps["cividis"](level / (HEAT_LEVELS - 1)) for level in range(HEAT_LEVELS)]
  # Black and white contrast equally with a luminance of 0.1791.
  texts = ["#000000" if luminance(colour[:3]) > 0.1791 else "#ffffff" for colour in backgrounds]
  return [(to_hex(background), text) for background, text in zip(backgrounds, texts, strict=True)]


def luminance(colour: Sequence[float]) -> float:
  """Returns the relative luminance, 0..1, of an sRGB colour (WCAG 2.2)."""
  linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in colour]
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def heat_level(number: int, most: int) -> int:
  """Returns a cell's level, by the square root of its images."""
  if not number:
    return 0
  return max(1, round((HEAT_LEVELS - 1) * math.sqrt(number / max(most, number, 5))))


def confusion(model: ModelMetrics, prefix: str, linked: bool) -> Matrix:
  table = model.confusion
  shown = list(range(len(model.rows)))
  if len(shown) > MAX_MATRIX_LABELS:
    columns = [sum(column) for column in zip(*table, strict=True)]
    wrong = [sum(row) + columns[place] - 2 * row[place] for place, row in enumerate(table)]
    shown = sorted(sorted(shown, key=lambda place: (-wrong[place], place))[:MAX_MATRIX_LABELS])
  mistakes = {(i, j): table[i][j] for i in shown for j in shown if i != j and table[i][j]}
  return Matrix(prefix, model.labels, shown, mistakes, linked)


class MistakeGroup(NamedTuple):
  """Images of one mistake, most confident first; `number` counts all."""

  cell: Cell
  predicted: str
  number: int
  images: Sequence[ShownImage]


class LabelMistakes(NamedTuple):
  """Mistakes of one label; unknown labels have an empty `table_row`."""

  label: str
  position: int
  table_row: Sequence[int]
  groups: Sequence[MistakeGroup]


def mistakes_by_label(images: Sequence[ShownImage], model: ModelMetrics, matrix: Matrix) -> list[LabelMistakes]:
  """Groups images by label and predicted label.

  Each mistake in the matrix has a group, possibly empty, as the target of its cell's link. Labels not in the label
  list come last.
  """
  used = {label for image in images for label in (image.actual, image.predicted)}
  labels = [*model.labels, *sorted(used - label_positions(model.labels).keys())]
  positions, table = label_positions(labels), model.confusion
  shown: dict[Cell, list[ShownImage]] = {cell: [] for cell in matrix.mistakes} if matrix.linked else {}
  for image in images:
    shown.setdefault((positions[image.actual], positions[image.predicted]), []).append(image)
  by_label = []
  for actual, cells in itertools.groupby(sorted(shown), key=operator.itemgetter(0)):
    row = table[actual] if actual < len(table) else ()
    groups = [
      MistakeGroup(
        (actual, predicted),
        labels[predicted],
        row[predicted] if predicted < len(row) else len(shown[actual, predicted]),
        surest_first(shown[actual, predicted]),
      )
      for _, predicted in cells
    ]
    # Groups with images first: the others take one line each.
    groups.sort(key=lambda group: (not group.images, -group.number, group.cell))
    by_label.append(LabelMistakes(labels[actual], actual, row, groups))
  return by_label


def surest_first(images: Iterable[ShownImage]) -> list[ShownImage]:
  return sorted(images, key=lambda image: (-image.confidence, image.key))


class ThumbnailBudget:
  """Leaves out the thumbnails that would make the page too large."""

  def __init__(self) -> None:
    self._left = _THUMBNAIL_BUDGET

  def fit(self, images: Iterable[ShownImage]) -> list[ShownImage]:
    return list(map(self._fit, images))

  def _fit(self, image: ShownImage) -> ShownImage:
    thumbnail = image.thumbnail or ""
    if not thumbnail.startswith("data:image/") or len(thumbnail) > self._left:
      return dataclasses.replace(image, thumbnail=None)
    self._left -= len(thumbnail)
    return image


class SliceTable(NamedTuple):
  """Slices of a column, lowest accuracy first; `others`: pooled and unlisted."""

  scale: float
  rows: Sequence[tuple[str, SliceFigures]]
  others: Sequence[tuple[str, SliceFigures | PooledSlices]]


def slice_table(slices: ColumnSlices) -> SliceTable:
  rows = sorted(slices.values.items(), key=lambda entry: (entry[1].accuracy, entry[0]))
  others: list[tuple[str, SliceFigures | PooledSlices]] = []
  if small := slices.small:
    others.append((f"{counted(small.slices, 'slice')} of fewer than {counted(small.fewer_than, 'image')}", small))
  if slices.unlisted:
    others.append(("not in the manifest", slices.unlisted))
  return SliceTable(_scale(figures.accuracy for _, figures in (*rows, *others)), rows, others)
