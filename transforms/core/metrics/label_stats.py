"""Counts right and wrong predictions per label.

The Beam combine consists of `create`, `add`, `merge` and `extract`. All sums are integers, so that merging in any order
gives the same bits.

The figures equal those of scikit-learn's `precision_recall_fscore_support`, `accuracy_score`, `confusion_matrix` and
`log_loss`. Where scikit-learn returns its `zero_division`, 0 / 0 is None here (null in JSON, an empty cell in CSV).
Averages count it as 0 and leave out labels that are neither actual nor predicted, as scikit-learn does by default.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from beam_retrain.transforms.core.metrics import calibration
from beam_retrain.transforms.core.metrics.calibration import UNIT as _UNIT
from beam_retrain.transforms.core.metrics.figures import Averages, LabelRow, ModelMetrics
from beam_retrain.transforms.core.metrics.statistics import wilson_interval
from beam_retrain.transforms.core.records.csv_format import csv_text, escape_cell

TOP = 3
_SMALLEST_SCORE = float(np.finfo(np.float32).eps)  # as scikit-learn's `log_loss` clips float32 scores


class Outcome(NamedTuple):
  """The prediction for one image, as counted.

  The last three fields are None where only the labels are known.

  Attributes:
    confidence, actual_score: scores of the predicted and of the actual label, 0..1.
    actual_rank: 1 if `actual` has the highest score, 2 if the second, ...
  """

  actual: str
  predicted: str
  confidence: float | None = None
  actual_score: float | None = None
  actual_rank: int | None = None


@dataclasses.dataclass(frozen=True)
class LabelCounts:
  """Counts so far: the combine's accumulator.

  Attributes:
    scored: images whose scores are known; the fields below count these alone.
    in_top: images whose label is among the `TOP` highest scores.
    log_loss: sum of -ln(score of the actual label), in billionths.
    confidence_right, confidence_wrong: sums of the confidence, in billionths.
  """

  confusion: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)
  scored: int = 0
  scored_right: int = 0
  in_top: int = 0
  log_loss: int = 0
  confidence_right: int = 0
  confidence_wrong: int = 0
  bins: Counter[tuple[str, int]] = dataclasses.field(default_factory=Counter)

  def to_json(self) -> dict[str, Any]:
    """Returns JSON values; `from_json` is the inverse."""
    fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
    return {**fields, **{name: _listed(fields[name]) for name in _TABLES}}

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> LabelCounts:
    tables = {name: Counter({(one, two): count for one, two, count in fields[name]}) for name in _TABLES}
    return cls(**{**fields, **tables})


_TABLES = ("confusion", "bins")


def _listed(table: Counter[Any]) -> list[list[Any]]:
  return [[*pair, count] for pair, count in sorted(table.items())]


def create() -> LabelCounts:
  return LabelCounts()


def add(counts: LabelCounts, outcome: Outcome) -> LabelCounts:
  """Counts one image; reuses the tables of `counts`, which becomes invalid."""
  right = outcome.actual == outcome.predicted
  counts.confusion[outcome.actual, outcome.predicted] += 1
  if outcome.confidence is None or outcome.actual_score is None or outcome.actual_rank is None:
    return counts
  confidence = round(outcome.confidence * _UNIT)
  calibration.add(counts.bins, confidence, right)
  return LabelCounts(
    counts.confusion,
    counts.scored + 1,
    counts.scored_right + right,
    counts.in_top + (outcome.actual_rank <= TOP),
    counts.log_loss + round(-math.log(min(max(outcome.actual_score, _SMALLEST_SCORE), 1.0)) * _UNIT),
    counts.confidence_right + (confidence if right else 0),
    counts.confidence_wrong + (0 if right else confidence),
    counts.bins,
  )


def merge(all_counts: Iterable[LabelCounts]) -> LabelCounts:
  parts = list(all_counts)
  merged = create()
  for counts in parts:
    for name in _TABLES:
      getattr(merged, name).update(getattr(counts, name))
  sums = [field.name for field in dataclasses.fields(LabelCounts) if field.name not in _TABLES]
  return dataclasses.replace(merged, **{name: sum(getattr(counts, name) for counts in parts) for name in sums})


def extract(counts: LabelCounts, labels: Sequence[str]) -> ModelMetrics:
  """Turns merged counts into figures, with a row per label.

  Raises:
    ValueError: a counted label is not in `labels`, or `labels` has duplicates.
  """
  position = {label: index for index, label in enumerate(labels)}
  unknown = sorted({label for pair in counts.confusion for label in pair} - position.keys())
  if unknown or len(position) < len(labels):
    raise ValueError(f"labels {unknown} are not in the label list {list(labels)}, or it has duplicates")
  confusion = np.zeros((len(labels), len(labels)), np.int64)
  for (actual, predicted), count in counts.confusion.items():
    confusion[position[actual], position[predicted]] = count
  rows = tuple(_row(labels, confusion, index) for index in range(len(labels)))
  total, correct = sum(row.support for row in rows), sum(row.correct for row in rows)
  scored_wrong = counts.scored - counts.scored_right
  return ModelMetrics(
    total=total,
    correct=correct,
    accuracy=_ratio(correct, total),
    accuracy_interval=wilson_interval(correct, total),
    macro=_averages(rows, weighted=False),
    weighted=_averages(rows, weighted=True),
    top_3_accuracy=_ratio(counts.in_top, counts.scored),
    top_3_accuracy_interval=wilson_interval(counts.in_top, counts.scored) if counts.scored else None,
    log_loss=_ratio(counts.log_loss, counts.scored * _UNIT),
    mean_confidence_right=_ratio(counts.confidence_right, counts.scored_right * _UNIT),
    mean_confidence_wrong=_ratio(counts.confidence_wrong, scored_wrong * _UNIT),
    calibration=calibration.extract(counts.bins),
    rows=rows,
    confusion=tuple(map(tuple, confusion.tolist())),
  )


def evaluate_in_memory(outcomes: Iterable[tuple], labels: Sequence[str]) -> ModelMetrics:
  """Returns the figures of `Outcome`s, or (actual, predicted) pairs, without Beam."""
  counts = create()
  for outcome in outcomes:
    counts = add(counts, Outcome(*outcome))
  return extract(counts, labels)


def _row(labels: Sequence[str], confusion: np.ndarray, index: int) -> LabelRow:
  support, predicted = int(confusion[index].sum()), int(confusion[:, index].sum())
  correct = int(confusion[index, index])
  wrong = confusion[index].copy()
  wrong[index] = 0
  most = int(wrong.argmax())
  recall_low, recall_high = wilson_interval(correct, support) if support else (None, None)
  precision_low, precision_high = wilson_interval(correct, predicted) if predicted else (None, None)
  return LabelRow(
    label=labels[index],
    support=support,
    predicted=predicted,
    correct=correct,
    accuracy=_ratio(correct, support),
    precision=_ratio(correct, predicted),
    recall=_ratio(correct, support),
    f1=_ratio(2 * correct, support + predicted),
    most_confused_with=labels[most] if wrong[most] else "",
    most_confused_count=int(wrong[most]),
    recall_low=recall_low,
    recall_high=recall_high,
    precision_low=precision_low,
    precision_high=precision_high,
  )


def _ratio(part: int, whole: int) -> float | None:
  return part / whole if whole else None


def _averages(rows: Sequence[LabelRow], weighted: bool) -> Averages:
  seen = [row for row in rows if row.support or row.predicted]
  weights = [row.support if weighted else 1 for row in seen]

  def mean(name: str) -> float | None:
    parts = [(getattr(row, name) or 0.0) * weight for row, weight in zip(seen, weights, strict=True)]
    return math.fsum(parts) / sum(weights) if sum(weights) else None

  return Averages(mean("precision"), mean("recall"), mean("f1"))


def per_label_csv(stats: ModelMetrics) -> str:
  """Returns the text of `per_label.csv`, fractions with six decimals."""
  names = [field.name for field in dataclasses.fields(LabelRow)]
  return csv_text([names, *([_cell(getattr(row, name)) for name in names] for row in stats.rows)])


def confusion_csv(stats: ModelMetrics) -> str:
  """Returns the text of `confusion_matrix.csv`: one line per actual label."""
  labels = [escape_cell(row.label) for row in stats.rows]
  lines = [[label, *map(str, row)] for label, row in zip(labels, stats.confusion, strict=True)]
  return csv_text([["actual", *labels], *lines])


def _cell(value: object) -> str:
  if value is None:
    return ""
  return f"{value:.6f}" if isinstance(value, float) else escape_cell(str(value))
