"""Which kinds of trunks this machine can run. No TensorFlow, and nothing is imported to find out."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

from transforms.core.trunk_kind import BFLOAT16, INT8, OPENVINO, TENSORFLOW, TrunkKind

INSTALL = "pip install 'beam-retrain[fast]'"

_CPUINFO = Path("/proc/cpuinfo")
_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


def why_not_here(kind: TrunkKind, cpuinfo: Path = _CPUINFO) -> str:
  """Returns why this machine cannot run a kind, and what to do, as the end of a sentence; empty where it can.

  Args:
    kind: what is asked about.
    cpuinfo: the file in which Linux says what its processors can do.
  """
  if kind.runtime == OPENVINO and not is_installed("openvino"):
    return f"OpenVINO is not installed: {INSTALL}"
  if kind.precision == INT8 and kind.runtime == TENSORFLOW:
    return "TensorFlow has no int8 for it: use --runtime openvino"
  if kind.precision == BFLOAT16 and not has_bfloat16(cpuinfo):
    return "this processor has no bfloat16 (neither avx512_bf16 nor amx_bf16): use --precision float32"
  return ""


@functools.cache
def has_bfloat16(cpuinfo: Path = _CPUINFO) -> bool:
  """Says whether the processor multiplies bfloat16 numbers itself; where it does not, they are slower than float32."""
  try:
    lines = cpuinfo.read_text().splitlines()
  except OSError:  # not on every system
    return False
  flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
  return not _BFLOAT16_FLAGS.isdisjoint(flags)


@functools.cache
def is_installed(package: str) -> bool:
  return importlib.util.find_spec(package) is not None
