"""How fast a head is trained, and stored bottlenecks are evaluated, beside scikit-learn and Keras on the same data.

  python -m benchmarks.train_head [--data DIR | --labels N | --bottlenecks DIR] [--json FILE]

60,000 bottlenecks of 2,048 numbers to train on and 10,000 to test with are made first (`stored_bottlenecks`), beside a
full-size Inception v3 of random weights, which `train` exports with the head. With `--data`, MNIST's IDX files, they
are the bundled trunk's 512 numbers, widened; without, they are drawn, of N labels.

Every way is a whole process, start-up included. Ours reads its records, trains, measures, and writes all its exports;
the others find the numbers in .npy files, mapped into memory, and only train and measure. All hold a tenth of the
training images back, scale each number to mean 0 and deviation 1, and stop when they have converged, each by its own
rule: `train` and Keras by the same one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from beam_retrain.transforms.core.records.schema import TESTING, TRAINING, VALIDATION, decode_bottleneck
from beam_retrain.transforms.core.records.tfrecord import read_records
from benchmarks.commands import COMMAND, table

_ROOT = Path(__file__).resolve().parents[1]
_SEED = 0
_BATCH = 512
_L2 = 30.0  # of `train`; 1/C of scikit-learn
_OURS = "beam-retrain train"


def fit_sklearn(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> float:
  """Returns the testing accuracy, 0..1."""
  from sklearn.linear_model import LogisticRegression

  model = LogisticRegression(C=1 / _L2, max_iter=1000)
  return float(model.fit(*train).score(*test))


def fit_keras(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> float:
  """Returns the testing accuracy, 0..1."""
  import keras

  keras.utils.set_random_seed(_SEED)
  vectors, classes = train
  held_back = len(vectors) // 10
  penalty = keras.regularizers.L2(_L2 / 2 / (len(vectors) - held_back))
  layers = [keras.Input((vectors.shape[1],)), keras.layers.Dense(int(classes.max()) + 1, kernel_regularizer=penalty)]
  model = keras.Sequential(layers)
  model.compile(
    keras.optimizers.Adam(0.001), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
  )
  model.fit(
    vectors[held_back:],
    classes[held_back:],
    batch_size=_BATCH,
    epochs=100,
    verbose=0,
    validation_data=(vectors[:held_back], classes[:held_back]),
    callbacks=[
      keras.callbacks.ReduceLROnPlateau(factor=0.3, patience=2, min_delta=0),
      keras.callbacks.EarlyStopping(patience=6, restore_best_weights=True),
    ],
  )
  return float(model.evaluate(*test, verbose=0, batch_size=4096)[1])


_PEERS = {"scikit-learn LogisticRegression": fit_sklearn, "Keras fit": fit_keras}


def run_peer(name: str, folder: str) -> None:
  """What a peer's process does; prints the testing accuracy."""
  loaded = {
    split: (np.load(f"{folder}/{split}.npy", mmap_mode="r"), np.load(f"{folder}/{split}_classes.npy"))
    for split in (TRAINING, TESTING)
  }
  vectors, _ = loaded[TRAINING]
  mean, deviation = vectors.mean(axis=0), vectors.std(axis=0)
  deviation[deviation == 0] = 1
  train, test = (((part - mean) / deviation, of_part) for part, of_part in loaded.values())
  print(_PEERS[name](train, test))


def make(folder: str, data: str | None, labels: int) -> None:
  """Writes bottlenecks of 60,000 and 10,000 images, and the Inception v3 that they are said to be of."""
  import keras

  from beam_retrain.transforms.core.models.saved_model import freeze, save_trunk
  from benchmarks.stored_bottlenecks import run

  keras.utils.set_random_seed(_SEED)
  model = keras.applications.InceptionV3(weights=None, include_top=False, pooling="avg")
  save_trunk(freeze(lambda images: model(images, training=False), 299), f"{folder}/trunk")
  of_data = []
  if data:
    narrow = f"{folder}/narrow"
    subprocess.run([*COMMAND, "bottlenecks", f"--input={data}", "--trunk=bundled", f"--output={narrow}"], check=True)
    of_data = [f"--widen={narrow}"]
  run([f"--output={folder}/bottlenecks", f"--trunk={folder}/trunk", f"--labels={labels}", *of_data])


