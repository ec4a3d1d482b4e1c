"""Variants of a trunk: runtime and precision.

The variant is part of the trunk's fingerprint, by which stores, models and `--reuse` find bottlenecks, so that
bottlenecks of different variants never mix. This module does not load TensorFlow.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.system.extras import install_command
from beam_retrain.transforms.core.system.imports import openvino_fault

AUTO = "auto"
TENSORFLOW, OPENVINO = "tensorflow", "openvino"
FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"
_NAMES = {TENSORFLOW: "TensorFlow", OPENVINO: "OpenVINO"}

_CPU_INFO = Path("/proc/cpuinfo")
AVX512 = "AVX512_CORE"
ISA_LIMIT = "ONEDNN_MAX_CPU_ISA"
WITH_BFLOAT16 = ("AVX512_CORE_AMX", "AVX512_CORE_FP16", "AVX512_CORE_BF16")
_INSTRUCTIONS = {
  "AVX512_CORE_AMX": "amx_bf16",
  "AVX512_CORE_FP16": "avx512_fp16",
  "AVX512_CORE_BF16": "avx512_bf16",
  "AVX512_CORE_VNNI": "avx512_vnni",
  AVX512: "avx512bw",
  "AVX2_VNNI_2": "avx_ne_convert",
  "AVX2_VNNI": "avx_vnni",
  "AVX2": "avx2",
  "AVX": "avx",
  "SSE41": "sse4_1",
}
"""oneDNN's names, best first, and the flag of /proc/cpuinfo that stands for each."""


@dataclasses.dataclass(frozen=True)
class Variant:
  """The runtime and precision that compute a trunk."""

  runtime: str = TENSORFLOW
  precision: str = FLOAT32
  calibration: str = ""  # for int8, the sample's `digest_of_sample`

  def __post_init__(self) -> None:
    known = self.runtime in (TENSORFLOW, OPENVINO) and self.precision in (FLOAT32, BFLOAT16, INT8)
    if not known or (self.precision == INT8) != bool(self.calibration):
      raise ValueError(f"no such variant: {self}")
    if self.precision == INT8 and self.runtime != OPENVINO:
      raise InputError("int8 needs OpenVINO: use --runtime openvino, or --precision bfloat16.")

  def __str__(self) -> str:
    return f"{self.precision} by {_NAMES[self.runtime]}"

  @classmethod
  def from_json(cls, values: Mapping[str, Any]) -> Variant:
    """Inverse of `to_json`; missing entries mean TensorFlow in float32."""
    return cls(values.get("runtime", TENSORFLOW), values.get("precision", FLOAT32), values.get("calibration", ""))

  def to_json(self) -> dict[str, str]:
    values = {"runtime": self.runtime, "precision": self.precision}
    return {**values, "calibration": self.calibration} if self.calibration else values

  def fingerprint(self, base: str) -> str:
    """Returns a trunk's fingerprint; `base` is in float32 by TensorFlow."""
    if self == Variant():
      return base
    content = [base, self.runtime, self.precision, self.calibration]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()

  def unsupported_reason(self) -> str:
    return unsupported_reason(self.runtime, self.precision)


class Bound(NamedTuple):
  """Smallest cosine of an image's two bottlenecks, and fraction of other answers.

  Of few images, one may have another answer, unless none may.
  """

  least_cosine: float
  other_answers: float


BOUNDS: Mapping[str, Bound] = {
  FLOAT32: Bound(0.9999, 0.0),
  BFLOAT16: Bound(0.98, 0.05),
  INT8: Bound(0.85, 0.2),
}
"""By the precision of the trunk in use.

Measured on 64 images: digits and MNIST through the bundled trunk, MNIST through a full Inception v3, and generated
images through both; in brackets the generated ones. A trunk with 300 changed weights has 0.01 to 0.3.

| precision | smallest cosine   | other answers |
|-----------|-------------------|---------------|
| float32   | 1.0000 (1.0000)   | 0             |
| bfloat16  | 0.9996 (0.9923)   | 1             |
| int8      | 0.9688 (0.9281)   | 4             |
"""

BOUNDS_IN_WORDS = ", ".join(
  f"{bound.least_cosine:g} and {1 - bound.other_answers:.0%} in {precision}" for precision, bound in BOUNDS.items()
)


def unsupported_reason(runtime: str, precision: str) -> str:
  """Returns why this machine cannot run a variant, with remedy, or ""."""
  if precision == INT8 and runtime == TENSORFLOW:
    return f"TensorFlow cannot run trunks in int8: use --runtime openvino ({install_command('fast')})"
  if runtime == OPENVINO and not has_openvino():
    return f"OpenVINO is not installed: {install_command('fast')}"
  if runtime == OPENVINO and (fault := openvino_fault()):
    return f"OpenVINO is installed but cannot be imported ({fault}): pip install --force-reinstall openvino"
  if precision == BFLOAT16 and not has_bfloat16():
    return "this processor has no bfloat16 (neither avx512_bf16 nor amx_bf16): use --precision float32"
  return ""


def digest_of_sample(hashes: list[str]) -> str:
  """Returns a sample's `calibration` from its images' SHA-256, in order."""
  return hashlib.sha256("".join(f"{each}\n" for each in hashes).encode()).hexdigest()


def has_bfloat16(cpu_info: Path = _CPU_INFO) -> bool:
  """Whether the processor has bfloat16; without it, emulation is slow."""
  return instructions(cpu_info) in WITH_BFLOAT16


def is_bfloat16_faster(cpu_info: Path = _CPU_INFO) -> bool:
  """Whether trunks run faster in bfloat16 than in float32.

  Measured with Inception v3 by OpenVINO: with AMX and with AMD's AVX-512 it took half of the time or less. An Intel
  Xeon whose AMX a virtual machine hides took 1.7 times as long, and by TensorFlow 1.3 times.
  """
  has_amx = instructions(cpu_info) == "AVX512_CORE_AMX"
  return has_amx or (has_bfloat16(cpu_info) and _cpu_field("vendor_id", cpu_info) != "GenuineIntel")


def instructions(cpu_info: Path = _CPU_INFO) -> str:
  """Returns the processor's best instruction set, by oneDNN's name.

  It is what TensorFlow and OpenVINO compute with; `ONEDNN_MAX_CPU_ISA` limits it, for them and here.
  """
  flags = _cpu_field("flags", cpu_info).split()
  limit = os.environ.get(ISA_LIMIT, "").upper()
  allowed = list(_INSTRUCTIONS)[list(_INSTRUCTIONS).index(limit) if limit in _INSTRUCTIONS else 0 :]
  return next((name for name in allowed if _INSTRUCTIONS[name] in flags), platform.machine())


def kind_of(precision: str, found: str) -> str:
  """Returns what decides the bits of a trunk's results.

  Measured with both runtimes: float32 has the same bits from AVX2 to AVX-512, but that was emulated, so the two are
  kept apart; what AVX-512 has for other precisions does not matter to it. `found`: `instructions` of a machine.
  """
  return f"{precision}-{AVX512 if precision == FLOAT32 and found.startswith(AVX512) else found}"


def processor_name() -> str:
  """Returns the processor's model name."""
  return _cpu_field("model name", _CPU_INFO) or platform.machine()


def _cpu_field(name: str, cpu_info: Path) -> str:
  """Returns a field of /proc/cpuinfo, or ""."""
  try:
    lines = cpu_info.read_text().splitlines()
  except OSError:
    return ""
  return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def has_openvino() -> bool:
  return importlib.util.find_spec("openvino") is not None
