"""What computes a trunk's numbers: a runtime and a precision. Bottlenecks of different kinds never mix. No TensorFlow.

A kind is part of the trunk's fingerprint, by which stores, models and `--reuse` tell whose bottlenecks are whose.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from beam_retrain.transforms.core.errors import InputError

TENSORFLOW, OPENVINO = "tensorflow", "openvino"
FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"
_NAMES = {TENSORFLOW: "TensorFlow", OPENVINO: "OpenVINO"}

_CPU_INFO = Path("/proc/cpuinfo")
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}


@dataclasses.dataclass(frozen=True)
class TrunkKind:
  """
  Attributes:
    runtime: `tensorflow` or `openvino`.
    precision: `float32`, `bfloat16` or, by OpenVINO only, `int8`.
    calibration: for int8, what it was calibrated on: see `digest_of_sample`; otherwise empty.
  """

  runtime: str = TENSORFLOW
  precision: str = FLOAT32
  calibration: str = ""

  def __post_init__(self) -> None:
    known = self.runtime in (TENSORFLOW, OPENVINO) and self.precision in (FLOAT32, BFLOAT16, INT8)
    if not known or (self.precision == INT8) != bool(self.calibration):
      raise ValueError(f"no such kind: {self}")
    if self.precision == INT8 and self.runtime != OPENVINO:
      raise InputError("int8 needs OpenVINO: use --runtime openvino, or --precision bfloat16.")

  def __str__(self) -> str:
    return f"{self.precision} by {_NAMES[self.runtime]}"

  @property
  def fields(self) -> dict[str, str]:
    """What a trunk's card says of it; `read_kind` reads it."""
    fields = {"runtime": self.runtime, "precision": self.precision}
    return {**fields, "calibration": self.calibration} if self.calibration else fields

  def fingerprint(self, base: str) -> str:
    """Returns the fingerprint of bottlenecks of this kind.

    Args:
      base: of the trunk itself, 64 hex digits. It is that of TensorFlow's float32 as well, as it was before there were
        kinds.
    """
    if self == TrunkKind():
      return base
    made_of = [base, self.runtime, self.precision, self.calibration]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()


def read_kind(card: Mapping[str, Any]) -> TrunkKind:
  """Returns the kind that a trunk's card names; one from before there were kinds: TensorFlow's float32."""
  return TrunkKind(card.get("runtime", TENSORFLOW), card.get("precision", FLOAT32), card.get("calibration", ""))


def digest_of_sample(hashes: list[str]) -> str:
  """Returns the `calibration` of a sample, 64 hex digits.

  Args:
    hashes: SHA-256 of each image's bytes, in hex, in the sample's order.
  """
  return hashlib.sha256("".join(f"{each}\n" for each in hashes).encode()).hexdigest()


def has_bfloat16(cpu_info: Path = _CPU_INFO) -> bool:
  """Says whether this machine's processor computes with bfloat16; where it does not, that would be emulated, slowly."""
  try:
    text = cpu_info.read_text()
  except OSError:
    return False
  flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
  return not _BFLOAT16_FLAGS.isdisjoint(flags.split())


def has_openvino() -> bool:
  return importlib.util.find_spec("openvino") is not None
