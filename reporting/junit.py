"""JUnit XML of a night: shows schedulers which gate was missed.

The elements and attributes follow Jenkins' schema (jenkinsci/xunit-plugin, `junit-10.xsd`). Names of test cases contain
no figures, so that Jenkins and GitLab recognize them every night.
"""

from __future__ import annotations

from xml.etree import ElementTree

from beam_retrain.reporting.gates import GATES, Case, describe_bad_inputs, gate_line
from beam_retrain.transforms.core.metrics.figures import MISSED, NONE_SET, BadInputs, Metrics, ModelMetrics

_COUNTED = {"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped"}


def junit_xml(metrics: Metrics) -> str:
  """Returns the XML: one suite per model, one case per gate.

  The model's suite has an additional case `inputs`, an error if too many inputs are bad.
  """
  root = ElementTree.Element("testsuites", name=f"beam-retrain {metrics.night or ''}".rstrip())
  for name, model in metrics.models.items():
    suite = ElementTree.SubElement(root, "testsuite", name=name)
    if model is metrics.model and metrics.bad_inputs:
      _add_inputs(suite, f"beam_retrain.{name}.inputs", metrics.bad_inputs)
    _add_gates(suite, name, model)
    _count(suite, "tests", "failures", "errors", "skipped")
  _count(root, "tests", "failures", "errors")  # the schema has no `skipped` here
  ElementTree.indent(root)
  return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _add_inputs(suite: ElementTree.Element, class_name: str, bad: BadInputs) -> None:
  case = _add_element(suite, class_name, "inputs")
  if bad.too_many:
    _add_fault(case, "error", f"{describe_bad_inputs(bad)}, more than allowed", "bad inputs")


def _add_gates(suite: ElementTree.Element, name: str, model: ModelMetrics) -> None:
  for gate, result in model.gates.items():
    failure = gate_line(name, model, gate) if result.state == MISSED else ""
    case = Case(gate, failure, NONE_SET if result.state == NONE_SET else "")
    _add_case(suite, f"beam_retrain.{name}.gates", case)
  for gate, result in model.gates.items():
    for case in GATES[gate].cases(model, result):
      _add_case(suite, f"beam_retrain.{name}.{GATES[gate].case_class}", case)


def _add_case(suite: ElementTree.Element, class_name: str, case: Case) -> None:
  element = _add_element(suite, class_name, case.name)
  if case.skipped:
    ElementTree.SubElement(element, "skipped", message=case.skipped)
  elif case.failure:
    _add_fault(element, "failure", case.failure, "gate missed")


def _add_element(suite: ElementTree.Element, class_name: str, name: str) -> ElementTree.Element:
  return ElementTree.SubElement(suite, "testcase", classname=class_name, name=name, time="0")


def _add_fault(case: ElementTree.Element, tag: str, message: str, kind: str) -> None:
  # Jenkins shows the attribute, GitLab the text.
  ElementTree.SubElement(case, tag, message=message, type=kind).text = message


def _count(element: ElementTree.Element, *attributes: str) -> None:
  for attribute in attributes:
    element.set(attribute, str(sum(1 for _ in element.iter(_COUNTED[attribute]))))
  element.set("time", "0")
