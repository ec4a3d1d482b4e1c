"""Counts right and wrong predictions per label.

The Beam combine consists of `add`, `merge` and `extract`. All sums are integers, so that merging in any order gives
the same bits.

The figures equal those of scikit-learn's `precision_recall_fscore_support`, `accuracy_score`, `confusion_matrix` and
`log_loss`. Where scikit-learn returns its `zero_division`, 0 / 0 is None here (null in JSON, an empty cell in CSV).
Averages count it as 0 and leave out labels that are neither actual nor predicted, as scikit-learn does by default.

Expected calibration error: the mean of |accuracy - mean confidence| over bins of equal width, weighted by their
images. M. P. Naeini, G. F. Cooper, M. Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning",
AAAI 2015.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from beam_retrain.transforms.core.metrics.figures import (
  Accuracies,
  Accuracy,
  Averages,
  Calibration,
  CalibrationBin,
  Interval,
  LabelRow,
  ModelMetrics,
)
from beam_retrain.transforms.core.metrics.statistics import wilson_interval
from beam_retrain.transforms.core.records.csv_format import csv_text, escape_cell

TOP = 3
BINS = 10
UNIT = 10**9
"""Sums of confidences and losses are integers, in billionths."""
_IMAGES = "pictures"  # the key in shard reports of version 0.4, which a resumed run reads
_SMALLEST_SCORE = float(np.finfo(np.float32).eps)  # as scikit-learn's `log_loss` clips float32 scores


class Outcome(NamedTuple):
  """The prediction for one image; scores 0..1 and rank (1: the highest).

  The last three fields are None where only the labels are known.
  """

  actual: str
  predicted: str
  confidence: float | None = None
  actual_score: float | None = None
  actual_rank: int | None = None


@dataclasses.dataclass
class LabelCounts:
  """Counts so far: the combine's accumulator."""

  confusion: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)
  scored: int = 0  # images whose scores are known; the fields down to `bins` count these alone
  scored_right: int = 0
  in_top: int = 0  # images whose label is among the `TOP` highest scores
  log_loss: int = 0  # sum of -ln(score of the actual label), in billionths
  confidence_right: int = 0  # sum of the confidence, in billionths
  confidence_wrong: int = 0
  # (`_IMAGES`, `correct` or `confidence`; bin 0..9) -> count or sum
  bins: Counter[tuple[str, int]] = dataclasses.field(default_factory=Counter)
  trained_on: int = 0  # images that the model was trained on
  # (label, `total` or `correct`) -> images that it was not trained on
  unseen: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)

  def to_json(self) -> dict[str, Any]:
    """Returns JSON values; `from_json` is the inverse."""
    tables = {name: [[*pair, count] for pair, count in sorted(getattr(self, name).items())] for name in _TABLES}
    return {**vars(self), **tables}

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> LabelCounts:
    tables = {name: Counter({(one, two): count for one, two, count in fields.get(name, ())}) for name in _TABLES}
    return cls(**{**fields, **tables})


_TABLES = ("confusion", "bins", "unseen")
_UNSEEN = ("support", "correct", "recall", "recall_low", "recall_high")
_NO_INTERVAL = (None, None)


