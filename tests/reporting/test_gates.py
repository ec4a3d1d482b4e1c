"""What a gate decides, and the sentences that tell it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest

from beam_retrain.reporting import gates
from beam_retrain.reporting.gates import judge, named, percent
from beam_retrain.transforms.core.metrics import comparison
from beam_retrain.transforms.core.metrics.figures import GateResult
from beam_retrain.transforms.core.metrics.metrics_file import metrics_from_json, model_from_json, model_to_json


def verdict_line(entries: dict[str, Any]) -> str:
  return gates.verdict_line(metrics_from_json(entries))


def gate_lines(entries: dict[str, Any]) -> list[str]:
  return gates.gate_lines(metrics_from_json(entries))


def gate_value(name: str, entries: dict[str, Any], gate: str) -> str:
  return gates.gate_value(name, model_from_json(entries), gate)


def overall(entries: dict[str, Any]) -> str:
  return metrics_from_json(entries).verdict


def _comparison(regressed: int = 3, fixed: int = 2, paired: int = 1_000, **changes: Any) -> dict[str, Any]:
  baseline_correct = 950
  correct = baseline_correct - regressed + fixed
  return {
    "baseline": "2026-11-23",
    "paired": paired,
    "baseline_correct": baseline_correct,
    "correct": correct,
    "regressed": regressed,
    "fixed": fixed,
    "drop": (baseline_correct - correct) / paired if paired else None,
    "p_value": 1.0,
    "verdict": "no difference shown",
    **changes,
  }


_NO_BASELINE = {
  **dict.fromkeys(_comparison(), None),
  "verdict": "no baseline",
}


def _model(
  recalls: dict[str, tuple[int, int]] | None = None, comparison: dict[str, Any] | None = None, **thresholds: float
) -> dict[str, Any]:
  """Metrics of a model with label -> (correct, support), judged."""
  rows = {"7": (99, 100), "1": (90, 100), "0": (0, 0)} if recalls is None else recalls
  correct, total = (sum(row[place] for row in rows.values()) for place in (0, 1))
  metrics: dict[str, Any] = {
    "total": total,
    "correct": correct,
    "accuracy": correct / total if total else None,
    "accuracy_interval_95": [0.914, 0.969],
    "labels": list(rows),
    "per_label": {
      label: {"support": support, "correct": right, "recall": right / support if support else None}
      for label, (right, support) in rows.items()
    },
  }
  if comparison is not None:
    metrics["comparison"] = comparison
  model = model_from_json(metrics)
  return model_to_json(dataclasses.replace(model, gates=judge(model, thresholds)))


def _night(model: dict[str, Any], candidate: dict[str, Any] | None = None) -> dict[str, Any]:
  return {**model, "candidate": candidate}


def test_no_gate_is_set():
  metrics = _model(comparison=_comparison())
  assert metrics["gates"] == {
    "min_accuracy": {"state": "none set", "threshold": None, "value": 0.945},
    "max_drop": {"state": "none set", "threshold": None, "value": 0.001},
    "min_label_recall": {"state": "none set", "threshold": None, "value": 0.9, "failing": []},
  }
  assert overall(metrics) == "none set"


@pytest.mark.parametrize(("threshold", "state"), [(0.945, "passed"), (0.9451, "missed"), (0.0, "passed")])
def test_the_accuracy_gate(threshold, state):
  gate = _model(min_accuracy=threshold)["gates"]["min_accuracy"]
  assert gate == {"state": state, "threshold": threshold, "value": 0.945}


def test_nothing_evaluated_misses_what_was_set():
  found = _model(recalls={"7": (0, 0)}, comparison=_comparison(paired=0), min_accuracy=0.0, max_drop=1.0)["gates"]
  assert found["min_accuracy"] == {"state": "missed", "threshold": 0.0, "value": None}
  assert found["max_drop"] == {"state": "missed", "threshold": 1.0, "value": None}
  assert _model(recalls={"7": (0, 0)}, min_label_recall=0.0)["gates"]["min_label_recall"] == {
    "state": "missed",
    "threshold": 0.0,
    "value": None,
    "failing": [],
  }


@pytest.mark.parametrize(
  ("regressed", "fixed", "state"), [(10, 0, "passed"), (11, 0, "missed"), (21, 10, "missed"), (0, 30, "passed")]
)
def test_the_drop_gate_is_missed_only_above_its_threshold(regressed, fixed, state):
  gate = _model(comparison=_comparison(regressed, fixed), max_drop=0.01)["gates"]["max_drop"]
  assert gate == {"state": state, "threshold": 0.01, "value": (regressed - fixed) / 1_000}


def test_a_drop_that_reaches_the_threshold_passes_however_the_difference_is_rounded():
  assert 950 / 1_000 - 940 / 1_000 > 0.01
  counts = {"paired": 1_000, "baseline_correct": 950, "correct": 940, "regressed": 10}
  compared = comparison.Comparison(Counter({("model", "baseline", what): count for what, count in counts.items()}))
  result = comparison.extract(compared, comparison.Plan(("model",), "2026-11-23"))["model"]
  gate = _model(comparison=dataclasses.asdict(result), max_drop=0.01)["gates"]["max_drop"]
  assert gate == {"state": "passed", "threshold": 0.01, "value": 0.01}


def test_without_a_baseline_nothing_has_dropped():
  assert _model(comparison=_NO_BASELINE, max_drop=0.0)["gates"]["max_drop"] == {
    "state": "passed",
    "threshold": 0.0,
    "value": None,
  }
  assert "max_drop" not in _model(max_drop=0.0)["gates"], "an evaluation compares nothing"


def test_the_recall_gate_names_every_label_below_it_in_the_order_of_the_label_list():
  recalls = {"9": (89, 100), "2": (95, 100), "0": (0, 0), "5": (94, 100), "1": (100, 100)}
  gate = _model(recalls, min_label_recall=0.95)["gates"]["min_label_recall"]
  assert gate == {"state": "missed", "threshold": 0.95, "value": 0.89, "failing": ["9", "5"]}
  gate = _model(recalls, min_label_recall=0.89)["gates"]["min_label_recall"]
  assert gate == {"state": "passed", "threshold": 0.89, "value": 0.89, "failing": []}


@pytest.mark.parametrize(
  ("model", "candidate", "verdict"),
  [
    ({}, {}, "none set"),
    ({"min_accuracy": 0.9}, {}, "passed"),
    ({}, {"min_accuracy": 0.9}, "passed"),
    ({"min_accuracy": 0.9}, {"max_drop": 0.0}, "missed"),
    ({"min_label_recall": 0.95}, {"max_drop": 0.5}, "missed"),
  ],
)
def test_the_verdict_is_over_all_gates_of_both_models(model, candidate, verdict):
  comparison = _comparison(baseline="model")
  assert overall(_night(_model(**model), _model(comparison=comparison, **candidate))) == verdict


def test_the_verdict_of_an_evaluation():
  interval = "accuracy 94.50 % (189 of 200 right; 95 % interval 91.4 to 96.9; unknown how many trained on)"
  assert verdict_line(_model()) == f"NO GATE SET: {interval}"
  assert verdict_line(_model(min_accuracy=0.9)) == f"PASSED: {interval}"
  assert verdict_line(_model(min_accuracy=0.98)) == f"MISSED: min_accuracy 98 %: {interval}"
  nothing = "accuracy unknown, no image could be evaluated"
  assert verdict_line(_model(recalls={"7": (0, 0)})) == f"NO GATE SET: {nothing}"


def test_the_verdict_tells_what_changed():
  interval = "accuracy 94.50 % (189 of 200 right; 95 % interval 91.4 to 96.9; unknown how many trained on)"
  line = verdict_line(_model(comparison=_comparison(), max_drop=0.01))
  assert line == (f"PASSED: {interval}, no difference from 2026-11-23 beyond chance (3 regressed, 2 fixed, p = 1.00)")
  better = _comparison(2, 1_200, verdict="better", p_value=1e-9)
  line = verdict_line(_model(comparison=better))
  assert line == (
    f"NO GATE SET: {interval}, better than 2026-11-23 by more than chance explains"
    " (2 regressed, 1,200 fixed, p < 0.0001)"
  )
  assert verdict_line(_model(comparison=_NO_BASELINE)) == f"NO GATE SET: {interval}, no baseline to compare with"
  other = _comparison(paired=0, baseline="old\x1b[2J")
  assert verdict_line(_model(comparison=other)).endswith(", no image in common with old\\x1b[2J")


def test_the_verdict_tells_of_which_images_chance_was_asked():
  unseen = {"unseen_paired": 300, "unseen_regressed": 2, "unseen_fixed": 1}
  line = verdict_line(_model(comparison=_comparison(5, 9, edited=4, fixed_edited=4, **unseen)))
  assert line.endswith(
    ", no difference from 2026-11-23 beyond chance on the 300 images not trained on (2 regressed, 1 fixed, p = 1.00;"
    " on all 1,000: 5 regressed, 9 fixed, 4 of them edited)"
  )
  line = verdict_line(_model(comparison=_comparison(5, 9, new=7, new_correct=6, gone=0, **unseen)))
  assert " beyond chance on the 300 images of both not trained on (2 regressed, 1 fixed, p = 1.00; on all" in line
  assert line.endswith(", 6 of 7 new images right")
  alone = _comparison(5, 9, **{**unseen, "unseen_paired": 1_000})
  assert verdict_line(_model(comparison=alone)).endswith(" beyond chance (5 regressed, 9 fixed, p = 1.00)")


def test_a_drop_beyond_chance_is_told_although_no_gate_is_missed():
  worse = _comparison(20, 4, verdict="worse", p_value=0.0015)
  line = verdict_line(_model(comparison=worse, max_drop=0.05))
  assert line.startswith("PASSED: ")
  assert line.endswith(", but worse than 2026-11-23 by more than chance explains (20 regressed, 4 fixed, p = 0.0015)")


def test_the_verdict_tells_how_many_of_the_changes_were_edited():
  edited = _comparison(6, 0, verdict="worse", p_value=0.0312, regressed_edited=6, fixed_edited=0)
  assert verdict_line(_model(comparison=edited)).endswith(" (6 regressed, 6 of them edited, 0 fixed, p = 0.0312)")
  edited = _comparison(2_000, 1_200, p_value=0.5, regressed_edited=0, fixed_edited=1_100)
  assert " (2,000 regressed, 1,200 fixed, 1,100 of them edited, p = 0.50)" in verdict_line(_model(comparison=edited))


def test_a_baseline_may_be_called_model():
  metrics = _night(
    _model(comparison=_comparison(3, 0, baseline="model"), max_drop=0.5),
    _model(comparison=_comparison(2, 0, baseline="model"), max_drop=0.5),
  )
  of_model, of_candidate = verdict_line(metrics).split("; candidate: ")
  assert "no difference from model beyond chance" in of_model
  assert "no difference from the model beyond chance" in of_candidate
  drops = [line for line in gate_lines(metrics) if "max_drop" in line]
  assert drops[0].endswith("percentage points below that of model)")
  assert drops[1].endswith("percentage points below that of the model)")


@pytest.mark.parametrize(
  ("about", "quarantined", "begins"),
  [
    ({"night": "2026-11-24"}, 2, "NOT PUBLISHED: 2 of 1,799 inputs are bad; "),
    ({}, 2, "UNFINISHED: 2 of 1,799 inputs are bad; "),
    ({}, 1, "UNFINISHED: 1 of 1,799 inputs is bad; "),
  ],
)
def test_more_bad_inputs_than_allowed_come_first(about, quarantined, begins):
  metrics = {**_model(min_accuracy=0.98), **about}
  said = verdict_line(metrics)
  bad = {"quarantined": quarantined, "inputs": 1_799, "allowed": 0.0, "too_many": True}
  assert verdict_line({**metrics, "bad_inputs": bad}) == begins + said.removeprefix("MISSED: ")
  assert verdict_line({**metrics, "bad_inputs": {**bad, "too_many": False}}) == said


def test_a_threshold_is_told_as_it_was_given():
  assert named("min_accuracy", GateResult("passed", 0.98765)) == "min_accuracy 98.765 %"
  assert named("max_drop", GateResult("none set")) == "max_drop"


def test_a_missed_verdict_names_each_gate_with_its_figure():
  worse = _comparison(20, 4, verdict="worse", p_value=0.0015)
  candidate = _model(comparison=_comparison(30, 0, baseline="model", verdict="worse", p_value=1e-9), min_accuracy=0.98)
  line = verdict_line(_night(_model(comparison=worse, max_drop=0.005, min_label_recall=0.95), candidate))
  assert line == (
    "MISSED: max_drop 0.5 %: accuracy 1.60 percentage points below that of 2026-11-23;"
    " min_label_recall 95 %: recall of 1 90.00 %;"
    " candidate: min_accuracy 98 %: accuracy 94.50 % (189 of 200 right; 95 % interval 91.4 to 96.9;"
    " unknown how many trained on);"
    " accuracy 94.50 % (189 of 200 right; 95 % interval 91.4 to 96.9; unknown how many trained on),"
    " worse than 2026-11-23 by more than chance explains (20 regressed, 4 fixed, p = 0.0015);"
    " candidate: worse than the model by more than chance explains (30 regressed, 0 fixed, p < 0.0001)"
  )


def test_the_verdict_is_one_line_whatever_the_labels_and_however_many():
  recalls = {f"bad\n{number}": (1, 2) for number in range(40)}
  line = verdict_line(_model(recalls, min_label_recall=0.9))
  assert "\n" not in line
  assert "recall of bad\\n0 50.00 %, " in line
  assert "bad\\n4 50.00 % and 35 more;" in line
  assert "bad\\n5" not in line


def test_the_gate_lines_spell_out_what_was_set():
  night = _night(
    _model(comparison=_comparison(), min_accuracy=0.98, max_drop=0.05),
    _model(comparison=_comparison(2, 7, baseline="model"), min_label_recall=0.9, max_drop=0.0),
  )
  assert gate_lines(night) == [
    "gate min_accuracy 98 %: missed (accuracy 94.50 % (189 of 200 right; 95 % interval 91.4 to 96.9;"
    " unknown how many trained on))",
    "gate max_drop 5 %: passed (accuracy 0.10 percentage points below that of 2026-11-23)",
    "candidate: gate max_drop 0 %: passed (accuracy 0.50 percentage points above that of the model)",
    "candidate: gate min_label_recall 90 %: passed (lowest recall: 1 90.00 %)",
  ]


def test_what_a_gate_without_a_value_says():
  assert gate_value("model", _model(comparison=_NO_BASELINE, max_drop=0.1), "max_drop") == "no baseline"
  same = _model(comparison=_comparison(0, 0), max_drop=0.1)
  assert gate_value("model", same, "max_drop") == "accuracy equal to that of 2026-11-23"
  others = _model(comparison=_comparison(0, 0, paired=960, new=40, gone=40), max_drop=0.1)
  assert gate_value("model", others, "max_drop") == "accuracy on the 960 images of both equal to that of 2026-11-23"
  empty = _model({"7": (0, 0)}, comparison=_comparison(paired=0), min_label_recall=0.5, max_drop=0.1)
  assert gate_value("model", empty, "max_drop") == "no image in common with 2026-11-23"
  assert gate_value("model", empty, "min_label_recall") == "no label has images"


@pytest.mark.parametrize(
  ("value", "threshold", "text"),
  [
    (0.9712, None, "97.12 %"),
    (0.979999, 0.98, "97.9999 %"),
    (0.97996, 0.98, "97.996 %"),
    (0.98, 0.98, "98.00 %"),
    (1 / 3, 0.98, "33.33 %"),
  ],
)
def test_a_rate_never_looks_like_the_threshold_that_it_misses(value, threshold, text):
  assert percent(value, threshold) == text


def test_max_drop_is_judged_against_the_reference_too() -> None:
  reference = {"baseline": "2026-01-01", "paired": 1_000, "regressed": 40, "fixed": 0, "drop": 0.04, "p_value": 1e-12}
  entries = _model(comparison=_comparison(), max_drop=0.01) | {"reference": {**reference, "verdict": "worse"}}
  model = model_from_json(entries)
  judged = judge(model, {"max_drop": 0.01})
  assert judged["max_drop"].state == "passed"
  assert judged["max_drop_from_reference"] == GateResult("missed", 0.01, 0.04)
  assert judge(model, {})["max_drop_from_reference"] == GateResult("none set", None, 0.04)
  of_candidate = dataclasses.replace(model, gates=judged)
  assert (
    gates.gate_value("candidate", of_candidate, "max_drop_from_reference")
    == "accuracy 4.00 percentage points below that of the reference 2026-01-01"
  )
  ungated = verdict_line(_night(model_to_json(dataclasses.replace(model, gates=judge(model, {})))))
  assert "no difference from 2026-11-23 beyond chance (3 regressed, 2 fixed, p = 1.00), but worse than the" in ungated
  assert ungated.endswith("the reference 2026-01-01 by more than chance explains (40 regressed, 0 fixed, p < 0.0001)")
