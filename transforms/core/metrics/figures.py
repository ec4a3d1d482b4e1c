"""The figures of an evaluation, as frozen dataclasses.

`metrics_file` writes them to `metrics.json`. All rates are 0..1, None where undefined.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Self

from beam_retrain.transforms.core.metrics.statistics import wilson_interval
from beam_retrain.transforms.core.records.shards import BottleneckCounts

MODEL = "model"
CANDIDATE = "candidate"

PASSED = "passed"
MISSED = "missed"
NONE_SET = "none set"
"""The states of a gate, and the verdicts over all of them."""

WORSE = "worse"
BETTER = "better"
NO_DIFFERENCE = "no difference shown"
NO_BASELINE = "no baseline"
"""The verdicts of a comparison."""

LeakCounts = Mapping[str, Mapping[str, int]]
"""Kind of leak -> `groups` and `images`; see `count_leaks`."""

Interval = tuple[float, float]
"""95 % interval of a rate, 0..1."""


@dataclasses.dataclass(frozen=True)
class Accuracy:
  """The accuracy on some images; None without any."""

  total: int = 0
  correct: int = 0
  accuracy: float | None = None
  accuracy_interval: Interval | None = None

  @classmethod
  def of(cls, correct: int, total: int, *more: Mapping[str, Accuracy]) -> Self:
    return cls(total, correct, *((correct / total, wilson_interval(correct, total)) if total else (None, None)), *more)


@dataclasses.dataclass(frozen=True)
class Accuracies(Accuracy):
  """The accuracy on some images, and that of each label: its recall."""

  per_label: Mapping[str, Accuracy] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class LabelRow:
  """Figures of one label, in the order of `per_label.csv`.

  `support` images have the label, `predicted` were given it, `correct` both. `accuracy` is the article's name for the
  recall. `most_confused_with` is the wrong label given most often; in a tie, the first in the label list.
  """

  label: str
  support: int = 0
  predicted: int = 0
  correct: int = 0
  accuracy: float | None = None
  precision: float | None = None
  recall: float | None = None
  f1: float | None = None
  most_confused_with: str | None = None
  most_confused_count: int = 0
  recall_interval: Interval | None = None
  precision_interval: Interval | None = None


@dataclasses.dataclass(frozen=True)
class Averages:
  """Means over the labels."""

  precision: float | None = None
  recall: float | None = None
  f1: float | None = None


@dataclasses.dataclass(frozen=True)
class CalibrationBin:
  """Images with a confidence between `low` and `high`, 0..1."""

  low: float
  high: float
  images: int
  correct: int
  mean_confidence: float | None
  accuracy: float | None
  interval: Interval | None = None


@dataclasses.dataclass(frozen=True)
class Calibration:
  """Bins from low to high confidence, and the expected calibration error."""

  bins: tuple[CalibrationBin, ...]
  expected_error: float | None


@dataclasses.dataclass(frozen=True)
class SuspiciousLabels:
  """Number of mistakes with a confidence of at least `threshold`, 0..1.

  `label_errors` of the images are suspicious for another reason, see `LabelError`; None: not looked for.
  """

  threshold: float
  images: int
  label_errors: int | None = None


@dataclasses.dataclass(frozen=True)
class ShownImage:
  """An image in the report; its names are escaped as CSV cells.

  Confidences are in percent; `edited`: its bytes have changed since the baseline; `thumbnail`: `data:image/...` URI.
  """

  model: str
  key: str
  actual: str
  predicted: str
  confidence: float
  baseline_predicted: str | None = None
  baseline_confidence: float | None = None
  edited: bool = False
  thumbnail: str | None = None


@dataclasses.dataclass(frozen=True)
class ComparisonResult:
  """One model against its baseline; without one, only the verdict is known.

  Of the `paired` images, `unseen_paired` are known as not trained on, tonight, nor known as trained on before. `drop`
  (the fall in accuracy), `p_value` (McNemar's exact test, 0..1) and `verdict` are of these, or of all paired ones if
  there are none. `edited` images have other bytes than before, `changed` ones other bytes or another label; the fields
  from `changed` on are None if an earlier version counted.
  """

  baseline: str | None = None
  paired: int | None = None
  baseline_correct: int | None = None
  correct: int | None = None
  regressed: int | None = None
  fixed: int | None = None
  new: int | None = None
  gone: int | None = None
  edited: int | None = None
  regressed_edited: int | None = None
  fixed_edited: int | None = None
  changed: int | None = None
  changed_correct: int | None = None
  changed_baseline_correct: int | None = None
  new_correct: int | None = None
  gone_correct: int | None = None
  unseen_paired: int | None = None
  unseen_correct: int | None = None
  unseen_baseline_correct: int | None = None
  unseen_regressed: int | None = None
  unseen_fixed: int | None = None
  drop: float | None = None
  p_value: float | None = None
  verdict: str = NO_BASELINE

  @property
  def is_mixed(self) -> bool:
    """Whether some of the paired images were trained on, not all."""
    return 0 < (self.unseen_paired or 0) < (self.paired or 0)


@dataclasses.dataclass(frozen=True)
class SliceFigures:
  images: int
  correct: int
  accuracy: float
  interval: Interval


@dataclasses.dataclass(frozen=True)
class PooledSlices:
  """All slices of fewer than `fewer_than` images, pooled."""

  slices: int
  fewer_than: int
  images: int
  correct: int
  accuracy: float
  interval: Interval


@dataclasses.dataclass(frozen=True)
class ColumnSlices:
  """Slices by one manifest column: value -> figures.

  `small` pools the small slices, `unlisted` the images without a row in the manifest.
  """

  values: Mapping[str, SliceFigures]
  small: PooledSlices | None = None
  unlisted: SliceFigures | None = None


@dataclasses.dataclass(frozen=True)
class GateResult:
  """Result of one gate: threshold (0..1, if set) and measurement (if known).

  `failing`: the labels below the threshold; None for gates that are not per label.
  """

  state: str
  threshold: float | None = None
  value: float | None = None
  failing: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class QuarantineCounts:
  total: int
  reasons: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class CorrectionFigures:
  """What corrections did; `without`: the main figure of uncorrected labels."""

  relabelled: int
  dropped: int
  without: Accuracy


@dataclasses.dataclass(frozen=True)
class BadInputs:
  """Whether more inputs are bad than allowed."""

  quarantined: int
  inputs: int
  allowed: float
  too_many: bool


@dataclasses.dataclass(frozen=True)
class ModelMetrics:
  """Figures of one model; None if not measured.

  Attributes:
    trunk_kind: see `ModelTrunk.to_info`.
    trained_on: how many of the images the model was trained on; None if that is unknown.
    unseen: on the images that it was not trained on; None if `trained_on` is.
    macro, weighted: averages in which each label counts once, or by its support.
    log_loss: mean of -ln(score of the actual label).
    confusion: `confusion[i][j]` images of label i were predicted as label j.
  """

  trunk_kind: Mapping[str, object] | None = None
  total: int = 0
  correct: int = 0
  accuracy: float | None = None
  accuracy_interval: Interval | None = None
  trained_on: int | None = None
  unseen: Accuracies | None = None
  macro: Averages | None = None
  weighted: Averages | None = None
  top_3_accuracy: float | None = None
  top_3_accuracy_interval: Interval | None = None
  log_loss: float | None = None
  mean_confidence_right: float | None = None
  mean_confidence_wrong: float | None = None
  calibration: Calibration | None = None
  corrections: CorrectionFigures | None = None
  rows: tuple[LabelRow, ...] = ()
  confusion: tuple[tuple[int, ...], ...] = ()
  suspicious: SuspiciousLabels | None = None
  comparison: ComparisonResult | None = None
  reference: ComparisonResult | None = None
  slices: Mapping[str, ColumnSlices] | None = None
  quarantined: QuarantineCounts | None = None
  gates: Mapping[str, GateResult] = dataclasses.field(default_factory=dict)

  @property
  def labels(self) -> list[str]:
    return [row.label for row in self.rows]

  @property
  def main(self) -> Accuracies:
    """The figures that are shown first and that gates judge.

    They are of the images that the model was not trained on; of all where it was trained on all, or that is unknown.
    """
    if self.unseen and self.unseen.total:
      return self.unseen
    rows = {row.label: Accuracy(row.support, row.correct, row.recall, row.recall_interval) for row in self.rows}
    return Accuracies(self.total, self.correct, self.accuracy, self.accuracy_interval, rows)

  @property
  def is_mixed(self) -> bool:
    """Whether the model was trained on some images, not on all."""
    return bool(self.trained_on and self.unseen and self.unseen.total)

  def recalls(self) -> dict[str, float]:
    """Returns the recall, among `main`, of each label that has images."""
    return {label: row.accuracy for label, row in self.main.per_label.items() if row.accuracy is not None}


@dataclasses.dataclass(frozen=True)
class TrendPoint:
  """A night in the report's trend; `verdict` ignores a candidate's gates.

  The figures are those of all images; `unseen`: of those that the model was not trained on, if there are any.
  """

  night: str
  accuracy: float | None
  accuracy_interval: Interval
  total: int
  verdict: str
  recalls: Mapping[str, float | None]
  unseen: Accuracies | None = None


def alike(nights: Sequence[TrendPoint]) -> tuple[Sequence[TrendPoint], bool]:
  """Returns nights with figures of one kind; whether these are `unseen`.

  Where one night has no such figures, as of earlier versions, all are shown with those of all images.
  """
  unseen = [night.unseen for night in nights if night.unseen]
  if not unseen or len(unseen) < len(nights):
    return nights, False
  return [
    dataclasses.replace(
      night,
      accuracy=figures.accuracy,
      accuracy_interval=figures.accuracy_interval or (0.0, 1.0),
      total=figures.total,
      recalls={label: row.accuracy for label, row in figures.per_label.items()},
    )
    for night, figures in zip(nights, unseen, strict=True)
  ], True


@dataclasses.dataclass(frozen=True)
class Metrics:
  """The contents of `metrics.json`; None where a version did not record them.

  `night`: `YYYY-MM-DD`, None for an evaluation; `trunk`: the handle given by the user.
  """

  model: ModelMetrics
  candidate: ModelMetrics | None = None
  night: str | None = None
  splits: tuple[str, ...] = ()
  trunk: str = ""
  stored_bottlenecks: bool | None = None
  bottlenecks: BottleneckCounts | None = None
  predictions_sha256: str | None = None
  leaks: LeakCounts | None = None
  bad_inputs: BadInputs | None = None

  @property
  def models(self) -> dict[str, ModelMetrics]:
    """`model` and, if given, `candidate`."""
    return {MODEL: self.model, **({CANDIDATE: self.candidate} if self.candidate else {})}

  @property
  def verdict(self) -> str:
    """Over all gates of all models."""
    return verdict_over(result for *_, result in self.gates())

  def gates(self) -> Iterator[tuple[str, ModelMetrics, str, GateResult]]:
    """Yields (name, model, gate, result) for each gate of each model."""
    for name, model in self.models.items():
      for gate, result in model.gates.items():
        yield name, model, gate, result

  def trend_point(self) -> TrendPoint:
    model = self.model
    return TrendPoint(
      night=self.night or "",
      accuracy=model.accuracy,
      accuracy_interval=model.accuracy_interval or (0.0, 1.0),
      total=model.total,
      verdict=verdict_over(model.gates.values()),
      recalls={row.label: row.recall for row in model.rows},
      unseen=model.unseen if model.unseen and model.unseen.total else None,
    )


def verdict_over(gates: Iterable[GateResult]) -> str:
  """Returns `MISSED` if any is, else `PASSED` or `NONE_SET`."""
  states = {gate.state for gate in gates}
  return next((state for state in (MISSED, PASSED) if state in states), NONE_SET)
