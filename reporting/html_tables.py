"""What the report's tables and its gallery hold: labels, confusion matrix, images. Plain values for the templates.

Ids are made of the places of labels in the label list, never of the labels themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from beam_retrain.reporting.charts import heat_level
from beam_retrain.reporting.wording import count, counted, interval, percent, shortened
from beam_retrain.reporting.wording import images as number_of_images
from beam_retrain.transforms.core.records.csv_cells import escape_cell

MAX_MATRIX_LABELS = 40
MAX_ROWS = 100
MAX_SLICED_COLUMNS = 20
MAX_SLICES = 50
_THUMBNAIL_BUDGET = 7_000_000  # characters
_SCALES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Labels:
  """The label list, and the place of each label in it, however the cells of a CSV spell it."""

  def __init__(self, names: Sequence[str]):
    self.names = list(names)
    spelled = {escape_cell(name): place for place, name in enumerate(names)}
    self._places = {**spelled, **{name: place for place, name in enumerate(names)}}

  def __contains__(self, label: str) -> bool:
    return label in self._places

  def place(self, label: str) -> int:
    """Returns where a label stands.

    Raises:
      KeyError: it is not in the list.
    """
    return self._places[label]


def label_table(metrics: Mapping[str, Any], candidate: Mapping[str, Any] | None, matrix: Mapping[str, Any]) -> dict:
  """Returns the rows of the table of labels, in their order; of very many, those with the lowest F1."""
  per_label, labels = metrics["per_label"], Labels(metrics["labels"])
  shown = labels.names
  if len(shown) > MAX_ROWS:
    worst = sorted(shown, key=lambda label: (per_label[label]["f1"] is None, per_label[label]["f1"]))[:MAX_ROWS]
    shown = sorted(worst, key=labels.place)
  rows = [per_label[label] for label in shown]
  rows += [] if candidate is None else [candidate["per_label"][label] for label in shown]
  scale = _scale([row[kind] for row in rows for kind in ("recall", "precision")])
  return {
    "left_out": len(labels.names) - len(shown),
    "scale": percent(scale, 0),
    "rows": [
      {
        "label": shortened(label),
        "support": count(row["support"]),
        "correct": count(row["correct"]),
        "recall": _rate(row, "recall", scale),
        "precision": _rate(row, "precision", scale),
        "f1": percent(row["f1"]),
        "candidate": None if candidate is None else _rate(candidate["per_label"][label], "recall", scale),
        "confused": _confused(row, labels, labels.place(label), matrix),
      }
      for label, row in ((label, per_label[label]) for label in shown)
    ],
  }


def _scale(rates: Sequence[float | None]) -> float:
  """Returns how much wrong, 0..1, the full width of a bar stands for: round, and with some room beside the longest."""
  most = max((1 - rate for rate in rates if rate is not None), default=0.0)
  return next(scale for scale in _SCALES if scale >= min(1.25 * most, 1.0))


def _rate(row: Mapping[str, Any], kind: str, scale: float) -> dict[str, Any]:
  """Returns a rate in words, and the bar of what is missing to 100 %, in percent of the bar's full width."""
  rate, bounds = row[kind], row.get(f"{kind}_interval_95")
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


def _confused(row: Mapping[str, Any], labels: Labels, actual: int, matrix: Mapping[str, Any]) -> dict[str, Any] | None:
  other = row["most_confused_with"]
  if other is None:
    return None
  cell = (actual, labels.place(other))
  target = f"{matrix['prefix']}-{cell[0]}-{cell[1]}" if cell in matrix["cells"] else None
  return {"label": shortened(other), "count": count(row["most_confused_count"]), "target": target}


def confusion(metrics: Mapping[str, Any], prefix: str, linked: bool = True) -> dict[str, Any]:
  """Returns the confusion matrix: of many labels, those with the most mistakes, in their order.

  Args:
    metrics: with `labels` and `confusion_matrix`.
    prefix: what the ids of its cells' groups of images begin with.
    linked: whether there are such groups.
  """
  names, table = metrics["labels"], metrics["confusion_matrix"]
  shown = list(range(len(names)))
  if len(names) > MAX_MATRIX_LABELS:
    columns = [sum(column) for column in zip(*table, strict=True)]
    wrong = [sum(row) + columns[place] - 2 * row[place] for place, row in enumerate(table)]
    shown = sorted(sorted(shown, key=lambda place: (-wrong[place], place))[:MAX_MATRIX_LABELS])
  mistakes = {(i, j): table[i][j] for i in shown for j in shown if i != j and table[i][j]}
  most = max(mistakes.values(), default=0)
  return {
    "prefix": prefix,
    "labels": [shortened(names[place]) for place in shown],
    "long": any(len(names[place]) > 3 for place in shown),
    "left_out": len(names) - len(shown),
    "mistakes": count(sum(mistakes.values())) if mistakes else "",
    "cells": mistakes if linked else {},
    "legend": _legend(most),
    "rows": [
      {
        "label": shortened(names[i]),
        "cells": [_cell(table[i][j], (i, j), names, most, prefix if linked else None) for j in shown],
        "support": count(sum(table[i])),
      }
      for i in shown
    ],
  }


def _cell(number: int, cell: tuple[int, int], names: Sequence[str], most: int, prefix: str | None) -> dict[str, Any]:
  actual, predicted = cell
  if actual == predicted:
    return {"right": True, "text": count(number) if number else "", "level": 0, "target": None, "name": ""}
  name = f"{shortened(names[actual])} taken for {shortened(names[predicted])}: {number_of_images(number)}"
  target = f"{prefix}-{actual}-{predicted}" if number and prefix else None
  return {
    "right": False,
    "text": count(number) if number else "",
    "level": heat_level(number, most),
    "target": target,
    "name": name,
  }


