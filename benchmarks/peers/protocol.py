"""What every contender is told and what it hands back, so that all are measured by the same rule.

Told, on the command line: `--pictures` (folder of JPGs, in class folders), `--network` (what `benchmarks.network`
wrote), `--precision`, `--images` (take the first so many, by path), `--batch_size`, `--threads` and `--output`.

Handed back, in OUTPUT, JSON: `images`; `ends`, one [worker, monotonic seconds, images] for each batch that was done;
`settings`, how the engine was set; `vectors`, the name of a .npy file beside it, float32 [images or fewer, D] in the
order of the paths. Rates are computed by `benchmarks.measurements` alone; the whole process is timed from outside.

Imports numpy only: it runs in every environment.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

INPUT_PX = 299
End = tuple[str, float, int]


@dataclasses.dataclass(frozen=True)
class Task:
  """What a contender is told.

  Attributes:
    folder: where the images are.
    images: their paths, sorted.
    network: folder with the network in several forms.
    precision: float32, bfloat16 or int8.
    batch_size: images per call.
    threads: cores to use, all processes together.
    output: the JSON file to write.
  """

  folder: str
  images: Sequence[str]
  network: Path
  precision: str
  batch_size: int
  threads: int
  output: Path

  @property
  def batches(self) -> list[Sequence[str]]:
    return [self.images[start : start + self.batch_size] for start in range(0, len(self.images), self.batch_size)]


def read_task(precisions: Sequence[str]) -> Task:
  """Reads the command line of a contender that can do these precisions."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--pictures", required=True)
  parser.add_argument("--network", required=True, type=Path)
  parser.add_argument("--precision", choices=precisions, default=precisions[0])
  parser.add_argument("--images", type=int, default=10**9)
  parser.add_argument("--batch_size", type=int, default=32)
  parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
  parser.add_argument("--output", required=True, type=Path)
  flags = parser.parse_args()
  images = list_images(flags.pictures)[: flags.images]
  return Task(flags.pictures, images, flags.network, flags.precision, flags.batch_size, flags.threads, flags.output)


def list_images(folder: str) -> list[str]:
  return sorted(str(path) for path in Path(folder).rglob("*.jpg"))


def end_of_batch(images: int, worker: str = "") -> End:
  """Returns the entry of `ends` for a batch that is done now; the clock is the same in all processes of a machine."""
  return worker, time.monotonic(), images


def hand_back(task: Task, vectors: np.ndarray, ends: Sequence[End], settings: dict[str, Any]) -> None:
  """Writes what is handed back; `vectors` are of the first images."""
  name = f"{task.output.stem}.npy"
  np.save(task.output.with_name(name), np.asarray(vectors, np.float32))
  result = {"images": len(task.images), "ends": list(ends), "settings": settings, "vectors": name}
  task.output.write_text(json.dumps(result))


def ahead(make: Callable[[Any], Any], items: Sequence[Any], depth: int = 2) -> Iterator[Any]:
  """Yields `make(item)` for each item, made by a thread that is at most `depth` of them ahead."""
  ready: queue.Queue[Any] = queue.Queue(depth)

  def work() -> None:
    try:
      for item in items:
        ready.put((make(item), None))
    except BaseException as error:
      ready.put((None, error))

  threading.Thread(target=work, daemon=True).start()
  for _ in items:
    made, error = ready.get()
    if error is not None:
      raise error
    yield made
