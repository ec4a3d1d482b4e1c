"""Counting right and wrong per label: plain functions, no Beam, no TensorFlow.

`create`, `add`, `merge` and `extract` are what the Beam combine is made of; `evaluate_in_memory` does the same without
Beam. All sums are whole numbers, so that merging in any order gives the same bits.

The figures are those of scikit-learn's `precision_recall_fscore_support`, `accuracy_score`, `confusion_matrix` and
`log_loss`, with labels as names. A quotient of 0 by 0 is None here (null in JSON, an empty cell in CSV), where
scikit-learn puts its `zero_division`; the averages do as its defaults: they count it as 0, and leave out labels that no
image has and none was given.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from beam_retrain.transforms.core.metrics import calibration
from beam_retrain.transforms.core.metrics.calibration import UNIT as _UNIT
from beam_retrain.transforms.core.metrics.intervals import wilson_interval
from beam_retrain.transforms.core.records.csv_cells import escape_cell

TOP = 3
_SMALLEST_SCORE = float(np.finfo(np.float32).eps)  # as scikit-learn's `log_loss` clips float32 scores


class Outcome(NamedTuple):
  """One evaluated image.

  Attributes:
    actual: its label.
    predicted: the label that the model gave.
    confidence: the model's score of `predicted`, 0..1; None where only the labels are known.
    actual_score: the model's score of `actual`, 0..1, likewise.
    actual_rank: 1 where `actual` has the highest score, 2 where the second, ...; likewise.
  """

  actual: str
  predicted: str
  confidence: float | None = None
  actual_score: float | None = None
  actual_rank: int | None = None


@dataclasses.dataclass(frozen=True)
class LabelCounts:
  """What has been counted so far; the combine's accumulator.

  Attributes:
    confusion: (actual, predicted) -> images.
    scored: images whose scores are known.
    scored_right: of these, how many are right.
    in_top: of these, how many have the actual label among the `TOP` highest scores.
    log_loss: sum of -ln(score of the actual label), in billionths.
    confidence_right: sum of the confidences of the right ones, in billionths.
    confidence_wrong: likewise of the wrong ones.
    bins: what `calibration` counts.
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
  """Counts one more image. `counts` itself must not be used any more: its tables go on in the returned one."""
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
  """Adds up what was counted apart; none at all gives what `create` gives."""
  parts = list(all_counts)
  merged = create()
  for counts in parts:
    for name in _TABLES:
      getattr(merged, name).update(getattr(counts, name))
  sums = [field.name for field in dataclasses.fields(LabelCounts) if field.name not in _TABLES]
  return dataclasses.replace(merged, **{name: sum(getattr(counts, name) for counts in parts) for name in sums})


@dataclasses.dataclass(frozen=True)
class LabelRow:
  """One label's figures.

  Attributes:
    label: its name.
    support: images with this label.
    predicted: images that the model gave this label.
    correct: images of which both are true.
    accuracy: correct / support, 0..1: of this label's images, the part that was right, as the article counts it. It
      is the recall by another name. (The share of all images on which "is it this label?" was answered rightly, which
      goes by the same name elsewhere, would be near 1 for each of many labels.)
    precision: correct / predicted, 0..1.
    recall: correct / support, 0..1.
    f1: 2 correct / (support + predicted), 0..1, the harmonic mean of precision and recall.
    most_confused_with: the wrong label that this label's images got most often (of equals, the first in the label
      list); empty where all were right.
    most_confused_count: how often.
    recall_low, recall_high, precision_low, precision_high: their 95 % intervals, 0..1, by `wilson_interval`.
  """

  label: str
  support: int
  predicted: int
  correct: int
  accuracy: float | None
  precision: float | None
  recall: float | None
  f1: float | None
  most_confused_with: str
  most_confused_count: int
  recall_low: float | None
  recall_high: float | None
  precision_low: float | None
  precision_high: float | None


@dataclasses.dataclass(frozen=True)
class LabelStats:
  """The result. `confusion[i][j]` images of label i were predicted as label j, in the order of `rows`."""

  rows: tuple[LabelRow, ...]
  confusion: tuple[tuple[int, ...], ...]
  scores: Mapping[str, float | list[float] | None]
  calibration: Mapping[str, Any]

  @property
  def total(self) -> int:
    return sum(row.support for row in self.rows)

  @property
  def correct(self) -> int:
    return sum(row.correct for row in self.rows)

  @property
  def accuracy(self) -> float | None:
    return _ratio(self.correct, self.total)


