"""Which kinds of trunks this machine can run, in words. No TensorFlow; whether OpenVINO can be imported is tried."""

from __future__ import annotations

import platform
from pathlib import Path

from beam_retrain.transforms.core.runtimes.variant import (
  BFLOAT16,
  INT8,
  OPENVINO,
  TENSORFLOW,
  has_bfloat16,
  has_openvino,
)
from beam_retrain.transforms.core.system.openvino import openvino_fault


def why_not_here(runtime: str, precision: str) -> str:
  """Returns why this machine cannot run such a trunk, and what to do, as the end of a sentence; empty where it can."""
  if precision == INT8 and runtime == TENSORFLOW:
    return "TensorFlow has no int8 for it: use --runtime openvino (pip install 'beam-retrain[fast]')"
  if runtime == OPENVINO and not has_openvino():
    return "OpenVINO is not installed: pip install 'beam-retrain[fast]'"
  if runtime == OPENVINO and (fault := openvino_fault()):
    return f"OpenVINO is installed but cannot be imported ({fault}): pip install --force-reinstall openvino"
  if precision == BFLOAT16 and not has_bfloat16():
    return "this processor has no bfloat16 (neither avx512_bf16 nor amx_bf16): use --precision float32"
  return ""


def processor_name() -> str:
  """Returns what this machine's processor calls itself: what was measured on one is not true of another."""
  try:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:  # not on every system
    lines = []
  return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
