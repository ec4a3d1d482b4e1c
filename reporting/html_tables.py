"""The rows, cells and images that the report shows.

Ids are built from positions in the label list, never from labels.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from beam_retrain.reporting.text_tables import lowest_f1
from beam_retrain.reporting.wording import counted, places_for
from beam_retrain.transforms.core.metrics.figures import (
  MODEL,
  ColumnSlices,
  LabelRow,
  ModelMetrics,
  PooledSlices,
  ShownImage,
  SliceFigures,
)
from beam_retrain.transforms.core.records.csv_format import escape_cell

if TYPE_CHECKING:
  from beam_retrain.transforms.core.metrics.embedding_map import EmbeddingMap, MapPoint  # not at run time: numpy

MAX_MATRIX_LABELS = 40
MAX_ROWS = 100
MAX_FREQUENT = 12
MAX_SLICED_COLUMNS = 20
MAX_SLICES = 50
HEAT_LEVELS = 10  # of a cell of the confusion matrix; the lowest means none
_THUMBNAIL_BUDGET = 6_500_000  # characters
MAP_PX = (640, 420)
_CHARACTER_PX, _LINE_PX = 14, 26  # of a label's name, on a phone

Cell = tuple[int, int]  # actual and predicted label of a mistake, as positions in the label list


def label_positions(labels: Sequence[str]) -> dict[str, int]:
  """Returns label -> position, also by its CSV cell."""
  places = {label: place for place, label in enumerate(labels)}
  return {**{escape_cell(label): place for label, place in places.items()}, **places}


class LabelTable(NamedTuple):
  rows: Sequence[tuple[LabelRow, LabelRow | None]]  # the model's and the candidate's, of all labels or the lowest F1
  counts: Mapping[str, Mapping[str, int]]  # split -> label -> images that the model was made from
  places: int  # decimals of the rates


def label_table(
  model: ModelMetrics, candidate: ModelMetrics | None, counts: Mapping[str, Mapping[str, int]]
) -> LabelTable:
  shown = set(lowest_f1(model.rows, MAX_ROWS))
  others = {row.label: row for row in candidate.rows} if candidate else {}
  rows = [(row, others.get(row.label)) for row in model.rows if row in shown]
  known = {split: counts[split] for split in ("training", "validation") if any(counts.get(split, {}).values())}
  return LabelTable(rows, known, places_for(model.total / max(len(model.rows), 1)))


class Matrix(NamedTuple):
  """A confusion matrix, or that of the labels with most mistakes."""

  prefix: str  # of the ids of its cells' image groups
  labels: Sequence[str]
  shown: Sequence[int]  # positions of the labels
  mistakes: Mapping[Cell, int]  # images of the mistakes between these labels
  linked: bool  # whether the mistakes have image groups

  @property
  def most(self) -> int:
    return max(self.mistakes.values(), default=0)

  @property
  def frequent(self) -> list[tuple[Cell, int]]:
    """The mistakes made most often, the most frequent first."""
    return sorted(self.mistakes.items(), key=lambda entry: (-entry[1], entry[0]))[:MAX_FREQUENT]

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


def heat_colours(paper: str, most: str) -> list[tuple[str, str]]:
  """Returns (background, text) of each level, from `paper` to `most`, all `#rrggbb`.

  The text is black or white, whichever contrasts more.
  """
  ends = [[int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)] for colour in (paper, most)]
  levels = []
  for level in range(HEAT_LEVELS):
    share = level and 0.1 + 0.9 * level / (HEAT_LEVELS - 1)
    colour = [round(low + share * (high - low), 3) for low, high in zip(*ends, strict=True)]
    # Black and white contrast equally with a luminance of 0.1791.
    text = "#000000" if luminance(colour) > 0.1791 else "#ffffff"
    levels.append(("#" + "".join(f"{round(255 * value):02x}" for value in colour), text))
  return levels


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


class Picture(NamedTuple):
  """An image as the page shows it, with its figure's id."""

  id: str
  image: ShownImage


class Thumbnails:
  """Numbers images; leaves out thumbnails that would exceed the page's budget."""

  def __init__(self) -> None:
    self._left = _THUMBNAIL_BUDGET
    self._number = itertools.count(1)
    self.shown: dict[str, str] = {}  # key -> id of the first figure of the model that has a thumbnail

  def fit(self, images: Iterable[ShownImage]) -> list[Picture]:
    return list(map(self._fit, images))

  def _fit(self, image: ShownImage) -> Picture:
    thumbnail, name = image.thumbnail or "", f"i{next(self._number)}"
    if not thumbnail.startswith("data:image/") or len(thumbnail) > self._left:
      return Picture(name, dataclasses.replace(image, thumbnail=None))
    self._left -= len(thumbnail)
    if image.model == MODEL:
      self.shown.setdefault(image.key, name)
    return Picture(name, image)


