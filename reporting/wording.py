"""What the report says in words: rates, intervals, the verdict, the gates, and what chance has to do with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from beam_retrain.reporting import text_tables
from beam_retrain.reporting.gates import MISSED, NONE_SET, PASSED, gate_value, of_them_edited, overall, unusable
from beam_retrain.reporting.gates import percent as exact_percent

MODELS = {"model": "Model", "candidate": "Candidate"}
# What is measured, and which side of the threshold passes.
_GATES = {
  "min_accuracy": ("accuracy", "at least"),
  "max_drop": ("drop in accuracy", "at most"),
  "min_label_recall": ("recall of every label", "at least"),
}
_UNKNOWN = "\N{EN DASH}"
_NBSP = "\N{NO-BREAK SPACE}"
_LONGEST = 160  # characters of a file name that are shown


def count(number: int) -> str:
  return f"{number:,}"


def counted(number: int, thing: str, things: str = "") -> str:
  """Returns for example `1 slice` or `2,000 slices`; `things` is the plural where an s is not all that it takes."""
  return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def images(number: int) -> str:
  return counted(number, "image")


def percent(rate: float | None, places: int = 2) -> str:
  """Returns a rate, 0..1, for example as `98.21 %`; a dash where it is not known."""
  return _UNKNOWN if rate is None else f"{100 * rate:.{places}f}{_NBSP}%"


def interval(bounds: Sequence[float] | None) -> str:
  """Returns bounds, 0..1, for example as `97.9 to 98.5 %`."""
  return _UNKNOWN if bounds is None else f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}{_NBSP}%"


def shortened(text: str) -> str:
  """Returns `text`, without its middle where it is longer than a page should have to bear."""
  return text_tables.shortened(text, _LONGEST, "\N{HORIZONTAL ELLIPSIS}")


def of_each_model(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
  """Returns `model` and, where there is one, `candidate` -> its figures."""
  candidate = metrics.get("candidate")
  return {"model": metrics} if candidate is None else {"model": metrics, "candidate": candidate}


def headline(metrics: Mapping[str, Any]) -> tuple[str, str]:
  """Returns the verdict and what it means.

  It is that over all gates of all models (`passed`, `missed`, `none set`) or, where more inputs are bad than allowed,
  what that makes of the figures (`gates.NOT_PUBLISHED`, `gates.UNFINISHED`).
  """
  verdict, meaning = _gates_verdict(metrics)
  found = unusable(metrics)
  return (verdict, meaning) if found is None else (found[0], f"{found[1]}; {meaning}")


def _gates_verdict(metrics: Mapping[str, Any]) -> tuple[str, str]:
  verdict = metrics.get("verdict") or (overall(metrics) if "gates" in metrics else NONE_SET)
  if verdict == NONE_SET:
    return verdict, "nothing was asked of the model, so nothing passed or was missed"
  if verdict == PASSED:
    return verdict, "every gate that was set holds"
  missed = {
    MODELS[model]: [_missed(name, gate) for name, gate in figures["gates"].items() if gate["state"] == MISSED]
    for model, figures in of_each_model(metrics).items()
  }
  named = "candidate" in metrics
  return verdict, "; ".join(
    (f"{model}: " if named else "") + ", ".join(reasons) for model, reasons in missed.items() if reasons
  )


def _missed(name: str, gate: Mapping[str, Any]) -> str:
  """Returns why a gate is missed, for example `accuracy 97.10 % is below 98 %`; the table of gates has more."""
  failing, value = gate.get("failing"), gate["value"]
  if failing:
    found = f"recall of {counted(len(failing), 'label')}" if len(failing) > 1 else f"recall of {shortened(failing[0])}"
  elif value is None:
    return f"{_GATES[name][0]} unknown"
  else:
    exact = exact_percent(value, gate["threshold"]).removesuffix(" %")
    found = f"drop of {exact}{_NBSP}points" if name == "max_drop" else f"accuracy {exact}{_NBSP}%"
  return f"{found} is {'above' if name == 'max_drop' else 'below'} {_threshold(name, gate)}"


def gate_rows(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
  """Returns what the table of gates says, one row per gate and model."""
  return [
    {
      "model": MODELS[model],
      "gate": _GATES[name][0],
      "threshold": f"{_GATES[name][1]} {_threshold(name, gate)}" if gate["threshold"] is not None else "",
      "measured": _measured(model, figures, name),
      "state": gate["state"],
    }
    for model, figures in of_each_model(metrics).items()
    for name, gate in figures.get("gates", {}).items()
  ]


def _threshold(name: str, gate: Mapping[str, Any]) -> str:
  number = f"{100 * gate['threshold']:.10g}"
  unit = "%" if name != "max_drop" else "point" if number == "1" else "points"
  return f"{number}{_NBSP}{unit}"


def _measured(model: str, figures: Mapping[str, Any], name: str) -> str:
  return gate_value(model, figures, name).replace(" %", f"{_NBSP}%")


def compared(comparison: Mapping[str, Any], subject: str, against: str) -> tuple[str, str]:
  """Returns what a comparison found, and what chance alone would do, for people who are no statisticians.

  Args:
    comparison: as in `metrics.json`.
    subject: who is compared, for example `the model`.
    against: with whom, for example `2026-11-23`.
  """
  if comparison["verdict"] == "no baseline":
    return "There is no baseline: nothing was compared, but later nights can be compared with this one.", ""
  if not comparison["paired"]:
    return f"Nothing compared: {subject} and {against} have no image in common.", ""
  regressed, fixed = comparison["regressed"], comparison["fixed"]
  if not regressed + fixed:
    return f"No change: {subject} is right and wrong on the same images as {against}.", ""
  changes = ", ".join(
    f"{number} {kind}{of_them_edited(comparison, kind)}"
    for number, kind in ((images(regressed), "regressed"), (count(fixed), "fixed"))
  )
  chance = how_often(comparison["p_value"])
  if comparison["verdict"] == "no difference shown":
    return f"No difference shown between {subject} and {against}: {changes}.", chance
  return f"{subject.capitalize()} is {comparison['verdict']} than {against}: {changes}.", chance


def how_often(p_value: float) -> str:
  """Returns what a p-value means, for example `If nothing had really changed, ... about 1 of 1,400 comparisons.`"""
  if p_value > 0.995:
    often = "nearly every comparison"
  elif p_value >= 0.095:
    often = f"about {100 * p_value:.0f} of 100 comparisons"
  elif p_value >= 1e-6:
    often = f"about 1 of {int(float(f'{1 / p_value:.2g}')):,} comparisons"
  else:
    often = "less than 1 of a million comparisons"
  return f"If nothing had really changed, chance alone would split the changes at least this unevenly in {often}."


def change(drop: float) -> str:
  """Returns a drop in accuracy as a change, for example `0.22 points lower`."""
  return f"{100 * abs(drop):.2f}{_NBSP}points {'lower' if drop > 0 else 'higher'}" if drop else "none"


def calibrated(calibration: Mapping[str, Any]) -> str:
  """Returns how far confidence and truth are apart, and which way."""
  bins = [row for row in calibration["bins"] if row["pictures"]]
  if not bins:
    return "No image has a confidence, so there is nothing to compare."
  error = calibration["expected_calibration_error"]
  lean = sum(row["pictures"] * row["mean_confidence"] - row["correct"] for row in bins)
  total = sum(row["pictures"] for row in bins)
  if abs(lean) / total < 0.001:
    which = "neither too sure nor too unsure on the whole"
  else:
    which = f"on the whole {'too sure' if lean > 0 else 'less sure than it could be'}"
  return (
    f"The confidence is {100 * error:.2f} percentage points away from the share that is right, averaged over all"
    f" images (expected calibration error): {which}."
  )
