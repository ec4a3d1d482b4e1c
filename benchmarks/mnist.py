"""All of MNIST through every stage with the bundled trunk, and everything that must hold of it, checked.

    python -m benchmarks.mnist --data DIR --output DIR

DIR holds the four IDX files. Ends with a table: stage, time, what was checked. Any check that does not hold ends it.
"""

from __future__ import annotations

import argparse
import csv
import filecmp
import json
from collections.abc import Iterator
from pathlib import Path

from beam_retrain.transforms.core.metrics.label_stats import evaluate_in_memory, per_label_csv
from beam_retrain.transforms.core.run.output_folder import read_labels
from benchmarks.commands import table, timed

# Images per label, 0 to 9, as published.
PUBLISHED = {
  "training": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
  "testing": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
}
MIN_ACCURACY = 0.98
TWO_PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", required=True, help="folder of the four IDX files")
  parser.add_argument("--output", required=True, type=Path, help="a new or empty folder")
  parser.add_argument("--runner", help="Beam runner (default: the commands' own)")
  flags = parser.parse_args()
  output: Path = flags.output
  images, bottlenecks, model = output / "convert", output / "bottlenecks", output / "train"
  runner = [f"--runner={flags.runner}"] if flags.runner else []
  rows = [("stage", "seconds", "checked")]

  def stage(name: str, checked: str, *arguments: str) -> None:
    rows.append((name, f"{timed(*arguments, *runner):.1f}", checked))

  stage("convert, JPG and records", "counts as published", "convert", f"--input={flags.data}", f"--output={images}")
  check_counts(images)
  work = (f"--input={images}", "--trunk=bundled")
  stage("bottlenecks, 1 worker", "ledger closed", "bottlenecks", *work, f"--output={bottlenecks}")
  check_counts(bottlenecks)
  two = output / "bottlenecks_two_processes"
  threads = "--trunk_threads=1"
  stage("bottlenecks, 2 processes", "ledger closed", "bottlenecks", *work, threads, f"--output={two}", *TWO_PROCESSES)
  check_counts(two)
  check_same_records(bottlenecks, two)
  seconds = timed("train", f"--input={bottlenecks}", f"--output={model}")
  rows.append(("train", f"{seconds:.1f}", f"testing accuracy {accuracy(model, 'testing_accuracy'):.2%}"))
  retrain = output / "train_retrain"
  seconds = timed("train", f"--input={bottlenecks}", f"--output={retrain}", "--preset=retrain")
  rows.append(
    ("train --preset retrain", f"{seconds:.1f}", f"testing accuracy {accuracy(retrain, 'testing_accuracy'):.2%}")
  )

  evaluations = {
    "evaluate": ("1 worker", images, ()),
    "evaluate_two_processes": ("2 processes", images, (*TWO_PROCESSES, threads)),
    "evaluate_stored": ("stored bottlenecks", bottlenecks, ()),
  }
  for name, (how, source, more) in evaluations.items():
    arguments = (f"--model={model}", f"--input={source}", f"--output={output / name}", *more)
    stage(f"evaluate, {how}", "same per_label.csv as the in-memory twin", "evaluate", *arguments)
    check_twin(output / name)
  first, *others = ((output / name / "per_label.csv").read_bytes() for name in evaluations)
  assert all(other == first for other in others), "per_label.csv differs between the ways of evaluating"
  reached = accuracy(output / "evaluate", "accuracy")
  assert reached >= MIN_ACCURACY, f"accuracy {reached:.2%} is below {MIN_ACCURACY:.1%}"
  print(f"\n{table(rows)}\n\naccuracy {reached:.2%} of MNIST's 10,000 testing images")


def check_counts(folder: Path) -> None:
  """Checks a stage's `stats.json` against the published counts, and its ledger."""
  stats = json.loads((folder / "stats.json").read_text())
  for split, counts in PUBLISHED.items():
    totals = stats["splits"][split]
    found = tuple(totals["labels"][str(digit)] for digit in range(10))
    assert found == counts, f"{folder}: {split} has {found}, published are {counts}"
    assert totals["inputs"] == totals["outputs"] + totals["quarantined"] == sum(counts), f"{folder}: {totals}"


def check_same_records(folder: Path, other: Path) -> None:
  """Checks that two runs wrote the same record files, byte for byte."""
  names = sorted(path.name for path in (folder / "records").glob("*.tfrecord"))
  assert names == sorted(path.name for path in (other / "records").glob("*.tfrecord")), f"{folder} and {other} differ"
  _, differing, unreadable = filecmp.cmpfiles(folder / "records", other / "records", names, shallow=False)
  assert not differing + unreadable, f"{folder} and {other} differ in {(differing + unreadable)[:5]}"


def check_twin(folder: Path) -> None:
  """Counts `predictions.csv` again, in one loop in memory, and compares the table that comes out byte by byte."""

  def outcomes() -> Iterator[tuple[str, str]]:
    with (folder / "predictions.csv").open(newline="") as file:
      for row in csv.DictReader(file):
        yield row["actual_digit"], row["predicted_digit"]

  twin = per_label_csv(evaluate_in_memory(outcomes(), read_labels(str(folder))))
  assert (folder / "per_label.csv").read_bytes() == twin.encode(), f"{folder}: per_label.csv is not the twin's"


def accuracy(folder: Path, name: str) -> float:
  return json.loads((folder / "metrics.json").read_text())[name]


if __name__ == "__main__":
  main()
