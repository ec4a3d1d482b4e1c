"""The tables of `export`, read in batches.

A batch is a shard, or some thousand rows.
"""

from __future__ import annotations

import csv
import dataclasses
import enum
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from beam_retrain.transforms.bottlenecks.store import read_shards
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics.figures import LabelRow, Metrics
from beam_retrain.transforms.core.metrics.metrics_file import metrics_from_json
from beam_retrain.transforms.core.metrics.predictions import ROW_COLUMNS
from beam_retrain.transforms.core.records.csv_format import unescape_cell
from beam_retrain.transforms.core.records.schema import INFO_FILE, METRICS_FILE
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.output_folder import find_info, read_info
from beam_retrain.transforms.core.system.prefetch import batched
from beam_retrain.transforms.core.system.small_files import RUN_AGAIN, read_small
from beam_retrain.transforms.evaluation.evaluate import PREDICTIONS_FILE, folder_of
from beam_retrain.transforms.io import files

ROWS = 8192  # predictions in a batch


class Kind(enum.Enum):
  """What a column holds; all but vectors may be unknown, None."""

  TEXT = "text"
  COUNT = "int64"
  RATE = "float64, 0..1"
  NUMBER = "float64"
  FLAG = "true or false"
  VECTOR = "float32 [D]"


Cells = Sequence[object] | np.ndarray


class Table(NamedTuple):
  name: str
  columns: Mapping[str, Kind]
  read: Callable[[], Iterator[Sequence[Cells]]]  # a sequence of cells for each column
  dimensions: int = 0  # D, the length of vectors


BOTTLENECKS = {"key": Kind.TEXT, "label": Kind.TEXT, "split": Kind.TEXT, "sha256": Kind.TEXT, "vector": Kind.VECTOR}

_OF_PREDICTION = {
  "key": ("file_name", Kind.TEXT),
  "actual": ("actual_digit", Kind.TEXT),
  "predicted": ("predicted_digit", Kind.TEXT),
  "correct": ("prediction_accuracy", Kind.FLAG),
  "confidence": ("confidence", Kind.RATE),
  "second": ("second_digit", Kind.TEXT),
  "second_confidence": ("second_confidence", Kind.RATE),
  "third": ("third_digit", Kind.TEXT),
  "third_confidence": ("third_confidence", Kind.RATE),
  "margin": ("margin", Kind.RATE),
  "sha256": ("sha256", Kind.TEXT),
  "split": ("split", Kind.TEXT),
  "trained_on": ("trained_on", Kind.FLAG),
}
"""Column -> that of `predictions.csv`."""

PREDICTIONS = {"model": Kind.TEXT, **{name: kind for name, (_, kind) in _OF_PREDICTION.items()}}

_MODEL = {"model": Kind.TEXT, "night": Kind.TEXT}

METRICS = {
  **_MODEL,
  **dict.fromkeys(("total", "correct"), Kind.COUNT),
  **dict.fromkeys(("accuracy", "accuracy_low", "accuracy_high"), Kind.RATE),
  **dict.fromkeys(("trained_on", "unseen", "unseen_correct"), Kind.COUNT),
  **dict.fromkeys(("unseen_accuracy", "unseen_accuracy_low", "unseen_accuracy_high"), Kind.RATE),
  **dict.fromkeys(("macro_precision", "macro_recall", "macro_f1", "top_3_accuracy"), Kind.RATE),
  **dict.fromkeys(("log_loss", "expected_calibration_error"), Kind.NUMBER),
  "verdict": Kind.TEXT,
}
PER_LABEL = {
  **_MODEL,
  "label": Kind.TEXT,
  **dict.fromkeys(("support", "predicted", "correct"), Kind.COUNT),
  **dict.fromkeys(("precision", "recall", "f1"), Kind.RATE),
  **dict.fromkeys(("recall_low", "recall_high", "precision_low", "precision_high"), Kind.RATE),
  "most_confused_with": Kind.TEXT,
  "most_confused_count": Kind.COUNT,
}
NAMES = ("bottlenecks", "predictions", "metrics", "per_label")


