"""The bare ceiling: the prepared graph of a trunk in a loop over batches that were decoded before.

Takes what the peers take; `--network` is the trunk's folder that `bottlenecks` wrote. One caller and two at once are
tried; what the faster of them did counts. `ready_secs` is what loading the trunk and its first batch took, without
the import of TensorFlow. The vectors are those of the first batches, which the loop goes through again and again.
"""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path

import numpy as np

from beam_retrain.transforms.core.models.inference import LoadedModel, load_model
from beam_retrain.transforms.core.system.imports import load_tensorflow
from benchmarks.measurements import steady_rate
from benchmarks.peers.protocol import End, end_of_batch, hand_back, read_task

_DECODED_BATCHES = 8


def main() -> None:
  task = read_task(("float32", "bfloat16", "int8"))
  load_tensorflow()
  began = time.monotonic()
  model = load_model(str(task.network), task.threads, batch_size=task.batch_size)
  ready_secs = time.monotonic() - began
  # Whole ones, unless there is but a part of one.
  chosen = [batch for batch in task.batches if len(batch) == task.batch_size][:_DECODED_BATCHES] or task.batches
  batches = [model.preprocess([Path(path).read_bytes() for path in batch]) for batch in chosen]
  began = time.monotonic()
  model.infer(batches[0])
  ready_secs += time.monotonic() - began
  vectors = np.concatenate([model.infer(batch)["bottleneck"] for batch in batches])
  rounds = max(2, len(task.images) // task.batch_size // 2)
  tried = {callers: _loop(model, batches, rounds, callers) for callers in (1, 2)}
  best = max(tried, key=lambda callers: steady_rate(tried[callers]) or 0)
  hand_back(task, vectors, tried[best], {"callers": best, "ready_secs": ready_secs})


def _loop(model: LoadedModel, batches: list[np.ndarray], rounds: int, callers: int) -> list[End]:
  """Runs `rounds` batches in all; several callers take turns."""
  ends: list[End] = []
  turns = itertools.islice(itertools.cycle(batches), rounds)
  lock = threading.Lock()

  def call(worker: str) -> None:
    while True:
      with lock:
        batch = next(turns, None)
      if batch is None:
        return
      model.infer(batch)
      ends.append(end_of_batch(len(batch), worker))

  threads = [threading.Thread(target=call, args=(str(number),)) for number in range(callers)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  return ends


if __name__ == "__main__":
  main()