def extract(counts: LabelCounts, labels: Sequence[str]) -> LabelStats:
  """Turns counts into figures.

  Args:
    counts: everything, merged.
    labels: the model's label list; each gets a row, in this order, also one that no image has.

  Raises:
    ValueError: a counted label is not in `labels`, or one is in it twice.
  """
  position = {label: index for index, label in enumerate(labels)}
  unknown = sorted({label for pair in counts.confusion for label in pair} - position.keys())
  if unknown or len(position) < len(labels):
    raise ValueError(f"counted labels {unknown} are not in the label list {list(labels)}, or it names one twice")
  confusion = np.zeros((len(labels), len(labels)), np.int64)
  for (actual, predicted), count in counts.confusion.items():
    confusion[position[actual], position[predicted]] = count
  scored_wrong = counts.scored - counts.scored_right
  return LabelStats(
    rows=tuple(_row(labels, confusion, index) for index in range(len(labels))),
    confusion=tuple(tuple(row) for row in confusion.tolist()),
    scores={
      f"top_{TOP}_accuracy": _ratio(counts.in_top, counts.scored),
      f"top_{TOP}_accuracy_interval_95": _interval(counts.in_top, counts.scored),
      "log_loss": _ratio(counts.log_loss, counts.scored * _UNIT),
      "mean_confidence_right": _ratio(counts.confidence_right, counts.scored_right * _UNIT),
      "mean_confidence_wrong": _ratio(counts.confidence_wrong, scored_wrong * _UNIT),
    },
    calibration=calibration.extract(counts.bins),
  )


def evaluate_in_memory(outcomes: Iterable[tuple], labels: Sequence[str]) -> LabelStats:
  """The combine without Beam: from (actual, predicted) pairs, or whole `Outcome`s, to the same `LabelStats`."""
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


def _interval(part: int, whole: int) -> list[float] | None:
  return list(wilson_interval(part, whole)) if whole else None


def averages(rows: Sequence[LabelRow]) -> dict[str, dict[str, float | None]]:
  """Returns `macro` (each label counts once) and `weighted` (by support) means of precision, recall and F1, 0..1."""
  seen = [row for row in rows if row.support or row.predicted]

  def mean(name: str, weights: Sequence[int]) -> float | None:
    weighted = [(getattr(row, name) or 0.0) * weight for row, weight in zip(seen, weights, strict=True)]
    return math.fsum(weighted) / sum(weights) if sum(weights) else None

  weights = {"macro": [1] * len(seen), "weighted": [row.support for row in seen]}
  return {kind: {name: mean(name, of) for name in ("precision", "recall", "f1")} for kind, of in weights.items()}


def metrics_json(stats: LabelStats) -> dict[str, Any]:
  """Returns what `metrics.json` says of the predictions, JSON values; fractions are 0..1, None where undefined."""
  return {
    "total": stats.total,
    "correct": stats.correct,
    "accuracy": stats.accuracy,
    "accuracy_interval_95": list(wilson_interval(stats.correct, stats.total)),
    **averages(stats.rows),
    **stats.scores,
    "calibration": stats.calibration,
    "labels": [row.label for row in stats.rows],
    "per_label": {row.label: _without_label(row) for row in stats.rows},
    "confusion_matrix": [list(row) for row in stats.confusion],
  }


def _without_label(row: LabelRow) -> dict[str, Any]:
  fields = dataclasses.asdict(row)
  del fields["label"]
  for name in ("recall", "precision"):
    low, high = fields.pop(f"{name}_low"), fields.pop(f"{name}_high")
    fields[f"{name}_interval_95"] = None if low is None else [low, high]
  return {**fields, "most_confused_with": row.most_confused_with or None}


def per_label_csv(stats: LabelStats) -> str:
  """Returns one line per label, in the order of the label list: the fields of `LabelRow`; fractions with six places."""
  names = [field.name for field in dataclasses.fields(LabelRow)]
  return _csv([names, *([_cell(getattr(row, name)) for name in names] for row in stats.rows)])


def confusion_csv(stats: LabelStats) -> str:
  """Returns the confusion matrix: a line per actual label, a column per predicted one."""
  labels = [escape_cell(row.label) for row in stats.rows]
  lines = [[label, *map(str, row)] for label, row in zip(labels, stats.confusion, strict=True)]
  return _csv([["actual", *labels], *lines])


def _cell(value: object) -> str:
  if value is None:
    return ""
  return f"{value:.6f}" if isinstance(value, float) else escape_cell(str(value))


def _csv(rows: Iterable[Sequence[str]]) -> str:
  text = io.StringIO()
  csv.writer(text, lineterminator="\n").writerows(rows)
  return text.getvalue()
