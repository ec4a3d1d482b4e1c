"""Variants that a machine cannot run, and the message for each."""

from __future__ import annotations

import pytest

from beam_retrain.transforms.core.runtimes import variant
from beam_retrain.transforms.core.runtimes.variant import unsupported_reason
from beam_retrain.transforms.core.system.extras import install_command


@pytest.fixture
def machine(monkeypatch):
  """Makes this machine one with, or without, what some kinds need."""

  def make(*, bfloat16: bool, openvino: bool) -> None:
    monkeypatch.setattr(variant, "has_bfloat16", lambda: bfloat16)
    monkeypatch.setattr(variant, "has_openvino", lambda: openvino)
    monkeypatch.setattr(variant, "openvino_fault", lambda: "")

  return make


def test_a_machine_with_all_runs_all_but_one(machine):
  machine(bfloat16=True, openvino=True)
  runs = [(runtime, precision) for runtime in ("tensorflow", "openvino") for precision in ("float32", "bfloat16")]
  assert [unsupported_reason(*kind) for kind in [*runs, ("openvino", "int8")]] == [""] * 5
  assert "--runtime openvino" in unsupported_reason("tensorflow", "int8")


def test_what_is_missing_is_named_with_the_remedy(machine):
  machine(bfloat16=False, openvino=False)
  assert unsupported_reason("tensorflow", "float32") == ""
  assert unsupported_reason("openvino", "float32") == f"OpenVINO is not installed: {install_command('fast')}"
  assert unsupported_reason("tensorflow", "bfloat16").endswith("use --precision float32")
  machine(bfloat16=False, openvino=True)
  assert unsupported_reason("openvino", "bfloat16").endswith("use --precision float32")
  assert unsupported_reason("openvino", "int8") == ""
