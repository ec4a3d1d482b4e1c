"""Four nights of `reevaluate` on MNIST's 10,000 testing images, each checked against a plain loop in memory.

  python -m benchmarks.nights --data DIR --output DIR
  python -m benchmarks.nights --data DIR --output DIR --every 10 --min_accuracy 0.9 --trunk keras:InceptionV3 \\
    --trunk_weights inception_v3_notop.h5

1. cold; 2. the same images; 3. a hundredth new, as many edited and as many gone; 4. a candidate trained on a tenth of
the data, which must miss the gate. JPGs of `convert`, whole processes, start-up included. Counts of computed
bottlenecks, of new, gone, regressed and fixed images must be exact, or this stops.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageOps

from benchmarks.commands import COMMAND, table, timed


class Prediction(NamedTuple):
  actual: str
  predicted: str
  sha256: str

  @property
  def right(self) -> bool:
    return self.actual == self.predicted


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", required=True, help="folder of the four IDX files")
  parser.add_argument("--output", required=True, type=Path, help="a new or empty folder")
  parser.add_argument("--runner", help="Beam runner (default: the commands' own)")
  parser.add_argument("--every", type=int, default=1, metavar="N", help="take every N-th image of MNIST only")
  parser.add_argument("--min_accuracy", default="0.98", help="the gate (default: %(default)s)")
  parser.add_argument("--trunk", default="bundled", help="see `beam-retrain bottlenecks --help`")
  parser.add_argument("--trunk_weights", help="likewise")
  flags = parser.parse_args()
  output: Path = flags.output
  runner = [f"--runner={flags.runner}"] if flags.runner else []

  timed("convert", f"--input={flags.data}", f"--output={output / 'all'}", "--formats=jpg", *runner)
  whole = _some(output / "all", output / "pictures", flags.every, flags.every)
  tenth = _some(whole, output / "tenth", 10, 1)
  pictures, model, candidate = whole / "testing", output / "model", output / "candidate"
  trunk = [f"--trunk={flags.trunk}", *([f"--trunk_weights={flags.trunk_weights}"] if flags.trunk_weights else [])]
  bottlenecks = output / "bottlenecks"
  _train(whole, bottlenecks, model, *runner, *trunk)
  _train(tenth, output / "bottlenecks_of_a_tenth", candidate, *runner, *trunk, f"--reuse={bottlenecks}")
  images = len(list(pictures.rglob("*.jpg")))
  changed = images // 100

  rows = [("night", "images", "computed", "new", "edited", "gone", "regressed", "fixed", "accuracy", "gate", "seconds")]
  history = output / "nights"

  def night(number: int, name: str, *more: str, expect: int = 0) -> None:
    gates = (f"--min_accuracy={flags.min_accuracy}", "--max_drop=0.01")
    seconds = _night(history, number, model, pictures, expect, *runner, *gates, *more)
    rows.extend(_rows(history, number, name, f"{seconds:.1f}"))

  night(1, "1, cold")
  _check(history, 1, computed=images, pictures=pictures)
  night(2, "2, the same images")
  _check(history, 2, computed=0, pictures=pictures)
  _change(pictures, whole / "training", changed)
  night(3, "3, some changed")
  _check(history, 3, computed=2 * changed, pictures=pictures)
  night(4, "4, with a candidate", f"--candidate={candidate}", expect=1)
  _check(history, 4, computed=0, pictures=pictures)
  print(f"\n{table(rows)}\n\nnight two took {float(rows[2][-1]) / float(rows[1][-1]):.2f} of night one")


def _some(source: Path, folder: Path, every_training: int, every_testing: int) -> Path:
  """Copies every so many images of the class folders of each split; returns the folder."""
  for split, every in (("training", every_training), ("testing", every_testing)):
    for label in sorted(path.name for path in (source / split).iterdir()):
      (folder / split / label).mkdir(parents=True)
      for path in sorted((source / split / label).iterdir())[::every]:
        shutil.copyfile(path, folder / split / label / path.name)
  return folder


def _train(pictures: Path, bottlenecks: Path, model: Path, *flags: str) -> None:
  timed("bottlenecks", f"--input={pictures}", f"--output={bottlenecks}", *flags)
  timed("train", f"--input={bottlenecks}", f"--output={model}")


def _night(history: Path, number: int, model: Path, pictures: Path, expect: int, *more: str) -> float:
  flags = [f"--model={model}", f"--input={pictures}", f"--history={history}", f"--date=2026-01-{number:02d}"]
  command = ["reevaluate", *flags, *more]
  print(f"$ beam-retrain {' '.join(command)}", flush=True)
  start = time.perf_counter()
  code = subprocess.run([*COMMAND, *command]).returncode
  if code != expect:
    raise SystemExit(f"night {number} ended with exit code {code}, not {expect}")
  return time.perf_counter() - start


def _change(pictures: Path, training: Path, count: int) -> None:
  """Removes some images, turns as many others into their negatives, and adds as many that were for training."""
  paths = sorted(pictures.rglob("*.jpg"))
  step = len(paths) // count
  for path in paths[::step][:count]:
    path.unlink()
  for path in paths[step // 2 :: step][:count]:
    with Image.open(path) as image:
      negative = ImageOps.invert(image.convert("L"))
    negative.save(path)
  added = sorted(training.rglob("*.jpg"))
  for path in added[:: len(added) // count][:count]:
    shutil.copyfile(path, pictures / path.parent.name / f"new{path.name}")


def _check(history: Path, number: int, computed: int, pictures: Path) -> None:
  """Counts again what changed, from the predictions alone, and compares."""
  folder, before = history / f"2026-01-{number:02d}", history / f"2026-01-{number - 1:02d}"
  metrics = json.loads((folder / "metrics.json").read_text())
  _equal("computed bottlenecks", metrics["bottlenecks"]["computed"], computed)
  tonight = _predictions(folder)
  _equal("images", sorted(tonight), sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.jpg")))
  listed = {name: _listed(folder / f"{name}.csv") for name in ("regressed", "fixed", "new", "gone")}
  expected: dict[str, list[tuple[str, str]]] = {name: [] for name in listed}
  if number > 1:
    baseline = _predictions(before)
    expected = _compare(tonight, baseline, "model")
    edited = sum(tonight[key].sha256 != baseline[key].sha256 for key in tonight.keys() & baseline.keys())
    _equal("edited", metrics["comparison"]["edited"], edited)
  if (folder / "candidate").exists():
    of_candidate = _compare(_predictions(folder / "candidate"), tonight, "candidate")
    for name in ("regressed", "fixed"):
      expected[name] += of_candidate[name]
  for name, found in listed.items():
    _equal(name, sorted(found), sorted(expected[name]))


def _compare(
  tonight: dict[str, Prediction], baseline: dict[str, Prediction], model: str
) -> dict[str, list[tuple[str, str]]]:
  paired = [(key, tonight[key].right, baseline[key].right) for key in tonight.keys() & baseline.keys()]
  return {
    "regressed": [(key, model) for key, now, then in paired if then and not now],
    "fixed": [(key, model) for key, now, then in paired if now and not then],
    "new": [(key, "") for key in tonight.keys() - baseline.keys()],
    "gone": [(key, "") for key in baseline.keys() - tonight.keys()],
  }


def _predictions(folder: Path) -> dict[str, Prediction]:
  with (folder / "predictions.csv").open(newline="") as file:
    return {
      row["file_name"]: Prediction(row["actual_digit"], row["predicted_digit"], row["sha256"])
      for row in csv.DictReader(file)
    }


def _listed(path: Path) -> list[tuple[str, str]]:
  with path.open(newline="") as file:
    return [(row["file_name"], row.get("model", "")) for row in csv.DictReader(file)]


def _equal(what: str, found: object, expected: object) -> None:
  if found != expected:
    raise SystemExit(f"{what}: {str(found)[:300]}, in memory {str(expected)[:300]}")


def _rows(history: Path, number: int, name: str, seconds: str) -> list[tuple[str, ...]]:
  metrics = json.loads((history / f"2026-01-{number:02d}" / "metrics.json").read_text())
  rows = []
  for of_model, row_name, took in (
    (metrics, name, seconds),
    (metrics.get("candidate"), "   the candidate, against the model", ""),
  ):
    if of_model:
      found = of_model["comparison"]
      counts = ["-" if found[count] is None else f"{found[count]:,}" for count in ("new", "edited", "gone")]
      changes = ["-" if found[count] is None else f"{found[count]:,}" for count in ("regressed", "fixed")]
      computed = f"{metrics['bottlenecks']['computed']:,}" if of_model is metrics else ""
      gate = of_model["gates"]["min_accuracy"]["state"]
      accuracy = f"{of_model['accuracy']:.2%}"
      rows.append((row_name, f"{of_model['total']:,}", computed, *counts, *changes, accuracy, gate, took))
  return rows


if __name__ == "__main__":
  sys.exit(main())