class MistakeGroup(NamedTuple):
  """Images of one mistake, most confident first; `number` counts all."""

  cell: Cell
  predicted: str
  number: int
  pictures: Sequence[Picture]


class LabelMistakes(NamedTuple):
  """Images of one label; unknown labels have an empty `table_row`."""

  label: str
  position: int
  table_row: Sequence[int]
  right: Sequence[Picture]
  groups: Sequence[MistakeGroup]


def images_by_label(
  images: Sequence[ShownImage],
  right: Sequence[ShownImage],
  model: ModelMetrics,
  matrix: Matrix,
  thumbnails: Thumbnails,
) -> list[LabelMistakes]:
  """Groups images by label and predicted label.

  Each mistake in the matrix has a group, possibly empty, as the target of its cell's link. Labels not in the label
  list come last.
  """
  used = {label for image in (*images, *right) for label in (image.actual, image.predicted)}
  labels = [*model.labels, *sorted(used - label_positions(model.labels).keys())]
  positions, table = label_positions(labels), model.confusion
  shown: dict[int, dict[int, list[ShownImage]]] = defaultdict(lambda: defaultdict(list))
  for actual, predicted in matrix.mistakes if matrix.linked else ():
    _ = shown[actual][predicted]
  for image in (*images, *right):
    shown[positions[image.actual]][positions[image.predicted]].append(image)
  by_label = []
  for actual, of_label in sorted(shown.items()):
    row = table[actual] if actual < len(table) else ()
    groups = [
      MistakeGroup(
        (actual, predicted),
        labels[predicted],
        row[predicted] if predicted < len(row) else len(chosen),
        thumbnails.fit(surest_first(chosen)),
      )
      for predicted, chosen in of_label.items()
      if predicted != actual
    ]
    # Groups with images first: the others take one line each.
    groups.sort(key=lambda group: (not group.pictures, -group.number, group.cell))
    by_label.append(LabelMistakes(labels[actual], actual, row, thumbnails.fit(of_label.get(actual, ())), groups))
  return by_label


def surest_first(images: Iterable[ShownImage]) -> list[ShownImage]:
  return sorted(images, key=lambda image: (-image.confidence, image.key))


class Place(NamedTuple):
  """A point of the map; `id` of its figure, or empty."""

  x: int
  y: int
  point: MapPoint
  wrong: bool
  id: str


class LabelPlaces(NamedTuple):
  """A label's points; `x` of its name is None without room."""

  label: str
  x: int | None
  y: int
  places: Sequence[Place]


def places_of(embedding_map: EmbeddingMap, labels: Sequence[str], thumbnails: Thumbnails) -> list[LabelPlaces]:
  """Returns the map's points by label, those with most first."""
  positions = label_positions(labels)
  by_label: dict[int, list[Place]] = defaultdict(list)
  for point in embedding_map.points:
    x, y = round(12 + point.x * (MAP_PX[0] - 24)), round(12 + (1 - point.y) * (MAP_PX[1] - 24))
    name = thumbnails.shown.get(point.key, "")
    by_label[positions[point.actual]].append(Place(x, y, point, point.actual != point.predicted, name))
  found: list[LabelPlaces] = []
  named: list[tuple[int, int, int]] = []
  for place, of in sorted(by_label.items(), key=lambda entry: (-len(entry[1]), entry[0])):
    half = _CHARACTER_PX * len(labels[place]) // 2
    x = min(max(int(median(one.x for one in of)), half), MAP_PX[0] - half)
    y = int(median(one.y for one in of))
    has_room = x >= half and all(abs(x - at) > half + other or abs(y - line) > _LINE_PX for at, line, other in named)
    named += [(x, y, half)] * has_room
    found.append(LabelPlaces(labels[place], x if has_room else None, y, of))
  return found


class SliceTable(NamedTuple):
  """Slices of a column, lowest accuracy first; `others`: pooled and unlisted."""

  places: int
  rows: Sequence[tuple[str, SliceFigures]]
  others: Sequence[tuple[str, SliceFigures | PooledSlices]]


def slice_table(slices: ColumnSlices) -> SliceTable:
  rows = sorted(slices.values.items(), key=lambda entry: (entry[1].accuracy, entry[0]))
  others: list[tuple[str, SliceFigures | PooledSlices]] = []
  if small := slices.small:
    others.append((f"{counted(small.slices, 'slice')} of fewer than {counted(small.fewer_than, 'image')}", small))
  if slices.unlisted:
    others.append(("not in the manifest", slices.unlisted))
  images = [figures.images for _, figures in (*rows, *others)]
  return SliceTable(places_for(sum(images) / max(len(images), 1)), rows, others)
