"""Gates: thresholds set by the user, their checks and their wording.

A new gate is one `Gate` in `GATES`: its flag, check, wording and entry in `metrics.json` follow from it. Only a gate
can be missed. A change that McNemar's test does not explain by chance is named in the verdict, whatever the gates say.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from beam_retrain.reporting.text_tables import comparisons
from beam_retrain.transforms.core.metrics.figures import (
  BETTER,
  MISSED,
  MODEL,
  NONE_SET,
  PASSED,
  WORSE,
  BadInputs,
  ComparisonResult,
  GateResult,
  Metrics,
  ModelMetrics,
)
from beam_retrain.transforms.core.printing import printable

NOT_PUBLISHED = "not published"
UNFINISHED = "unfinished"
"""States of a night and of an evaluation with too many bad inputs, whatever their gates say."""
_MAX_LABELS = 5
_MAX_DECIMALS = 6


class Case(NamedTuple):
  """A test case; `result` is `failure`, `error`, `skipped` or empty."""

  name: str
  result: str = ""
  message: str = ""


class Gate(abc.ABC):
  """A threshold that a user can set; its flag has its name."""

  name: str
  metavar: str
  help: str
  quantity: str
  bound = "at least"  # which side of the threshold passes
  unit = "%"  # of the threshold, which is 0..1 and shown times 100
  case_class = ""  # group of its additional test cases
  needs_comparison = False  # whether it exists only with something to compare with
  threshold_of = ""  # the gate whose flag sets the threshold; empty: its own

  @property
  def has_flag(self) -> bool:
    return not self.threshold_of

  def applies(self, model: ModelMetrics) -> bool:
    return True

  def judge(self, model: ModelMetrics, threshold: float | None) -> GateResult:
    """Returns the result; an unknown measurement misses a threshold."""
    value = self._measure(model)
    if threshold is None:
      return GateResult(NONE_SET, None, value)
    return GateResult(PASSED if self._holds(model, value, threshold) else MISSED, threshold, value)

  @abc.abstractmethod
  def _measure(self, model: ModelMetrics) -> float | None:
    """Returns the measurement, 0..1; None if unknown."""

  def _holds(self, model: ModelMetrics, value: float | None, threshold: float) -> bool:
    return value is not None and value >= threshold

  @abc.abstractmethod
  def measured(self, name: str, model: ModelMetrics, result: GateResult) -> str:
    """Returns the measurement in words: `accuracy 97.12 % (...)`."""

  def reason(self, result: GateResult) -> str:
    """Returns why it is missed: `accuracy 97.10 % is below 98 %`."""
    if result.value is None or result.threshold is None:
      return f"{self.quantity} unknown"
    side = "below" if self.bound == "at least" else "above"
    return f"{self._subject(result, percent(result.value, result.threshold))} is {side} {self.shown(result.threshold)}"

  def _subject(self, result: GateResult, value: str) -> str:
    return f"{self.quantity} {value}"

  def shown(self, threshold: float) -> str:
    """Returns a threshold with its unit, as the user gave it."""
    return f"{100 * threshold:.10g} {self.unit}"

  def cases(self, model: ModelMetrics, result: GateResult) -> Iterator[Case]:
    """Yields additional test cases."""
    yield from ()


class _MinAccuracy(Gate):
  name = "min_accuracy"
  metavar = "A"
  help = (
    "gate, 0..1: exit with code 1 if the accuracy is below, on the images that the model was not trained on, or on all"
    " if there are none or that is unknown (default: none set)"
  )
  quantity = "accuracy"

  def _measure(self, model: ModelMetrics) -> float | None:
    return model.main.accuracy

  def measured(self, name: str, model: ModelMetrics, result: GateResult) -> str:
    return _accuracy(model)


class _MaxDrop(Gate):
  name = "max_drop"
  metavar = "D"
  help = (
    "gate, 0..1: exit with code 1 if the accuracy on the images of the baseline, or of the reference, fell by more,"
    " on those that the models were not trained on if there are any; a candidate's drop is measured against the model"
    " of tonight, and the reference (default: none set)"
  )
  quantity = "drop in accuracy"
  bound = "at most"
  unit = "points"
  needs_comparison = True

  def _comparison(self, model: ModelMetrics) -> ComparisonResult | None:
    return model.comparison

  def applies(self, model: ModelMetrics) -> bool:
    return self._comparison(model) is not None

  def _measure(self, model: ModelMetrics) -> float | None:
    comparison = self._comparison(model)
    return comparison.drop if comparison else None

  def _holds(self, model: ModelMetrics, value: float | None, threshold: float) -> bool:
    # Without a baseline nothing has dropped.
    comparison = self._comparison(model)
    return comparison is None or comparison.baseline is None or (value is not None and value <= threshold)

  def measured(self, name: str, model: ModelMetrics, result: GateResult) -> str:
    comparison = self._comparison(model)
    if comparison is None or comparison.baseline is None:
      return "no baseline"
    against = next(against for against, each in comparisons(name, model) if each is comparison)
    if result.value is None:
      return f"no image in common with {against}"
    where = on_which(comparison)
    if not result.value:
      return f"accuracy{where} equal to that of {against}"
    points = percent(abs(result.value), result.threshold).removesuffix(" %")
    return f"accuracy{where} {points} percentage points {'below' if result.value > 0 else 'above'} that of {against}"

  def _subject(self, result: GateResult, value: str) -> str:
    return f"drop of {value.removesuffix(' %')} points"

  def shown(self, threshold: float) -> str:
    text = super().shown(threshold)
    return text.removesuffix("s") if text == "1 points" else text


class _MaxDropFromReference(_MaxDrop):
  name = "max_drop_from_reference"
  quantity = "drop in accuracy since the reference"
  threshold_of = _MaxDrop.name

  def _comparison(self, model: ModelMetrics) -> ComparisonResult | None:
    return model.reference

  def _subject(self, result: GateResult, value: str) -> str:
    return f"{super()._subject(result, value)} since the reference"


class _MinLabelRecall(Gate):
  name = "min_label_recall"
  metavar = "R"
  help = (
    "gate, 0..1: exit with code 1 if the recall of any label is below, on the same images as min_accuracy (default:"
    " none set)"
  )
  quantity = "recall of every label"
  case_class = "recall"

  def judge(self, model: ModelMetrics, threshold: float | None) -> GateResult:
    result = super().judge(model, threshold)
    recalls = model.recalls().items()
    failing = tuple(label for label, recall in recalls if threshold is not None and recall < threshold)
    return dataclasses.replace(result, failing=failing)

  def _measure(self, model: ModelMetrics) -> float | None:
    return min(model.recalls().values(), default=None)

  def measured(self, name: str, model: ModelMetrics, result: GateResult) -> str:
    if result.value is None:
      return "no label has images"
    recalls = model.recalls()
    shown = result.failing or [min(recalls, key=lambda label: recalls[label])]
    words = [f"{printable(label)} {percent(recalls[label], result.threshold)}" for label in shown[:_MAX_LABELS]]
    more = f" and {len(shown) - _MAX_LABELS:,} more" if len(shown) > _MAX_LABELS else ""
    return f"{'recall of' if result.failing else 'lowest recall:'} {', '.join(words)}{more}"

  def _subject(self, result: GateResult, value: str) -> str:
    failing = result.failing or ()
    return f"recall of {f'{len(failing):,} labels' if len(failing) > 1 else failing[0]}"

  def cases(self, model: ModelMetrics, result: GateResult) -> Iterator[Case]:
    threshold = result.threshold
    if threshold is None:
      return
    for label, row in model.main.per_label.items():
      name = printable(label)
      if row.accuracy is None:
        untrained = " that the model was not trained on" if model.is_mixed else ""
        yield Case(name, "skipped", f"no image{untrained} has this label")
      elif label in (result.failing or ()):
        right = f"{row.correct:,} of {row.total:,} right"
        recall = percent(row.accuracy, threshold)
        yield Case(name, "failure", f"recall {recall} is below {self.shown(threshold)} ({right})")
      else:
        yield Case(name)


GATES: Mapping[str, Gate] = {
  gate.name: gate for gate in (_MinAccuracy(), _MaxDrop(), _MaxDropFromReference(), _MinLabelRecall())
}


def judge(model: ModelMetrics, thresholds: Mapping[str, float | None]) -> dict[str, GateResult]:
  """Returns the result of each gate that applies to a model."""
  gates = [gate for gate in GATES.values() if gate.applies(model)]
  return {gate.name: gate.judge(model, thresholds.get(gate.threshold_of or gate.name)) for gate in gates}


def unusable(metrics: Metrics) -> tuple[str, str] | None:
  """Returns state and reason if too many inputs are bad."""
  bad = metrics.bad_inputs
  if not bad or not bad.too_many:
    return None
  return UNFINISHED if metrics.night is None else NOT_PUBLISHED, describe_bad_inputs(bad)


def describe_bad_inputs(bad: BadInputs) -> str:
  """Returns for example `2 of 1,799 inputs are bad`."""
  return f"{bad.quarantined:,} of {bad.inputs:,} inputs {'is' if bad.quarantined == 1 else 'are'} bad"


def verdict_line(metrics: Metrics) -> str:
  """Returns a summary: verdict, missed gates, accuracy, changes.

  For example `PASSED: accuracy 99.04 % (95 % interval 98.8 to 99.2), no difference from 2026-11-23 beyond chance
  (3 regressed, 2 fixed, p = 1.00)`. Too many bad inputs come first.
  """
  verdict = metrics.verdict
  missed, findings = [], []
  for name, model in metrics.models.items():
    gates = model.gates
    missed += [f"{_of(name)}{gate_line(name, model, gate)}" for gate in gates if gates[gate].state == MISSED]
    accuracy = [] if gates["min_accuracy"].state == MISSED else [_accuracy(model)]
    changes = [_change(against, result, verdict) for against, result in comparisons(name, model)]
    if accuracy or changes:
      findings.append(_of(name) + ", ".join([*accuracy, *changes]))
  state, *reason = unusable(metrics) or (verdict,)
  return f"{verdict_in_words(state).upper()}: {'; '.join([*reason, *missed, *findings])}"


def verdict_in_words(verdict: str) -> str:
  return "no gate set" if verdict == NONE_SET else verdict


def trained_on(model: ModelMetrics) -> str:
  """Returns how many images were trained on; "" if unknown."""
  if not model.total or model.trained_on is None:
    return ""
  if model.is_mixed:
    rate = percent(model.accuracy or 0.0)
    return f"; {rate} on all {model.total:,}, of which the model was trained on {model.trained_on:,}"
  return f", {'all' if model.trained_on else 'none'} of which the model was trained on"


def gate_lines(metrics: Metrics) -> list[str]:
  """Returns one line per model and gate that is set."""
  return [
    f"{_of(name)}gate {named(gate, result)}: {result.state} ({gate_value(name, model, gate)})"
    for name, model, gate, result in metrics.gates()
    if result.state != NONE_SET
  ]


def gate_line(name: str, model: ModelMetrics, gate: str) -> str:
  """Returns `min_accuracy 98 %: accuracy 97.12 % (...)`."""
  return f"{named(gate, model.gates[gate])}: {gate_value(name, model, gate)}"


def named(gate: str, result: GateResult) -> str:
  """Returns a gate with its threshold, if set: `min_accuracy 98.765 %`."""
  return gate if result.threshold is None else f"{gate} {100 * result.threshold:.10g} %"


def gate_value(name: str, model: ModelMetrics, gate: str) -> str:
  """Returns a gate's measurement in words, for `model` or `candidate`."""
  return GATES[gate].measured(name, model, model.gates[gate])


