"""Gates: what the user set, whether it holds, and the sentences that say so. Text and values made from `metrics.json`.

A gate has three states, always written out: `passed`, `missed` and `none set`. Chance is no alarm: only a gate can be
missed. A change that McNemar's test does not put down to chance is told in the verdict, whatever the gates say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beam_retrain.reporting.text_tables import printable

PASSED = "passed"
MISSED = "missed"
NONE_SET = "none set"
NOT_PUBLISHED = "not published"
UNFINISHED = "unfinished"
"""What too many bad inputs make of a night, and of an evaluation, whatever its gates say."""
_FIRST_WORD = {PASSED: "PASSED", MISSED: "MISSED", NONE_SET: "NO GATE SET"}
_MAX_LABELS = 5
_MAX_DECIMALS = 6


def judge(
  metrics: Mapping[str, Any],
  *,
  min_accuracy: float | None,
  max_drop: float | None,
  min_label_recall: float | None,
) -> dict[str, dict[str, Any]]:
  """Returns gate name -> `{state, threshold, value}` of one model; all rates are 0..1, None where unknown.

  What could not be measured misses a gate that was set; there is one exception: without a baseline nothing has dropped.

  Args:
    metrics: what is known of the model: `accuracy`, `labels`, `per_label`, and `comparison` where there is one.
    min_accuracy: the lowest accuracy that passes.
    max_drop: how far the accuracy over the images that the baseline has too may lie below the baseline's.
    min_label_recall: the lowest recall that passes, of every label that has a image. That gate has one more entry,
      `failing`: the labels below it, in the order of the label list.
  """
  recalls = _recalls(metrics)
  lowest = min(recalls.values(), default=None)
  failing = [label for label, recall in recalls.items() if min_label_recall is not None and recall < min_label_recall]
  drop = _drop(metrics)
  baseline = (metrics.get("comparison") or {}).get("baseline")
  return {
    "min_accuracy": _gate(min_accuracy, metrics["accuracy"], _not_below(metrics["accuracy"], min_accuracy)),
    "max_drop": _gate(max_drop, drop, _not_below(max_drop, drop) if baseline is not None else True),
    "min_label_recall": {
      **_gate(min_label_recall, lowest, _not_below(lowest, min_label_recall)),
      "failing": failing,
    },
  }


def overall(metrics: Mapping[str, Any]) -> str:
  """Returns `missed` where any gate is, the candidate's too; else `passed` where any is set; else `none set`."""
  states = {gate["state"] for model in _models(metrics).values() for gate in model["gates"].values()}
  return next((state for state in (MISSED, PASSED) if state in states), NONE_SET)


def unusable(metrics: Mapping[str, Any]) -> tuple[str, str] | None:
  """Returns, where more inputs are bad than allowed, what that makes of the figures (`NOT_PUBLISHED` or `UNFINISHED`)
  and the reason, for example `2 of 1,799 inputs are bad`; else None."""
  bad = metrics.get("bad_inputs")
  if not bad or not bad["too_many"]:
    return None
  return NOT_PUBLISHED if "night" in metrics else UNFINISHED, bad_inputs(bad)


def bad_inputs(bad: Mapping[str, Any]) -> str:
  """Returns for example `2 of 1,799 inputs are bad`."""
  return f"{bad['quarantined']:,} of {bad['inputs']:,} inputs {'is' if bad['quarantined'] == 1 else 'are'} bad"


def verdict_line(metrics: Mapping[str, Any]) -> str:
  """Returns the summary's first line: the verdict, the gates that were missed, the accuracy, what changed.

  For example `PASSED: accuracy 99.04 % (95 % interval 98.8 to 99.2), no difference from 2026-11-23 beyond chance
  (3 regressed, 2 fixed, p = 1.00)`. Where more inputs are bad than allowed, that comes first.
  """
  verdict = overall(metrics)
  models = _models(metrics)
  missed = [
    f"{_of(name)}{named(gate, model['gates'][gate])}: {gate_value(name, model, gate)}"
    for name, model in models.items()
    for gate in model["gates"]
    if model["gates"][gate]["state"] == MISSED
  ]
  told = []
  for name, model in models.items():
    accuracy = [] if model["gates"]["min_accuracy"]["state"] == MISSED else [_accuracy(model)]
    change = [_change(name, model["comparison"], verdict)] if model.get("comparison") else []
    if accuracy or change:
      told.append(_of(name) + ", ".join([*accuracy, *change]))
  state, reason = unusable(metrics) or (_FIRST_WORD[verdict], "")
  return f"{state.upper()}: {'; '.join([*([reason] if reason else []), *missed, *told])}"


def gate_lines(metrics: Mapping[str, Any]) -> list[str]:
  """Returns a line per gate and model: `gate min_accuracy 98 %: passed (accuracy 98.21 % (...))`, `...: none set`."""
  return [
    f"{_of(name)}gate {named(gate, state)}: {state['state']}"
    + ("" if state["state"] == NONE_SET else f" ({gate_value(name, model, gate)})")
    for name, model in _models(metrics).items()
    for gate, state in model["gates"].items()
  ]


def named(gate: str, state: Mapping[str, Any]) -> str:
  """Returns a gate with its threshold, where it has one: `min_accuracy 98.765 %`."""
  return gate if state["threshold"] is None else f"{gate} {asked(state['threshold'])}"


