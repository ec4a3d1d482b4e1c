"""The XML that schedulers read, parsed back."""

from __future__ import annotations

import dataclasses
from typing import Any
from xml.etree import ElementTree

import pytest

from beam_retrain.reporting import junit
from beam_retrain.reporting.gates import judge
from beam_retrain.transforms.core.metrics.metrics_file import metrics_from_json, model_from_json, model_to_json


def junit_xml(entries: dict[str, Any]) -> str:
  return junit.junit_xml(metrics_from_json(entries))


def _model(recalls: dict[str, tuple[int, int]], **thresholds: float) -> dict[str, Any]:
  """Metrics of a model with label -> (correct, support), judged."""
  metrics: dict[str, Any] = {
    "accuracy": 0.945,
    "correct": 189,
    "total": 200,
    "accuracy_interval_95": [0.914, 0.969],
    "labels": list(recalls),
    "per_label": {
      label: {"support": support, "correct": right, "recall": right / support if support else None}
      for label, (right, support) in recalls.items()
    },
  }
  model = model_from_json({**metrics, "comparison": {"verdict": "no baseline"}})
  return model_to_json(dataclasses.replace(model, gates=judge(model, thresholds)))


_RECALLS = {"7": (99, 100), "1": (90, 100), "0": (0, 0)}


def _cases(root: ElementTree.Element) -> dict[tuple[str | None, str | None], str]:
  """Returns (classname, name) -> `passed`, or the tag and message of what is in the case."""
  found = {}
  for case in root.iter("testcase"):
    (state,) = [f"{inside.tag}: {inside.get('message')}" for inside in case] or ["passed"]
    found[case.get("classname"), case.get("name")] = state
  return found


def test_every_state_of_a_gate():
  root = ElementTree.fromstring(junit_xml(_model(_RECALLS, min_accuracy=0.98, max_drop=0.01)))
  assert _cases(root) == {
    ("beam_retrain.model.gates", "min_accuracy"): (
      "failure: min_accuracy 98 %: accuracy 94.50 % (189 of 200 right; 95 % interval 91.4 to 96.9;"
      " unknown how many trained on)"
    ),
    ("beam_retrain.model.gates", "max_drop"): "passed",
    ("beam_retrain.model.gates", "min_label_recall"): "skipped: none set",
  }


def test_a_case_per_label_where_their_recall_has_a_gate():
  root = ElementTree.fromstring(junit_xml(_model(_RECALLS, min_label_recall=0.95)))
  labels = {
    name: state for (class_name, name), state in _cases(root).items() if class_name == "beam_retrain.model.recall"
  }
  assert labels == {
    "7": "passed",
    "1": "failure: recall 90.00 % is below 95 % (90 of 100 right)",
    "0": "skipped: no image has this label",
  }


def test_a_threshold_is_told_as_it_was_given():
  cases = _cases(ElementTree.fromstring(junit_xml(_model(_RECALLS, min_accuracy=0.98765, min_label_recall=0.98765))))
  assert cases["beam_retrain.model.gates", "min_accuracy"].startswith("failure: min_accuracy 98.765 %: accuracy ")
  assert cases["beam_retrain.model.recall", "1"].startswith("failure: recall 90.00 % is below 98.765 % ")


@pytest.mark.parametrize(
  ("too_many", "state"), [(False, "passed"), (True, "error: 2 of 1,799 inputs are bad, more than allowed")]
)
def test_too_many_bad_inputs_are_an_error(too_many, state):
  bad = {"quarantined": 2, "inputs": 1_799, "allowed": 0.001, "too_many": too_many}
  night = {**_model(_RECALLS, min_accuracy=0.5), "bad_inputs": bad, "candidate": _model(_RECALLS)}
  root = ElementTree.fromstring(junit_xml(night))
  inputs = {place: found for place, found in _cases(root).items() if place[1] == "inputs"}
  assert inputs == {("beam_retrain.model.inputs", "inputs"): state}
  assert [(suite.get("tests"), suite.get("errors")) for suite in (root, *root)] == [
    ("7", str(int(too_many))),
    ("4", str(int(too_many))),
    ("3", "0"),
  ]
  assert [error.text for error in root.iter("error")] == [state.removeprefix("error: ")] * too_many


def test_a_suite_per_model_and_counts_that_are_those_of_the_cases():
  night = _model(_RECALLS, min_accuracy=0.98, min_label_recall=0.95)
  night |= {"night": "2026-11-24", "candidate": _model(_RECALLS, max_drop=0.1)}
  root = ElementTree.fromstring(junit_xml(night))
  assert (root.tag, root.get("name")) == ("testsuites", "beam-retrain 2026-11-24")
  assert [suite.get("name") for suite in root] == ["model", "candidate"]
  counts = {
    suite.get("name"): [suite.get(name) for name in ("tests", "failures", "errors", "skipped", "time")]
    for suite in (root, *root)
  }
  assert counts == {
    "model": ["6", "3", "0", "2", "0"],
    "candidate": ["3", "0", "0", "2", "0"],
    "beam-retrain 2026-11-24": ["9", "3", "0", None, "0"],
  }
  assert {case.get("time") for case in root.iter("testcase")} == {"0"}
  assert {suite.tag for suite in root} == {"testsuite"}


def test_a_failure_has_its_message_as_text_too():
  root = ElementTree.fromstring(junit_xml(_model(_RECALLS, min_accuracy=0.98)))
  (failure,) = root.iter("failure")
  assert failure.text == failure.get("message")
  assert failure.get("type") == "gate missed"


@pytest.mark.parametrize(
  ("label", "name"),
  [
    ("<b>&\"'</b>", "<b>&\"'</b>"),
    ("a\x00b\x1b[2J", "a\\x00b\\x1b[2J"),
    ("two\nlines", "two\\nlines"),
    ("lone \udc80", "lone \\udc80"),
    ("non\ufffe", "non\\ufffe"),
    ("caf\u00e9 \U0001f600", "caf\u00e9 \U0001f600"),
  ],
)
def test_a_label_cannot_break_the_file(label, name):
  xml = junit_xml(_model({label: (1, 2)}, min_label_recall=0.95))
  cases = _cases(ElementTree.fromstring(xml.encode()))
  assert cases["beam_retrain.model.recall", name].startswith("failure: recall 50.00 % ")
  assert name in cases["beam_retrain.model.gates", "min_label_recall"]


def test_the_same_metrics_make_the_same_bytes():
  night = _model(_RECALLS, min_accuracy=0.98)
  assert junit_xml(night) == junit_xml(night)
  assert junit_xml(night).startswith('<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="beam-retrain"')