def percent(fraction: float, threshold: float | None = None) -> str:
  """Returns a rate in percent, with enough decimals to differ from `threshold`."""
  decimals = 2
  while (
    threshold not in (None, fraction)
    and decimals < _MAX_DECIMALS
    and round(100 * fraction, decimals) == round(100 * threshold, _MAX_DECIMALS)
  ):
    decimals += 1
  return f"{100 * fraction:.{decimals}f} %"


def describe_changes(comparison: ComparisonResult, images: str = "") -> str:
  """Returns for example `3 regressed, 1 of them edited, 2 fixed`.

  `images`: word after the first number, with a space before it.
  """
  return ", ".join(
    f"{number or 0:,}{word} {kind}" + (f", {edited:,} of them edited" if edited else "")
    for number, word, kind, edited in (
      (comparison.regressed, images, "regressed", comparison.regressed_edited),
      (comparison.fixed, "", "fixed", comparison.fixed_edited),
    )
  )


def _of(model: str) -> str:
  return "" if model == MODEL else f"{model}: "


def _accuracy(model: ModelMetrics) -> str:
  main = model.main
  if main.accuracy is None or model.accuracy is None:
    return "accuracy unknown, no image could be evaluated"
  low, high = main.accuracy_interval or (0.0, 1.0)
  value = percent(main.accuracy, model.gates["min_accuracy"].threshold)
  figures = f"{main.correct:,} of {main.total:,} right; 95 % interval {100 * low:.1f} to {100 * high:.1f}"
  if model.is_mixed:
    beside = f"{percent(model.accuracy)} on all {model.total:,} ({model.trained_on:,} trained on)"
    return f"accuracy {value} on images not trained on ({figures}), {beside}"
  how_many = {None: "unknown how many", 0: "none"}.get(model.trained_on, "all")
  return f"accuracy {value} ({figures}; {how_many} trained on)"


