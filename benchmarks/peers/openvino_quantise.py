"""Makes int8.xml of frozen.pb: NNCF's post-training quantisation, calibrated on the first images."""

from __future__ import annotations

import os

os.environ.setdefault("CI", "true")  # no report home
os.environ.setdefault("NNCF_CI", "1")

import nncf
import openvino

from benchmarks.peers.images import read_batch
from benchmarks.peers.openvino_network import FROZEN, INT8
from benchmarks.peers.protocol import INPUT_PX, hand_back, read_task

_BATCH = 16


def main() -> None:
  task = read_task(("int8",))
  model = openvino.Core().read_model(task.network / FROZEN)
  model.reshape([_BATCH, INPUT_PX, INPUT_PX, 3])
  # Spread over the classes.
  chosen = task.images[:: max(1, len(task.images) // 128)][:128]
  batches = [read_batch(chosen[start : start + _BATCH], _BATCH) for start in range(0, len(chosen), _BATCH)]
  quantised = nncf.quantize(
    model, nncf.Dataset(batches), subset_size=len(batches), preset=nncf.QuantizationPreset.PERFORMANCE
  )
  openvino.save_model(quantised, task.network / INT8, compress_to_fp16=False)
  hand_back(task, [], [], {"nncf": nncf.__version__})


if __name__ == "__main__":
  main()
