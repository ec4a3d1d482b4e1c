"""Distortions at the price of a cache: time against distorting at every step, accuracy against not distorting at all.

    python -m benchmarks.distortions --data DIR --output DIR

DIR holds the four IDX files. The first 1,000 of MNIST's training images, of which a tenth is for validation, and all
10,000 testing images, through the bundled trunk. Whole commands, start-up included; `distort_every_step` is the way of
`retrain.py`, batched. Ends with a table, and with the ratio of the two ways' times at equal steps, both measured whole.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from beam_retrain.transforms.core.images.idx import encode_idx
from benchmarks.commands import table, timed
from benchmarks.mnist import accuracy

_SETTING = ("--random_crop=40",)
_TIMED = "crop 40 %; 4 copies"
_TRIALS = {
  "none": (),
  _TIMED: _SETTING,
  "crop 40 %; 16 copies": (*_SETTING, "--distortion_copies=16"),
  "crop 10 %, scale 10 %, brightness 20 %; 4 copies": (
    "--random_crop=10",
    "--random_scale=10",
    "--random_brightness=20",
  ),
}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", required=True, type=Path, help="folder of the four IDX files")
  parser.add_argument("--output", required=True, type=Path, help="a new or empty folder")
  parser.add_argument("--images", type=int, default=1000, help="first training images taken (default: %(default)d)")
  parser.add_argument("--steps", type=int, default=4000, help="of both ways, 100 images each (default: %(default)d)")
  parser.add_argument("--only_time", action="store_true", help="leave out what is only of accuracy")
  flags = parser.parse_args()
  output: Path = flags.output
  data = output / "data"
  _take_first(flags.data, data, flags.images)

  head = (
    "distortions",
    "images through the trunk to train",
    "bottlenecks, s",
    "train --preset retrain, s",
    "together, s",
  )
  rows = [(*head, "testing accuracy of it", "of the default preset")]
  whole = {}
  for number, (name, distortions) in enumerate(_TRIALS.items()):
    if flags.only_time and name not in ("none", _TIMED):
      continue
    folder = output / f"trial{number}"
    bottlenecks, model = folder / "bottlenecks", folder / "train"
    # Others than the timed one may take what is there: their time is not told.
    is_timed = name in ("none", _TIMED)
    reuse = [] if is_timed else [f"--reuse={output / 'trial0' / 'bottlenecks'}"]
    made = timed("bottlenecks", f"--input={data}", f"--output={bottlenecks}", *distortions, *reuse)
    steps = f"--training_steps={flags.steps}"
    trained = timed("train", f"--input={bottlenecks}", f"--output={model}", "--preset=retrain", steps)
    whole[name] = made + trained
    times = (f"{made:.1f}", f"{trained:.1f}", f"{made + trained:.1f}") if is_timed else ("", "", "")
    by_default = ""
    if not flags.only_time:
      timed("train", f"--input={bottlenecks}", f"--output={folder / 'train_default'}")
      by_default = f"{accuracy(folder / 'train_default', 'testing_accuracy'):.2%}"
    rows.append((name, f"{_images(bottlenecks):,}", *times, f"{accuracy(model, 'testing_accuracy'):.2%}", by_default))

  seconds, result = _distort_every_step(output / "trial0" / "bottlenecks", data, output, flags.steps)
  passed = f"{100 * flags.steps:,}"
  name = "crop 40 %; anew at every step"
  rows.append((name, passed, "", "", f"{seconds:.1f}", f"{result['testing_accuracy']:.2%}", ""))
  print(
    f"\n{table(rows)}\n\n{flags.steps:,} steps of 100 of {flags.images:,} images, whole: {seconds:.1f} s with"
    f" distortions at every step (the steps alone: {result['steps_seconds']:.1f} s), {whole[_TIMED]:.1f} s cached:"
    f" {seconds / whole[_TIMED]:.1f} times as long"
  )


def _take_first(data: Path, folder: Path, count: int) -> None:
  """Writes IDX files of the first training images and all testing images."""
  folder.mkdir(parents=True)
  for prefix, number in (("train", count), ("t10k", None)):
    for kind, header_bytes, shape in (("images?idx3", 16, (-1, 28, 28)), ("labels?idx1", 8, (-1,))):
      (path,) = data.glob(f"{prefix}-{kind}-ubyte*")
      with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        array = np.frombuffer(file.read(), np.uint8, offset=header_bytes).reshape(shape)
      (folder / f"{prefix}-{kind.replace('?', '-')}-ubyte").write_bytes(encode_idx(array[:number]))


def _images(bottlenecks: Path) -> int:
  """Returns how many images and variants that are trained on went through the trunk."""
  stats = json.loads((bottlenecks / "stats.json").read_text())
  return stats["splits"]["training"]["outputs"] + stats.get("distorted", {"records": 0})["records"]


def _distort_every_step(bottlenecks: Path, data: Path, output: Path, steps: int) -> tuple[float, dict[str, float]]:
  """Returns the wall time, start-up included, and what the process says of itself."""
  found = output / "every_step.json"
  arguments = [f"--bottlenecks={bottlenecks}", f"--data={data}", f"--output={found}", f"--steps={steps}", *_SETTING]
  print(f"$ python -m benchmarks.distort_every_step {' '.join(arguments)}", flush=True)
  start = time.perf_counter()
  subprocess.run([sys.executable, "-m", "benchmarks.distort_every_step", *arguments], check=True)
  return time.perf_counter() - start, json.loads(found.read_text())


if __name__ == "__main__":
  main()
