"""The report's wording of rates, intervals, verdicts, gates and chance."""

from __future__ import annotations

from collections.abc import Sequence

from beam_retrain.reporting import text_tables
from beam_retrain.reporting.gates import GATES, describe_changes, on_which, unusable
from beam_retrain.reporting.text_tables import describe_images
from beam_retrain.transforms.core.metrics.figures import (
  MISSED,
  NO_BASELINE,
  NO_DIFFERENCE,
  NONE_SET,
  PASSED,
  Calibration,
  ComparisonResult,
  Metrics,
  ModelMetrics,
)

_UNKNOWN = "\N{EN DASH}"
_NBSP = "\N{NO-BREAK SPACE}"
_LONGEST = 160  # characters of a file name that are shown


def number(value: int | None) -> str:
  """Returns for example `2,000`; a dash if unknown."""
  return _UNKNOWN if value is None else f"{value:,}"


def counted(value: int, thing: str, things: str = "") -> str:
  """Returns for example `1 slice`, `2,000 slices`; `things`: an irregular plural."""
  return f"{value:,} {thing if value == 1 else things or f'{thing}s'}"


def places_for(images: float) -> int:
  """Returns how many decimals of a percentage so many images are worth."""
  return 0 if images < 20 else 1 if images < 5_000 else 2


def percent(rate: float | None, places: int = 1) -> str:
  """Returns a rate, 0..1, as `98.2 %`; a dash if unknown.

  It is 100 % only where the rate is 1.
  """
  while rate is not None and rate < 1 and float(f"{100 * rate:.{places}f}") == 100 and places < 6:
    places += 1
  return _UNKNOWN if rate is None else f"{100 * rate:.{places}f}{_NBSP}%"


def interval(bounds: Sequence[float] | None) -> str:
  """Returns bounds, 0..1, as `97.9 to 98.5 %`, wide ones without decimals."""
  if bounds is None:
    return _UNKNOWN
  low, high = (f"{100 * bound:.{0 if bounds[1] - bounds[0] > 0.05 else 1}f}" for bound in bounds)
  return f"{low} to {high}{_NBSP}%"


def shortened(text: str) -> str:
  """Returns `text` without its middle if too long for the page."""
  return text_tables.shortened(text, _LONGEST, "\N{HORIZONTAL ELLIPSIS}")


def headline(metrics: Metrics) -> tuple[str, str]:
  """Returns the verdict over all gates and models, and its meaning.

  Too many bad inputs make the verdict `NOT_PUBLISHED` or `UNFINISHED`.
  """
  verdict, meaning = metrics.verdict, _meaning(metrics)
  override = unusable(metrics)
  return (verdict, meaning) if override is None else (override[0], f"{override[1]}; {meaning}")


def _meaning(metrics: Metrics) -> str:
  if metrics.verdict == NONE_SET:
    return "no gate was set, so nothing passed or was missed"
  if metrics.verdict == PASSED:
    return "every gate that was set holds"
  missed: dict[str, list[str]] = {}
  for name, _, gate, result in metrics.gates():
    if result.state == MISSED:
      missed.setdefault(name, []).append(shortened(spaced(GATES[gate].reason(result))))
  named = metrics.candidate is not None
  return "; ".join(f"{name.capitalize()}: " * named + ", ".join(reasons) for name, reasons in missed.items())


def spaced(text: str) -> str:
  """Returns `text` with no-break spaces before units."""
  return text.replace(" %", f"{_NBSP}%").replace(" point", f"{_NBSP}point")


def compared(comparison: ComparisonResult, subject: str, against: str) -> tuple[str, str]:
  """Returns the result of a comparison, and the role of chance.

  The result includes what new, gone and changed images did to the accuracy.
  """
  others = spaced(describe_images(comparison))
  others = others and f" {others[0].upper()}{others[1:]}"
  if comparison.verdict == NO_BASELINE:
    return "There is no baseline: nothing was compared, but later nights can be compared with this one.", ""
  if not comparison.paired:
    return f"Nothing compared: {subject} and {against} have no image in common.", ""
  regressed, fixed = comparison.regressed or 0, comparison.fixed or 0
  if not regressed + fixed:
    return f"No change: {subject} is right and wrong on the same images as {against}.{others}", ""
  changes = describe_changes(comparison, " image" if regressed == 1 else " images")
  if comparison.is_mixed:
    unseen = f"{counted(comparison.unseen_regressed or 0, 'image')} regressed, {number(comparison.unseen_fixed)} fixed"
    changes = f"{unseen}. On all {number(comparison.paired)}: {changes}"
  chance = how_often(comparison.p_value or 0.0)
  if comparison.verdict == NO_DIFFERENCE:
    finding = f"No difference shown between {subject} and {against}"
  else:
    finding = f"{subject.capitalize()} is {comparison.verdict} than {against}"
  return f"{finding}{on_which(comparison)}: {changes}.{others}", chance


def trained_on(model: ModelMetrics) -> str:
  """Returns how many of the images the model was trained on."""
  if model.trained_on is None:
    return "It is not known which of these images the model was trained on."
  if not model.is_mixed:
    return f"The model was trained on {'all' if model.trained_on else 'none'} of these images."
  return (
    f"{percent(model.accuracy)} on all {number(model.total)} images: the model was trained on"
    f" {number(model.trained_on)} of them. The sections on mistakes, confusion and calibration show all."
  )


def corrected(model: ModelMetrics) -> str:
  """Returns what corrections of labels did to the figures; "" without any."""
  if not (corrections := model.corrections):
    return ""
  relabelled, dropped = counted(corrections.relabelled, "label"), counted(corrections.dropped, "image")
  before, now = corrections.without, model.main
  places = places_for(max(before.total, now.total))
  with_them, without = (percent(one.accuracy, places).replace(_NBSP, " ") for one in (now, before))
  return (
    f"{relabelled} corrected and {dropped} left out: accuracy {with_them} with the corrections, {without} without"
    f" ({number(before.correct)} of {number(before.total)})"
  )


def how_often(p_value: float) -> str:
  """Returns a p-value in words: `... about 1 of 1,400 comparisons.`"""
  if p_value > 0.995:
    often = "nearly every comparison"
  elif p_value >= 0.095:
    often = f"about {100 * p_value:.0f} of 100 comparisons"
  elif p_value >= 1e-6:
    often = f"about 1 of {int(float(f'{1 / p_value:.2g}')):,} comparisons"
  else:
    often = "less than 1 of a million comparisons"
  return f"If nothing had really changed, chance alone would split the changes at least this unevenly in {often}."


def change(drop: float | None) -> str:
  """Returns a drop as `0.22 points lower`; a dash if unknown."""
  if drop is None:
    return _UNKNOWN
  return f"{100 * abs(drop):.2f}{_NBSP}points {'lower' if drop > 0 else 'higher'}" if drop else "none"


def calibrated(calibration: Calibration) -> str:
  """Returns how far confidence is from accuracy, and in which direction."""
  bins = [row for row in calibration.bins if row.images]
  if calibration.expected_error is None or not bins:
    return "No image has a confidence, so there is nothing to compare."
  lean = sum(row.images * (row.mean_confidence or 0.0) - row.correct for row in bins)
  total = sum(row.images for row in bins)
  if abs(lean) / total < 0.001:
    balance = "neither over- nor underconfident"
  else:
    balance = "overconfident" if lean > 0 else "underconfident"
  return (
    f"Confidence and accuracy differ by {100 * calibration.expected_error:.2f} percentage points on average (expected"
    f" calibration error); overall, the model is {balance}."
  )
