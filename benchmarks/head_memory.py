"""Memory and time of `train`'s epochs, with vectors in memory and in a file, at both ends of the scale.

  python -m benchmarks.head_memory [--images 100000 2000000] [--dimensions 2048] [--epochs 3]

Every row is a process of its own, which draws its vectors from a seed, block by block, and fits a head to them. The
peak is of the whole process; the pages of the file that the system caches are not part of it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from beam_retrain.trainer.fit import training
from beam_retrain.trainer.fit.data import Bottlenecks
from beam_retrain.trainer.fit.schedule import FullBatch
from beam_retrain.trainer.fit.vectors import make_vectors
from beam_retrain.transforms.core.records.schema import TESTING, TRAINING, VALIDATION
from beam_retrain.transforms.core.system.machine import available_memory, peak_memory
from benchmarks.commands import table

_ROOT = Path(__file__).resolve().parents[1]
_CLASSES = 10
_DRAWN = 10_000  # vectors at a time
_UNLIMITED = 1 << 60


def main() -> None:
  parser = argparse.ArgumentParser(prog="python -m benchmarks.head_memory", description=(__doc__ or "").splitlines()[0])
  parser.add_argument("--images", type=int, nargs="+", default=[100_000, 2_000_000])
  parser.add_argument("--dimensions", type=int, default=2048)
  parser.add_argument("--epochs", type=int, default=3)
  parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # the memory limit of a row's own process
  given = parser.parse_args()
  if given.one is not None:
    print(json.dumps(_fit(given.images[0], given.dimensions, given.epochs, given.one)))
    return
  rows: list[tuple[str, ...]] = []
  for images in given.images:
    size = 4 * images * given.dimensions
    for where, limit in (("memory", _UNLIMITED), ("file", 1)):
      if where == "memory" and size > 0.8 * available_memory():
        rows.append((f"{images:,}", where, "no room", "", ""))
        continue
      peak, epoch_secs, accuracy = _measure(images, given.dimensions, given.epochs, limit)
      rate = f"{1e6 * epoch_secs / images:.1f}"
      rows.append((f"{images:,}", where, f"{peak / 1e6:,.0f} MB", rate, f"{100 * accuracy:.2f} %"))
  print(f"vectors of {given.dimensions:,} numbers, {_CLASSES} classes")
  print(table([("images", "vectors in", "peak memory", "us an image and epoch", "validation accuracy"), *rows]))


def _measure(images: int, dimensions: int, epochs: int, limit: int) -> tuple[int, float, float]:
  command = [sys.executable, "-m", "benchmarks.head_memory", f"--images={images}", f"--dimensions={dimensions}"]
  command += [f"--epochs={epochs}", f"--one={limit}"]
  done = subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.PIPE, text=True)
  peak, epoch_secs, accuracy = json.loads(done.stdout.splitlines()[-1])
  return peak, epoch_secs, accuracy


def _fit(images: int, dimensions: int, epochs: int, limit: int) -> tuple[int, float, float]:
  """Returns (peak memory in bytes, seconds an epoch, validation accuracy)."""
  data = _draw(images, dimensions, limit)
  schedule = FullBatch(epochs=epochs, patience=epochs, l2=30.0)
  with tempfile.TemporaryDirectory() as folder:
    clock = _Clock()
    _, rounds = training.train(data, schedule, seed=0, checkpoint=f"{folder}/head.npz", callbacks=[clock])
  # The first stands between the measure of the curvature and the others.
  return peak_memory(), float(np.median(np.diff(clock.times))), rounds[-1].validation_accuracy


class _Clock(training.TrainingCallback):
  def __init__(self) -> None:
    self.times: list[float] = []

  def on_eval(self, step: int, result: object) -> None:
    self.times.append(time.perf_counter())


def _draw(images: int, dimensions: int, limit: int) -> Bottlenecks:
  """Draws clouds, one for each class, that overlap."""
  rng = np.random.default_rng(0)
  centres = rng.standard_normal((_CLASSES, dimensions), np.float32) * np.float32(4 / dimensions**0.5)
  classes = rng.integers(_CLASSES, size=images, dtype=np.int32)
  vectors = make_vectors((images, dimensions), limit)
  for start in range(0, images, _DRAWN):
    of = classes[start : start + _DRAWN]
    vectors[start : start + len(of)] = rng.standard_normal((len(of), dimensions), np.float32) + centres[of]
  is_validation = np.arange(images) % 10 == 0
  rows = {TRAINING: np.flatnonzero(~is_validation), VALIDATION: np.flatnonzero(is_validation), TESTING: np.arange(0)}
  return Bottlenecks(vectors, classes, rows, [str(label) for label in range(_CLASSES)], "")


if __name__ == "__main__":
  main()
