"""JUnit XML of a night: shows schedulers which gate was missed.

The elements and attributes follow Jenkins' schema (jenkinsci/xunit-plugin, `junit-10.xsd`). Names of test cases contain
no figures, so that Jenkins and GitLab recognize them every night.
"""

from __future__ import annotations

from xml.etree import ElementTree

from beam_retrain.reporting.gates import GATES, Case, describe_bad_inputs, gate_line
from beam_retrain.transforms.core.metrics.figures import MISSED, NONE_SET, Metrics

_COUNTED = {"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped"}
_TYPES = {"failure": "gate missed", "error": "bad inputs"}


def junit_xml(metrics: Metrics) -> str:
  """Returns the XML: one suite per model, one case per gate.

  The model's suite has an additional case `inputs`, an error if too many inputs are bad.
  """
  root = ElementTree.Element("testsuites", name=f"beam-retrain {metrics.night or ''}".rstrip())
  for name, model in metrics.models.items():
    suite = ElementTree.SubElement(root, "testsuite", name=name)
    if model is metrics.model and (bad := metrics.bad_inputs):
      error = f"{describe_bad_inputs(bad)}, more than allowed" if bad.too_many else ""
      _add_case(suite, f"beam_retrain.{name}.inputs", Case("inputs", "error" if error else "", error))
    for gate, result in model.gates.items():
      case = Case(gate)
      if result.state == MISSED:
        case = Case(gate, "failure", gate_line(name, model, gate))
      elif result.state == NONE_SET:
        case = Case(gate, "skipped", NONE_SET)
      _add_case(suite, f"beam_retrain.{name}.gates", case)
    for gate, result in model.gates.items():
      for case in GATES[gate].cases(model, result):
        _add_case(suite, f"beam_retrain.{name}.{GATES[gate].case_class}", case)
    _count(suite, "tests", "failures", "errors", "skipped")
  _count(root, "tests", "failures", "errors")  # the schema has no `skipped` here
  ElementTree.indent(root)
  return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _add_case(suite: ElementTree.Element, class_name: str, case: Case) -> None:
  element = ElementTree.SubElement(suite, "testcase", classname=class_name, name=case.name, time="0")
  if case.result:
    result = ElementTree.SubElement(element, case.result, message=case.message)
    if kind := _TYPES.get(case.result):
      # Jenkins shows the attribute, GitLab the text.
      result.set("type", kind)
      result.text = case.message


def _count(element: ElementTree.Element, *attributes: str) -> None:
  for attribute in attributes:
    element.set(attribute, str(sum(1 for _ in element.iter(_COUNTED[attribute]))))
  element.set("time", "0")