def find_tables(path: str) -> list[Table]:
  """Returns the tables of a finished output, or of `run`.

  Raises:
    InputError: it has none, or is unfinished or damaged.
  """
  info = find_info(path, files)
  places = {info.stage: path} if info else {stage: files.join(path, stage) for stage in ("bottlenecks", "evaluate")}
  tables: list[Table] = []
  for stage, folder in places.items():
    if info or files.exists(files.join(folder, INFO_FILE)):
      if stage == "bottlenecks":
        tables.append(_bottlenecks(folder))
      elif stage in ("evaluate", "reevaluate"):
        tables += _evaluation(folder, stage)
  if not tables:
    raise InputError(
      f"{path} has neither bottlenecks nor an evaluation: give what `beam-retrain run`, `bottlenecks` or `evaluate`"
      " wrote, or a night of `reevaluate`."
    )
  return tables


def _bottlenecks(folder: str) -> Table:
  info = read_info(folder, "bottlenecks", files)
  percentages = SplitPercentages.from_settings(info.settings)

  def read() -> Iterator[Sequence[Cells]]:
    for shard in read_shards(folder, percentages):
      texts = [(stored.key, stored.label, split, stored.sha256) for split, stored in shard]
      yield [*zip(*texts, strict=True), np.stack([stored.vector for _, stored in shard])]

  return Table("bottlenecks", BOTTLENECKS, read, info.trunk.dimensions)


def _evaluation(folder: str, stage: str) -> Iterator[Table]:
  read_info(folder, stage, files)
  path = files.join(folder, METRICS_FILE)
  metrics = read_small(path, lambda data: metrics_from_json(json.loads(data)), RUN_AGAIN, files.read_bytes)
  yield Table("predictions", PREDICTIONS, lambda: _predictions(folder, metrics))
  yield _small("metrics", METRICS, [_model_row(metrics, model) for model in metrics.models])
  rows = [_label_row(metrics, model, row) for model, figures in metrics.models.items() for row in figures.rows]
  yield _small("per_label", PER_LABEL, rows)


def _small(name: str, columns: Mapping[str, Kind], rows: Sequence[Mapping[str, object]]) -> Table:
  return Table(name, columns, lambda: iter([[[row.get(column) for row in rows] for column in columns]]))


def _predictions(folder: str, metrics: Metrics) -> Iterator[Sequence[Cells]]:
  for model in metrics.models:
    path = files.join(folder_of(folder, model), PREDICTIONS_FILE)
    try:
      for rows in batched(_rows(path), ROWS):
        cells = [[_cell(row.get(name), kind) for row in rows] for name, kind in _OF_PREDICTION.values()]
        yield [[model] * len(rows), *cells]
    except (ValueError, csv.Error) as error:
      raise InputError(f"{path} is damaged ({error}): {RUN_AGAIN}.") from error


def _rows(path: str) -> Iterator[Mapping[str, str]]:
  reader = csv.reader(files.read_lines(path), strict=True)
  names = next(reader, [])
  if missing := [name for name in ROW_COLUMNS if name not in names]:
    raise ValueError(f"it has no column {missing[0]!r}")
  for cells in reader:
    if len(cells) != len(names):
      raise ValueError(f"line {reader.line_num} has {len(cells)} cells instead of {len(names)}")
    yield dict(zip(names, cells, strict=True))


def _cell(cell: str | None, kind: Kind) -> object:
  if not cell:
    return None
  if kind is Kind.FLAG:
    return {"True": True, "False": False}.get(cell)
  return unescape_cell(cell) if kind is Kind.TEXT else round(float(cell) / 100, 6)


def _model_row(metrics: Metrics, model: str) -> Mapping[str, object]:
  figures = metrics.models[model]
  low, high = figures.accuracy_interval or (None, None)
  row = {
    **{name: getattr(figures, name, None) for name in METRICS},
    **{"model": model, "night": metrics.night, "verdict": metrics.verdict, "accuracy_low": low, "accuracy_high": high},
    "unseen": None,
  }
  if unseen := figures.unseen:
    low, high = unseen.accuracy_interval or (None, None)
    row |= {"unseen": unseen.total, "unseen_correct": unseen.correct, "unseen_accuracy": unseen.accuracy}
    row |= {"unseen_accuracy_low": low, "unseen_accuracy_high": high}
  if macro := figures.macro:
    row |= {f"macro_{name}": value for name, value in dataclasses.asdict(macro).items()}
  if figures.calibration:
    row["expected_calibration_error"] = figures.calibration.expected_error
  return row


def _label_row(metrics: Metrics, model: str, row: LabelRow) -> Mapping[str, object]:
  ends = {}
  for name in ("recall", "precision"):
    ends[f"{name}_low"], ends[f"{name}_high"] = getattr(row, f"{name}_interval") or (None, None)
  return {"model": model, "night": metrics.night, **dataclasses.asdict(row), **ends}
