"""The kinds that one trunk may come in: bottlenecks of different kinds never mix. No TensorFlow."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

TENSORFLOW, OPENVINO = "tensorflow", "openvino"
FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"


@dataclasses.dataclass(frozen=True)
class TrunkKind:
  """What runs a trunk, and with which numbers.

  Attributes:
    runtime: `tensorflow` or `openvino`.
    precision: `float32`, `bfloat16` or `int8`.
    calibration: of int8, SHA-256, 64 hex digits, of the hashes of the pictures that its ranges were measured on.
  """

  runtime: str = TENSORFLOW
  precision: str = FLOAT32
  calibration: str = ""

  @classmethod
  def of_card(cls, card: Mapping[str, Any]) -> TrunkKind:
    """Returns the kind of the trunk that an `info.json` tells of; before there were kinds, there was one."""
    return cls(card.get("runtime", TENSORFLOW), card.get("precision", FLOAT32), card.get("calibration", ""))

  def fingerprint(self, base: str) -> str:
    """Returns 64 hex digits: the trunk's own fingerprint for the plain kind, else one of this kind of it alone."""
    if self == TrunkKind():
      return base
    made_of = [base, self.runtime, self.precision, self.calibration]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()

  def __str__(self) -> str:
    return f"{self.precision} by {_NAMES.get(self.runtime, self.runtime)}"


_NAMES = {TENSORFLOW: "TensorFlow", OPENVINO: "OpenVINO"}
