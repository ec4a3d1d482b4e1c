"""The machine's limit: the best rate of a plain matrix product, square, float32 and bfloat16.

  python -m benchmarks.matrix_product --threads N --output FILE

Tried with TensorFlow and, where it is there, OpenVINO, several sizes each; the best of each precision goes into FILE,
JSON: precision -> {"gflops", "how"}. A network can be a little faster than it: some convolutions need fewer products
than they are counted for.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

_SIZES = (1024, 2048, 4096)
_SECONDS_EACH = 1.0


def best_gflops(size: int, multiply: Callable[[], Any]) -> float:
  """Returns the best rate of one call among those that fit into a second; the first two are not counted."""
  multiply(), multiply()
  best, end = float("inf"), time.perf_counter() + _SECONDS_EACH
  while time.perf_counter() < end:
    start = time.perf_counter()
    multiply()
    best = min(best, time.perf_counter() - start)
  return 2 * size**3 / best / 1e9


def _with_tensorflow(threads: int) -> Iterator[tuple[str, str, int, Callable[[], Any]]]:
  from beam_retrain.transforms.core.system.imports import load_tensorflow

  load_tensorflow(threads)
  import tensorflow as tf

  for size in _SIZES:
    matrix = tf.random.stateless_normal([size, size], (1, size))
    for precision in ("float32", "bfloat16"):
      given = tf.cast(matrix, precision)
      yield precision, "TensorFlow", size, functools.partial(tf.linalg.matmul, given, given)


def _with_openvino(threads: int) -> Iterator[tuple[str, str, int, Callable[[], Any]]]:
  from beam_retrain.transforms.core.runtimes.variant import has_openvino

  if not has_openvino():
    return
  from beam_retrain.transforms.core.system.imports import load_openvino

  load_openvino()
  import openvino
  from openvino import opset13

  for size in _SIZES:
    matrix = np.random.default_rng(size).standard_normal((size, size), np.float32)
    given = opset13.parameter([size, size], np.float32)
    model = openvino.Model([opset13.matmul(given, opset13.constant(matrix), False, False)], [given])
    for precision, hint in (("float32", "f32"), ("bfloat16", "bf16")):
      settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
      request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
      yield precision, "OpenVINO", size, functools.partial(request.infer, [matrix], share_inputs=True)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--threads", type=int, required=True, help="cores to use")
  parser.add_argument("--output", type=Path, required=True)
  flags = parser.parse_args()
  best: dict[str, dict[str, Any]] = {}
  for engine in (_with_openvino, _with_tensorflow):
    for precision, name, size, multiply in engine(flags.threads):
      gflops = best_gflops(size, multiply)
      if gflops > best.get(precision, {"gflops": 0})["gflops"]:
        best[precision] = {"gflops": gflops, "how": f"{name}, {size:,} x {size:,}"}
  flags.output.write_text(json.dumps(best))


if __name__ == "__main__":
  main()