def write_arrays(bottlenecks: str, folder: str) -> None:
  """Writes float32 [N, D] and int64 [N] of both splits for the peers; validation images are for training."""
  counts = {
    split: one["outputs"] for split, one in json.loads(Path(bottlenecks, "stats.json").read_text())["splits"].items()
  }
  for target, splits in ((TRAINING, (TRAINING, VALIDATION)), (TESTING, (TESTING,))):
    count = sum(counts.get(split, 0) for split in splits)
    classes, vectors, row = np.empty(count, np.int64), None, 0
    for path in [path for split in splits for path in sorted(Path(bottlenecks, "records").glob(f"{split}-*.tfrecord"))]:
      with path.open("rb") as file:
        for one in map(decode_bottleneck, read_records(file, str(path))):
          if vectors is None:
            shape = (count, one.vector.size)
            vectors = np.lib.format.open_memmap(f"{folder}/{target}.npy", "w+", np.float32, shape)
          vectors[row], classes[row] = one.vector, one.class_index
          row += 1
    # A source's order may be that of its labels; what is held back would then be one of them.
    order = np.array(sorted(range(count), key=lambda number: hashlib.sha256(b"%d" % number).digest()))
    assert vectors is not None, f"{bottlenecks} has no {target} records"
    vectors[:] = vectors[order]
    np.save(f"{folder}/{target}_classes.npy", classes[order])


def measure(command: Sequence[str]) -> tuple[float, float, float, str]:
  """Returns wall seconds, CPU seconds and peak MB of a whole process, and what it printed.

  Raises:
    SystemExit: it failed.
  """
  began = time.perf_counter()
  process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True)
  assert process.stdout is not None
  printed = process.stdout.read()
  _, status, usage = os.wait4(process.pid, 0)
  process.returncode = os.waitstatus_to_exitcode(status)
  if process.returncode:
    raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}")
  return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, printed


def compare(bottlenecks: str, folder: str) -> list[dict[str, Any]]:
  """Runs all ways, and returns a row for each; `folder` has what `write_arrays` wrote."""
  model, evaluation = f"{folder}/model", f"{folder}/evaluation"
  peer = [sys.executable, "-m", "benchmarks.train_head", "--arrays", folder, "--peer"]
  ways = {
    _OURS: [*COMMAND, "train", f"--input={bottlenecks}", f"--output={model}"],
    **{name: [*peer, name] for name in _PEERS},
    "beam-retrain evaluate, stored bottlenecks": [
      *(*COMMAND, "evaluate", f"--model={model}"),
      *(f"--input={bottlenecks}", f"--output={evaluation}"),
    ],
  }
  rows: list[dict[str, Any]] = []
  for name, command in ways.items():
    print(f"{name} ...", flush=True)
    seconds, cpu_seconds, peak_mb, printed = measure(command)
    metrics = Path(evaluation if "evaluate" in name else model, "metrics.json")
    if name in _PEERS:
      accuracy = float(printed.splitlines()[-1])
    else:
      found = json.loads(metrics.read_text())
      accuracy = found["accuracy"] if "evaluate" in name else found["testing_accuracy"]
    first = rows[0]["seconds"] if name in _PEERS else None
    rows.append(
      {
        "name": name,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "ratio": seconds / first if first else None,
        "against": _OURS if first else None,
        "accuracy": accuracy,
        "peak_mb": peak_mb,
        "note": f"testing accuracy {accuracy:.2%}, peak {peak_mb:,.0f} MB",
      }
    )
  return rows


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--bottlenecks", metavar="DIR", help="what `bottlenecks` wrote")
  parser.add_argument("--data", metavar="DIR", help="folder of MNIST's four IDX files")
  parser.add_argument("--labels", type=int, default=10, metavar="N", help="of drawn bottlenecks (default: %(default)d)")
  parser.add_argument("--json", metavar="FILE", help="write the rows there, too")
  parser.add_argument("--peer", choices=tuple(_PEERS), help=argparse.SUPPRESS)
  parser.add_argument("--arrays", help=argparse.SUPPRESS)
  flags = parser.parse_args()
  if flags.peer:
    run_peer(flags.peer, flags.arrays)
    return
  if flags.arrays:
    if not flags.bottlenecks:
      make(flags.arrays, flags.data, flags.labels)
    write_arrays(flags.bottlenecks or f"{flags.arrays}/bottlenecks", flags.arrays)
    return
  with tempfile.TemporaryDirectory() as folder:
    # In a process of its own: the memory of this one would be counted as that of those that it starts.
    prepare = [sys.executable, "-m", "benchmarks.train_head", "--arrays", folder, f"--labels={flags.labels}"]
    given = [f"--{name}={path}" for name in ("bottlenecks", "data") if (path := getattr(flags, name))]
    subprocess.run([*prepare, *given], check=True)
    rows = compare(os.path.abspath(flags.bottlenecks or f"{folder}/bottlenecks"), folder)
  lines = [
    (
      row["name"],
      f"{row['seconds']:.1f}",
      f"{row['cpu_seconds']:.1f}",
      f"{row['peak_mb']:,.0f}",
      f"{row['accuracy']:.2%}",
    )
    for row in rows
  ]
  print(table([("whole process", "wall s", "CPU s", "peak MB", "testing accuracy"), *lines]))
  if flags.json:
    Path(flags.json).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
  main()
