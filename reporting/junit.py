"""JUnit XML of a night, for schedulers: Jenkins and GitLab show which gate was missed, and since when.

The elements and attributes are those of the schema that Jenkins checks with (jenkinsci/xunit-plugin, `junit-10.xsd`).
A case's names hold no figure, so that it is the same case every night.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from beam_retrain.reporting.gates import MISSED, NONE_SET, asked, bad_inputs, gate_value, named, percent
from beam_retrain.reporting.text_tables import printable

_COUNTED = {"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped"}


def junit_xml(metrics: Mapping[str, Any]) -> str:
  """Returns the XML file's text: a suite per model, with a case per gate.

  The model's has a case `inputs` too, an error where more of them are bad than allowed. Where `min_label_recall` is
  set, there is also a case per label; one that has no image is skipped.

  Args:
    metrics: the contents of `metrics.json`, with `gates`; without `bad_inputs` there is no case `inputs`.
  """
  root = ElementTree.Element("testsuites", name=f"beam-retrain {metrics.get('night', '')}".rstrip())
  _add_suite(root, "model", metrics)
  if metrics.get("candidate"):
    _add_suite(root, "candidate", metrics["candidate"])
  _count(root, "tests", "failures", "errors")  # the schema knows no `skipped` here
  ElementTree.indent(root)
  return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _add_suite(root: ElementTree.Element, name: str, model: Mapping[str, Any]) -> None:
  suite = ElementTree.SubElement(root, "testsuite", name=name)
  if model.get("bad_inputs"):
    _add_inputs(suite, f"beam_retrain.{name}.inputs", model["bad_inputs"])
  for gate, state in model["gates"].items():
    case = _add_case(suite, f"beam_retrain.{name}.gates", gate)
    if state["state"] == NONE_SET:
      ElementTree.SubElement(case, "skipped", message=NONE_SET)
    elif state["state"] == MISSED:
      _add(case, "failure", f"{named(gate, state)}: {gate_value(name, model, gate)}", "gate missed")
  least = model["gates"].get("min_label_recall", {}).get("threshold")
  if least is not None:
    _add_labels(suite, f"beam_retrain.{name}.recall", model, least)
  _count(suite, "tests", "failures", "errors", "skipped")


def _add_inputs(suite: ElementTree.Element, class_name: str, bad: Mapping[str, Any]) -> None:
  case = _add_case(suite, class_name, "inputs")
  if bad["too_many"]:
    _add(case, "error", f"{bad_inputs(bad)}, more than allowed", "bad inputs")


def _add_labels(suite: ElementTree.Element, class_name: str, model: Mapping[str, Any], least: float) -> None:
  failing = set(model["gates"]["min_label_recall"]["failing"])
  for label in model["labels"]:
    # Control characters, lone surrogates and non-characters, none of which XML can hold, are none of them printable.
    case = _add_case(suite, class_name, printable(label))
    row = model["per_label"][label]
    if not row["support"]:
      ElementTree.SubElement(case, "skipped", message="no image has this label")
    elif label in failing:
      right = f"{row['correct']:,} of {row['support']:,} right"
      _add(case, "failure", f"recall {percent(row['recall'], least)} is below {asked(least)} ({right})", "gate missed")


def _add_case(suite: ElementTree.Element, class_name: str, name: str) -> ElementTree.Element:
  return ElementTree.SubElement(suite, "testcase", classname=class_name, name=name, time="0")


def _add(case: ElementTree.Element, tag: str, message: str, kind: str) -> None:
  # Jenkins shows the attribute, GitLab the text.
  ElementTree.SubElement(case, tag, message=message, type=kind).text = message


def _count(element: ElementTree.Element, *attributes: str) -> None:
  for attribute in attributes:
    element.set(attribute, str(sum(1 for _ in element.iter(_COUNTED[attribute]))))
  element.set("time", "0")