def on_which(comparison: ComparisonResult) -> str:
  """Returns ` on the 111 images of both not trained on`.

  These are the images of the verdict; empty if there are no others.
  """
  parts = [" of both"] if comparison.new or comparison.gone else []
  parts += [" not trained on"] if comparison.is_mixed else []
  number = comparison.unseen_paired if comparison.is_mixed else comparison.paired
  return f" on the {number:,} {'image' if number == 1 else 'images'}{''.join(parts)}" if parts else ""


def _change(against: str, comparison: ComparisonResult, verdict: str) -> str:
  if comparison.baseline is None:
    return "no baseline to compare with"
  if not comparison.paired:
    return f"no image in common with {against}"
  if comparison.verdict in (WORSE, BETTER):
    change = f"{comparison.verdict} than {against} by more than chance explains"
  else:
    change = f"no difference from {against} beyond chance"
  change += on_which(comparison)
  but = "but " if comparison.verdict == WORSE and verdict != MISSED else ""
  p_value = comparison.p_value or 0.0
  chance = "p < 0.0001" if p_value < 0.0001 else f"p = {p_value:.{2 if p_value >= 0.1 else 4}f}"
  new, gone = comparison.new, comparison.gone
  others = f", {comparison.new_correct or 0:,} of {new:,} new images right" if new else ""
  others += f", {comparison.gone_correct or 0:,} of {gone:,} gone images right before" if gone else ""
  changes = f"{describe_changes(comparison)}, {chance}"
  if comparison.is_mixed:
    changes = f"{comparison.unseen_regressed or 0:,} regressed, {comparison.unseen_fixed or 0:,} fixed, {chance}"
    changes += f"; on all {comparison.paired:,}: {describe_changes(comparison)}"
  return f"{but}{change} ({changes}){others}"
