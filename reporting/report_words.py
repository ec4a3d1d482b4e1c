"""What the report says in words: rates, intervals, the verdict, the gates, and what chance has to do with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reporting.gates import MISSED, NONE_SET, PASSED, gate_value, overall

MODELS = {"model": "Model", "candidate": "Candidate"}
_GATES = {
  "min_accuracy": "accuracy at least",
  "max_drop": "drop in accuracy at most",
  "min_label_recall": "recall of every label at least",
}
_UNKNOWN = "\N{EN DASH}"
_NBSP = "\N{NO-BREAK SPACE}"
_LONGEST = 160  # characters of a file name that are shown


def count(number: int) -> str:
  return f"{number:,}"


def pictures(number: int) -> str:
  return f"{number:,} picture" if number == 1 else f"{number:,} pictures"


def percent(rate: float | None, places: int = 2) -> str:
  """Returns a rate, 0..1, for example as `98.21 %`; a dash where it is not known."""
  return _UNKNOWN if rate is None else f"{100 * rate:.{places}f}{_NBSP}%"


def interval(bounds: Sequence[float] | None) -> str:
  """Returns bounds, 0..1, for example as `97.9 to 98.5 %`."""
  return _UNKNOWN if bounds is None else f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}{_NBSP}%"


def points(difference: float) -> str:
  """Returns a difference of two rates, for example `0.22 percentage points`."""
  return f"{100 * abs(difference):.2f} percentage points"


def shortened(text: str) -> str:
  """Returns `text`, without its middle where it is longer than a page should have to bear."""
  half = _LONGEST // 2
  return text if len(text) <= _LONGEST else f"{text[:half]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}"


def of_each_model(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
  """Returns `model` and, where there is one, `candidate` -> its figures."""
  candidate = metrics.get("candidate")
  return {"model": metrics} if candidate is None else {"model": metrics, "candidate": candidate}


def headline(metrics: Mapping[str, Any]) -> tuple[str, str]:
  """Returns the verdict over all gates of all models (`passed`, `missed`, `none set`), and what it means."""
  rows = gate_rows(metrics)
  verdict = metrics.get("verdict") or (overall(metrics) if "gates" in metrics else NONE_SET)
  if verdict == NONE_SET:
    return verdict, "nothing was asked of the model, so nothing passed or was missed"
  if verdict == PASSED:
    return verdict, "every gate that was set holds"
  missed = [row for row in rows if row["state"] == MISSED]
  of = {"Model": "", "Candidate": "the candidate's "}
  return verdict, "; ".join(f"{of[row['model']]}{row['measured']}, asked: {row['asked']}" for row in missed)


def gate_rows(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
  """Returns what the table of gates says, one row per gate and model."""
  return [
    {
      "model": MODELS[model],
      "asked": f"{_GATES.get(name, name)} {_threshold(name, gate)}".strip(),
      "measured": _measured(figures, name),
      "state": gate["state"],
    }
    for model, figures in of_each_model(metrics).items()
    for name, gate in figures.get("gates", {}).items()
  ]


def _threshold(name: str, gate: Mapping[str, Any]) -> str:
  if gate["threshold"] is None:
    return ""
  return f"{100 * gate['threshold']:.10g}{_NBSP}{'points' if name == 'max_drop' else '%'}"


def _measured(figures: Mapping[str, Any], name: str) -> str:
  return gate_value(figures, name).replace(" %", f"{_NBSP}%")


def compared(comparison: Mapping[str, Any], subject: str, against: str) -> str:
  """Returns what a comparison found, with what chance alone would do, for people who are no statisticians.

  Args:
    comparison: as in `metrics.json`.
    subject: who is compared, for example `The model`.
    against: with whom, for example `the night of 2026-11-23`.
  """
  if comparison["verdict"] == "no baseline":
    return "There is no baseline yet: later nights can be compared with this one."
  regressed, fixed = comparison["regressed"], comparison["fixed"]
  if not comparison["paired"]:
    return f"{subject} and {against} have no picture in common, so they cannot be compared."
  if not regressed + fixed:
    return f"{subject} is right and wrong on the same pictures as {against}: no change at all."
  changes = f"{pictures(regressed)} went from right to wrong and {count(fixed)} from wrong to right"
  chance = how_often(comparison["p_value"])
  if comparison["verdict"] == "no difference shown":
    return f"No difference shown between {subject[0].lower()}{subject[1:]} and {against}: {changes}. {chance}"
  return f"{subject} is {comparison['verdict']} than {against}: {changes}. {chance}"


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
  """Returns a drop in accuracy as a change, for example `0.22 percentage points lower`."""
  return "none" if not drop else f"{points(drop)} {'lower' if drop > 0 else 'higher'}"


def calibrated(calibration: Mapping[str, Any]) -> str:
  """Returns how far confidence and truth are apart, and which way."""
  bins = [row for row in calibration["bins"] if row["pictures"]]
  if not bins:
    return "No picture has a confidence, so there is nothing to compare."
  error = calibration["expected_calibration_error"]
  lean = sum(row["pictures"] * row["mean_confidence"] - row["correct"] for row in bins)
  total = sum(row["pictures"] for row in bins)
  if abs(lean) / total < 0.001:
    which = "neither too sure nor too unsure on the whole"
  else:
    which = f"on the whole {'too sure' if lean > 0 else 'less sure than it could be'}"
  return (
    f"The confidence is {points(error)} away from the share that is right, averaged over all pictures (expected"
    f" calibration error): {which}."
  )
