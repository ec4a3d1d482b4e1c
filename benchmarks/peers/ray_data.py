"""Ray Data: files to `map_batches` over actors that keep the compiled network, OpenVINO's: the fastest engine here.

One actor of one thread for each core, which decodes and infers: sending decoded images through the object store, 1 MB
each, is slower than decoding where they are used.
"""

from __future__ import annotations

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no report home
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")

import logging
import time
from pathlib import Path

import numpy as np
import ray

from benchmarks.peers.protocol import hand_back, read_task


class Embed:
  """The network of one actor."""

  def __init__(self, network: Path, precision: str, batch_size: int):
    from benchmarks.peers.openvino_network import compile_network

    self._compiled = compile_network(network, precision, batch_size, threads=1)
    self._batch_size = batch_size
    self._worker = str(os.getpid())

  def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    from benchmarks.peers.images import decode_batch

    count = len(batch["bytes"])
    vectors = self._compiled(decode_batch(batch["bytes"], self._batch_size))[0][:count]
    return {
      "path": batch["path"],
      "vector": vectors,
      "worker": np.full(count, self._worker),
      "end": np.full(count, time.monotonic()),
    }


def main() -> None:
  task = read_task(("bfloat16", "float32", "int8"))
  ray.init(num_cpus=task.threads, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
  context = ray.data.DataContext.get_current()
  context.enable_progress_bars = False
  logging.getLogger("ray.data").setLevel(logging.ERROR)
  embedded = ray.data.read_binary_files(
    list(task.images), include_paths=True, num_cpus=0.1, override_num_blocks=2 * task.threads
  ).map_batches(
    Embed,
    fn_constructor_args=(task.network.absolute(), task.precision, task.batch_size),
    batch_size=task.batch_size,
    compute=ray.data.ActorPoolStrategy(size=task.threads),
    num_cpus=0.9,
  )
  rows = [row for block in embedded.iter_batches(batch_size=None, batch_format="numpy") for row in _rows(block)]
  rows.sort()
  batches: dict[tuple[str, float], int] = {}
  for _, _, worker, end in rows:
    batches[worker, end] = batches.get((worker, end), 0) + 1
  ends = [(worker, end, count) for (worker, end), count in sorted(batches.items(), key=lambda item: item[0][1])]
  settings = {"ray": ray.__version__, "actors": task.threads, "engine": "OpenVINO"}
  hand_back(task, np.stack([vector for _, vector, _, _ in rows]), ends, settings)


def _rows(block: dict[str, np.ndarray]) -> list[tuple[str, np.ndarray, str, float]]:
  names = (os.path.abspath(str(path)) for path in block["path"])
  workers, ends = map(str, block["worker"]), map(float, block["end"])
  return list(zip(names, block["vector"], workers, ends, strict=True))


if __name__ == "__main__":
  main()