def asked(threshold: float) -> str:
  """Returns a threshold, 0..1, as the user gave it: `98.765 %`."""
  return f"{100 * threshold:.10g} %"


def gate_value(name: str, model: Mapping[str, Any], gate: str) -> str:
  """Returns what a gate measured, in words: `accuracy 97.12 % (95 % interval 96.8 to 97.4)`, `recall of 7 91.20 %`.

  Args:
    name: `model` or `candidate`, which says what `model` is compared with; the baseline's own name may be any.
    model: its figures.
    gate: the gate's name.
  """
  state = model["gates"][gate]
  if gate == "min_accuracy":
    return _accuracy(model)
  if gate == "max_drop":
    return _dropped(name, model, state)
  if state["value"] is None:
    return "not one label has a image"
  recalls = _recalls(model)
  shown = state["failing"] or [min(recalls, key=lambda label: recalls[label])]
  words = [f"{printable(label)} {percent(recalls[label], state['threshold'])}" for label in shown[:_MAX_LABELS]]
  more = f" and {len(shown) - _MAX_LABELS:,} more" if len(shown) > _MAX_LABELS else ""
  return f"{'recall of' if state['failing'] else 'lowest recall:'} {', '.join(words)}{more}"


def percent(fraction: float, threshold: float | None = None) -> str:
  """Returns for example `97.12 %`; with as many more decimals as it takes to tell `fraction` from `threshold`."""
  text = f"{100 * fraction:.2f}"
  for decimals in range(3, _MAX_DECIMALS + 1):
    if threshold is None or fraction == threshold or float(text) != round(100 * threshold, _MAX_DECIMALS):
      break
    text = f"{100 * fraction:.{decimals}f}"
  return f"{text} %"


def _models(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
  return {"model": metrics, **({"candidate": metrics["candidate"]} if metrics.get("candidate") else {})}


def _of(model: str) -> str:
  return "" if model == "model" else f"{model}: "


def _gate(threshold: float | None, value: float | None, holds: bool) -> dict[str, Any]:
  state = NONE_SET if threshold is None else PASSED if holds else MISSED
  return {"state": state, "threshold": threshold, "value": value}


def _not_below(value: float | None, least: float | None) -> bool:
  return value is not None and least is not None and value >= least


def _recalls(metrics: Mapping[str, Any]) -> dict[str, float]:
  """Returns label -> recall of the labels that have a image, in the order of the label list."""
  rows = metrics["per_label"]
  return {label: rows[label]["recall"] for label in metrics["labels"] if rows[label]["support"]}


def _drop(metrics: Mapping[str, Any]) -> float | None:
  """One division: the difference of two rounded quotients may lie above a threshold that the true one only reaches."""
  comparison = metrics.get("comparison") or {}
  if not comparison.get("paired"):
    return None
  drop: float = (comparison["baseline_correct"] - comparison["correct"]) / comparison["paired"]
  return drop


def _accuracy(model: Mapping[str, Any]) -> str:
  if model["accuracy"] is None:
    return "accuracy unknown, not one image could be evaluated"
  low, high = model["accuracy_interval_95"]
  value = percent(model["accuracy"], model["gates"]["min_accuracy"]["threshold"])
  counts = f"{model['correct']:,} of {model['total']:,} right"
  return f"accuracy {value} ({counts}; 95 % interval {100 * low:.1f} to {100 * high:.1f})"


def _dropped(name: str, model: Mapping[str, Any], state: Mapping[str, Any]) -> str:
  comparison = model.get("comparison") or {}
  if comparison.get("baseline") is None:
    return "no baseline"
  baseline = _baseline(name, comparison)
  if state["value"] is None:
    return f"not one image is in {baseline} too"
  if not state["value"]:
    return f"accuracy as that of {baseline}"
  points = percent(abs(state["value"]), state["threshold"]).removesuffix(" %")
  return f"accuracy {points} percentage points {'below' if state['value'] > 0 else 'above'} that of {baseline}"


def _change(name: str, comparison: Mapping[str, Any], verdict: str) -> str:
  if comparison["baseline"] is None:
    return "no baseline to compare with"
  baseline = _baseline(name, comparison)
  if not comparison["paired"]:
    return f"not one image is in {baseline} too"
  if comparison["verdict"] in ("worse", "better"):
    change = f"{comparison['verdict']} than {baseline} by more than chance explains"
  else:
    change = f"no difference from {baseline} beyond chance"
  but = "but " if comparison["verdict"] == "worse" and verdict != MISSED else ""
  counts = ", ".join(
    f"{comparison[kind]:,} {kind}{of_them_edited(comparison, kind)}" for kind in ("regressed", "fixed")
  )
  return f"{but}{change} ({counts}, {_p_value(comparison['p_value'])})"


def of_them_edited(comparison: Mapping[str, Any], kind: str) -> str:
  """Returns, where images of `kind` (`regressed` or `fixed`) were edited since the baseline, how many of them."""
  edited = comparison.get(f"{kind}_edited")
  return f", {edited:,} of them edited" if edited else ""


def _baseline(name: str, comparison: Mapping[str, Any]) -> str:
  return "the model" if name == "candidate" else printable(comparison["baseline"])


def _p_value(p_value: float) -> str:
  if p_value < 0.0001:
    return "p < 0.0001"
  return f"p = {p_value:.2f}" if p_value >= 0.1 else f"p = {p_value:.4f}"