def add(counts: LabelCounts, outcome: Outcome, trained_on: bool | None = None) -> None:
  """Counts one image; `trained_on`: whether the model was, None if unknown."""
  right = outcome.actual == outcome.predicted
  counts.confusion[outcome.actual, outcome.predicted] += 1
  if trained_on:
    counts.trained_on += 1
  elif trained_on is not None:
    counts.unseen[outcome.actual, "total"] += 1
    counts.unseen[outcome.actual, "correct"] += right
  if outcome.confidence is None or outcome.actual_score is None or outcome.actual_rank is None:
    return
  confidence = round(outcome.confidence * UNIT)
  place = min(confidence * BINS // UNIT, BINS - 1)
  counts.bins[_IMAGES, place] += 1
  counts.bins["correct", place] += right
  counts.bins["confidence", place] += confidence
  counts.scored += 1
  counts.scored_right += right
  counts.in_top += outcome.actual_rank <= TOP
  counts.log_loss += round(-math.log(min(max(outcome.actual_score, _SMALLEST_SCORE), 1.0)) * UNIT)
  counts.confidence_right += confidence if right else 0
  counts.confidence_wrong += 0 if right else confidence


def merge(all_counts: Iterable[LabelCounts]) -> LabelCounts:
  merged = LabelCounts()
  for counts in all_counts:
    for name, value in vars(counts).items():
      if name in _TABLES:
        getattr(merged, name).update(value)
      else:
        setattr(merged, name, getattr(merged, name) + value)
  return merged


def extract(counts: LabelCounts, labels: Sequence[str]) -> ModelMetrics:
  """Turns merged counts into figures, with a row per label.

  Raises ValueError if a counted label is not in `labels`, or `labels` has duplicates.
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
  unseen = _unseen(counts.unseen, labels)
  knows = 0 < total == counts.trained_on + unseen.total
  return ModelMetrics(
    total=total,
    correct=correct,
    accuracy=_ratio(correct, total),
    accuracy_interval=wilson_interval(correct, total),
    trained_on=counts.trained_on if knows else None,
    unseen=unseen if knows else None,
    macro=_averages(rows, weighted=False),
    weighted=_averages(rows, weighted=True),
    top_3_accuracy=_ratio(counts.in_top, counts.scored),
    top_3_accuracy_interval=_interval(counts.in_top, counts.scored),
    log_loss=_ratio(counts.log_loss, counts.scored * UNIT),
    mean_confidence_right=_ratio(counts.confidence_right, counts.scored_right * UNIT),
    mean_confidence_wrong=_ratio(counts.confidence_wrong, scored_wrong * UNIT),
    calibration=_calibration(counts.bins),
    rows=rows,
    confusion=tuple(map(tuple, confusion.tolist())),
  )


def _unseen(counts: Counter[tuple[str, str]], labels: Sequence[str]) -> Accuracies:
  pairs = {label: (counts[label, "correct"], counts[label, "total"]) for label in labels}
  correct, total = (sum(pair[place] for pair in pairs.values()) for place in (0, 1))
  return Accuracies.of(correct, total, {label: Accuracy.of(*pair) for label, pair in pairs.items()})


def evaluate_in_memory(outcomes: Iterable[tuple], labels: Sequence[str]) -> ModelMetrics:
  """Returns the figures of `Outcome`s, or (actual, predicted) pairs, without Beam."""
  counts = LabelCounts()
  for outcome in outcomes:
    add(counts, Outcome(*outcome))
  return extract(counts, labels)


def _row(labels: Sequence[str], confusion: np.ndarray, index: int) -> LabelRow:
  support, predicted = int(confusion[index].sum()), int(confusion[:, index].sum())
  correct = int(confusion[index, index])
  wrong = confusion[index].copy()
  wrong[index] = 0
  most = int(wrong.argmax())
  return LabelRow(
    label=labels[index],
    support=support,
    predicted=predicted,
    correct=correct,
    accuracy=_ratio(correct, support),
    precision=_ratio(correct, predicted),
    recall=_ratio(correct, support),
    f1=_ratio(2 * correct, support + predicted),
    most_confused_with=labels[most] if wrong[most] else None,
    most_confused_count=int(wrong[most]),
    recall_interval=_interval(correct, support),
    precision_interval=_interval(correct, predicted),
  )


def _ratio(part: int, whole: int) -> float | None:
  return part / whole if whole else None


def _interval(part: int, whole: int) -> Interval | None:
  return wilson_interval(part, whole) if whole else None


def _averages(rows: Sequence[LabelRow], weighted: bool) -> Averages:
  seen = [row for row in rows if row.support or row.predicted]
  weights = [row.support if weighted else 1 for row in seen]

  def mean(name: str) -> float | None:
    parts = [(getattr(row, name) or 0.0) * weight for row, weight in zip(seen, weights, strict=True)]
    return math.fsum(parts) / sum(weights) if sum(weights) else None

  return Averages(mean("precision"), mean("recall"), mean("f1"))


def _calibration(bins: Counter[tuple[str, int]]) -> Calibration:
  rows = tuple(_bin(bins, place) for place in range(BINS))
  gaps = [
    row.images * abs(row.accuracy - row.mean_confidence)
    for row in rows
    if row.accuracy is not None and row.mean_confidence is not None
  ]
  total = sum(row.images for row in rows)
  return Calibration(rows, math.fsum(gaps) / total if total else None)


def _bin(bins: Counter[tuple[str, int]], place: int) -> CalibrationBin:
  images, correct = bins[_IMAGES, place], bins["correct", place]
  return CalibrationBin(
    low=place / BINS,
    high=(place + 1) / BINS,
    images=images,
    correct=correct,
    mean_confidence=_ratio(bins["confidence", place], images * UNIT),
    accuracy=_ratio(correct, images),
    interval=_interval(correct, images),
  )


def per_label_csv(stats: ModelMetrics) -> str:
  """Returns the text of `per_label.csv`, fractions with six decimals.

  The figures are of all images. Where the model was trained on some, the recall on the others has columns of its own.
  """
  names = [field.name for field in dataclasses.fields(LabelRow) if not field.name.endswith("interval")]
  header = [*names, "recall_low", "recall_high", "precision_low", "precision_high"]
  lines = [[*header, *(f"unseen_{name}" for name in _UNSEEN)] if stats.is_mixed else header]
  for row in stats.rows:
    values = [*(getattr(row, name) for name in names), *(row.recall_interval or _NO_INTERVAL)]
    values += row.precision_interval or _NO_INTERVAL
    if stats.is_mixed:
      unseen = stats.main.per_label[row.label]
      values += [unseen.total, unseen.correct, unseen.accuracy, *(unseen.accuracy_interval or _NO_INTERVAL)]
    lines.append(list(map(_cell, values)))
  return csv_text(lines)


def confusion_csv(stats: ModelMetrics) -> str:
  """Returns the text of `confusion_matrix.csv`: one line per actual label."""
  labels = [escape_cell(label) for label in stats.labels]
  lines = [[label, *row] for label, row in zip(labels, stats.confusion, strict=True)]
  return csv_text([["actual", *labels], *lines])


def _cell(value: object) -> str:
  if value is None:
    return ""
  return f"{value:.6f}" if isinstance(value, float) else escape_cell(str(value))
