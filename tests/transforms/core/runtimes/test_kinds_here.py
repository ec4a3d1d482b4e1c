"""What is said of kinds of trunks that a machine cannot run."""

from __future__ import annotations

import pytest

from beam_retrain.transforms.core.runtimes import kinds_here
from beam_retrain.transforms.core.runtimes.kinds_here import why_not_here


@pytest.fixture
def machine(monkeypatch):
  """Makes this machine one with, or without, what some kinds need."""

  def make(*, bfloat16: bool, openvino: bool) -> None:
    monkeypatch.setattr(kinds_here, "has_bfloat16", lambda: bfloat16)
    monkeypatch.setattr(kinds_here, "has_openvino", lambda: openvino)
    monkeypatch.setattr(kinds_here, "openvino_fault", lambda: "")

  return make


def test_a_machine_with_all_runs_all_but_one(machine):
  machine(bfloat16=True, openvino=True)
  runs = [(runtime, precision) for runtime in ("tensorflow", "openvino") for precision in ("float32", "bfloat16")]
  assert [why_not_here(*kind) for kind in [*runs, ("openvino", "int8")]] == [""] * 5
  assert "--runtime openvino" in why_not_here("tensorflow", "int8")


def test_what_is_missing_is_named_with_the_remedy(machine):
  machine(bfloat16=False, openvino=False)
  assert why_not_here("tensorflow", "float32") == ""
  assert why_not_here("openvino", "float32") == "OpenVINO is not installed: pip install 'beam-retrain[fast]'"
  assert why_not_here("tensorflow", "bfloat16").endswith("use --precision float32")
  machine(bfloat16=False, openvino=True)
  assert why_not_here("openvino", "bfloat16").endswith("use --precision float32")
  assert why_not_here("openvino", "int8") == ""