def _legend(most: int) -> list[dict[str, Any]]:
  numbers = sorted({1, most // 9, most // 3, most} - {0}) if most else []
  return [{"level": heat_level(number, most), "number": count(number)} for number in numbers]


class Gallery:
  """Makes images fit for the page, and watches over how much room they take."""

  def __init__(self, labels: Labels):
    self._labels = labels
    self._room = _THUMBNAIL_BUDGET

  def shown(self, images: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [self._shown(image) for image in images]

  def _shown(self, image: Mapping[str, Any]) -> dict[str, Any]:
    thumbnail = image["thumbnail"] or ""
    usable = thumbnail.startswith("data:image/") and len(thumbnail) <= self._room
    self._room -= len(thumbnail) if usable else 0
    before = image.get("baseline_confidence")
    return {
      "thumbnail": thumbnail if usable else None,
      # Small ones are kept as PNG; a blown-up pixel says more than a blur.
      "tiny": thumbnail.startswith("data:image/png"),
      "edited": image.get("edited", False),
      "key": shortened(image["key"]),
      "actual": shortened(image["actual"]),
      "predicted": shortened(image["predicted"]),
      "confidence": percent(image["confidence"] / 100, 1),
      "baseline": shortened(image.get("baseline_predicted") or ""),
      "baseline_confidence": "" if before is None else percent(before / 100, 1),
    }

  def mistakes(
    self, images: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any], matrix: Mapping[str, Any]
  ) -> list[dict[str, Any]]:
    """Returns label by label its groups of images, one per label that they were taken for, the most frequent first.

    Every mistake that the matrix shows has a group, if an empty one, so that its cell leads somewhere. Labels that are
    not in the label list come after all others.
    """
    found = {image[kind] for image in images for kind in ("actual", "predicted")}
    labels = Labels([*self._labels.names, *sorted(label for label in found if label not in self._labels)])
    table = metrics["confusion_matrix"]
    groups: dict[tuple[int, int], list[Mapping[str, Any]]] = {cell: [] for cell in matrix["cells"]}
    for image in images:
      cell = (labels.place(image["actual"]), labels.place(image["predicted"]))
      groups.setdefault(cell, []).append(image)
    by_label: dict[int, list[tuple[int, int]]] = {}
    for cell in sorted(groups):
      by_label.setdefault(cell[0], []).append(cell)
    return [
      {
        "label": shortened(labels.names[actual]),
        "wrong": count(sum(table[actual]) - table[actual][actual]) if actual < len(table) else "",
        "support": count(sum(table[actual])) if actual < len(table) else "",
        "groups": list(self._groups(cells, groups, table, labels, matrix["prefix"])),
      }
      for actual, cells in by_label.items()
    ]

  def _groups(
    self,
    cells: Sequence[tuple[int, int]],
    groups: Mapping[tuple[int, int], Sequence[Mapping[str, Any]]],
    table: Sequence[Sequence[int]],
    labels: Labels,
    prefix: str,
  ) -> Iterator[dict[str, Any]]:
    size = len(table)
    numbers = {cell: table[cell[0]][cell[1]] if max(cell) < size else len(groups[cell]) for cell in cells}
    # Those with images first: the others are a line each, below.
    for cell in sorted(cells, key=lambda cell: (not groups[cell], -numbers[cell], cell)):
      worst_first = sorted(groups[cell], key=lambda image: (-image["confidence"], image["key"]))
      yield {
        "id": f"{prefix}-{cell[0]}-{cell[1]}",
        "predicted": shortened(labels.names[cell[1]]),
        "number": number_of_images(numbers[cell]),
        "shown": count(len(worst_first)) if len(worst_first) < numbers[cell] else "",
        "pictures": self.shown(worst_first),
      }


def slice_tables(slices: Mapping[str, Any], beside: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Returns a table per column of the manifest: the slices in order of their accuracy, the lowest first.

  Args:
    slices: column -> value -> figures.
    beside: column -> `{small, unlisted}`, see `slices.extract_slices_beside`; each has a row of its own.
  """
  return [
    _slice_table(column, found, beside.get(column, {})) for column, found in list(slices.items())[:MAX_SLICED_COLUMNS]
  ]


def _slice_table(column: str, found: Mapping[str, Any], beside: Mapping[str, Any]) -> dict[str, Any]:
  rows = sorted(found.items(), key=lambda entry: (entry[1]["accuracy"], entry[0]))
  small, unlisted = beside.get("small"), beside.get("unlisted")
  others = []
  if small:
    slices, images = counted(small["slices"], "slice"), number_of_images(small["fewer_than"])
    others.append((f"{slices} of fewer than {images}", small))
  if unlisted:
    others.append(("not in the manifest", unlisted))
  scale = _scale([row["accuracy"] for _, row in (*rows, *others)])
  return {
    "column": shortened(column),
    "scale": percent(scale, 0),
    "left_out": max(len(rows) - MAX_SLICES, 0),
    "rows": [_slice_row(value, row, scale) for value, row in rows[:MAX_SLICES]],
    "beside": [_slice_row(words, row, scale) for words, row in others],
  }


def _slice_row(name: str, row: Mapping[str, Any], scale: float) -> dict[str, Any]:
  return {
    "value": shortened(name),
    "pictures": count(row["pictures"]),
    "correct": count(row["correct"]),
    "accuracy": _rate({"accuracy": row["accuracy"], "accuracy_interval_95": row["interval_95"]}, "accuracy", scale),
  }
