"""Finds labels that were flipped at random, and compares with cleanlab on the same out-of-fold scores.

  python -m benchmarks.label_errors --bottlenecks DIR [--flipped 0.01] [--environments DIR]

DIR is an output of `bottlenecks`, such as MNIST's; its training images are taken. cleanlab is installed in an
environment of its own. Prints a table of precision and recall, and processor seconds.
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

from beam_retrain.transforms.core.metrics import label_errors
from beam_retrain.transforms.core.records.schema import RECORDS_FOLDER, TRAINING
from beam_retrain.transforms.core.run.output_folder import read_labels
from beam_retrain.transforms.core.system.machine import peak_memory
from beam_retrain.transforms.evaluation.label_errors import RecordFile, read_table
from beam_retrain.transforms.io import files
from benchmarks.environments import make_environment

_PEER = Path(__file__).parent / "peers" / "cleanlab_issues.py"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--bottlenecks", required=True)
  parser.add_argument("--flipped", type=float, default=0.01)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--environments", type=Path, default=Path(tempfile.gettempdir()) / "beam-retrain-environments")
  flags = parser.parse_args()
  clocks = [time.process_time()]
  names = read_labels(flags.bottlenecks)
  table = read_table(_files(flags.bottlenecks), names)
  if table is None:
    sys.exit("there are too few images")
  clocks.append(time.process_time())
  labels, is_wrong = _flip(table.classes, len(names), flags.flipped, flags.seed)
  judged = label_errors.judge(table.components, labels, table.images)
  clocks.append(time.process_time())
  print(
    f"{len(labels):,} images, {is_wrong.sum():,} labels flipped; {clocks[1] - clocks[0]:.1f} s to read and project,"
    f" {clocks[2] - clocks[1]:.1f} s to judge (processor); {peak_memory() / 2**20:,.0f} MiB at most"
  )
  scores = np.zeros((len(labels), len(names)), np.float32)
  for rows, of_rows in label_errors.train_heads(table.components, labels, table.images)():
    scores[rows] = of_rows
  of_peer = _ask_cleanlab(labels, scores, make_environment("cleanlab", flags.environments))
  count = int(is_wrong.sum())
  print("| found by | labels | precision | recall | right of the first as many as are wrong |\n|---|---|---|---|---|")
  _print("`--label_errors`: heads and neighbours", judged.rows, is_wrong, np.argsort(judged.score)[:count])
  plain = np.argsort(judged.confidence, kind="stable")
  _print("the heads alone", plain[: len(judged.rows)], is_wrong, plain[:count])
  first = np.argsort(np.array(of_peer["quality"]), kind="stable")[:count]
  for rule, found in of_peer["rules"].items():
    _print(f"cleanlab, `{rule}`", np.array(found["rows"], int), is_wrong, first)


def _files(folder: str) -> list[RecordFile]:
  stats = files.match_in(files.join(folder, RECORDS_FOLDER), f"{TRAINING}-*.tfrecord")
  return [RecordFile(stat.path, TRAINING) for stat in stats]


def _flip(classes: np.ndarray, number: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns labels, and which of them are wrong."""
  rng = np.random.default_rng(seed)
  rows = rng.choice(len(classes), round(share * len(classes)), replace=False)
  labels, is_wrong = classes.copy(), np.zeros(len(classes), bool)
  labels[rows] = (classes[rows] + rng.integers(1, number, len(rows))) % number
  is_wrong[rows] = True
  return labels, is_wrong


def _ask_cleanlab(labels: np.ndarray, scores: np.ndarray, python: Path) -> dict:
  with tempfile.TemporaryDirectory() as folder:
    given, answer = Path(folder) / "scores.npz", Path(folder) / "issues.json"
    np.savez(given, labels=labels, scores=scores)
    subprocess.run([str(python), str(_PEER), str(given), str(answer)], check=True)
    return json.loads(answer.read_text())


def _print(what: str, rows: np.ndarray, is_wrong: np.ndarray, first: np.ndarray) -> None:
  hits = int(is_wrong[rows].sum())
  precision, recall = hits / max(len(rows), 1), hits / is_wrong.sum()
  print(f"| {what} | {len(rows):,} | {precision:.1%} | {recall:.1%} | {is_wrong[first].mean():.1%} |", flush=True)


if __name__ == "__main__":
  main()
