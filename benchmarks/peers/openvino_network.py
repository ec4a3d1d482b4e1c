"""The network in OpenVINO, as its documentation tells: read, give it a fixed shape, compile with the hints."""

from __future__ import annotations

import os

os.environ.setdefault("CI", "true")  # no report home

from pathlib import Path
from typing import Any

import openvino

from benchmarks.peers.protocol import INPUT_PX

FROZEN, INT8 = "frozen.pb", "int8.xml"


def compile_network(network: Path, precision: str, batch_size: int, threads: int, hint: str = "LATENCY") -> Any:
  """Returns the compiled model: float32 [batch_size, 299, 299, 3] -> float32 [batch_size, 2048]."""
  core = openvino.Core()
  model = core.read_model(network / (INT8 if precision == "int8" else FROZEN))
  model.reshape([batch_size, INPUT_PX, INPUT_PX, 3])
  settings = {
    "PERFORMANCE_HINT": hint,
    "INFERENCE_NUM_THREADS": threads,
    # What int8 leaves as floating point runs as bfloat16 where the processor has it.
    "INFERENCE_PRECISION_HINT": "f32" if precision == "float32" else "bf16",
  }
  return core.compile_model(model, "CPU", settings)
