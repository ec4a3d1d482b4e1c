"""How fast `convert` turns IDX files into images, beside the loops that it replaces, measured in the same run.

  python benchmarks/convert_mnist.py --input IDX_DIR [--rounds 3]

Each way runs as a whole process, start-up included, in turn with the others; the median of the rounds counts. CPU
seconds (user and system, all processes) are less disturbed by what else the machine does than wall time.
Each run writes a tree of its own (1.5 GB a round) that is deleted at the very end: a file system that has just freed
70,000 inodes makes new ones several times more slowly. The trees of all ways are compared byte for byte.
"""

from __future__ import annotations

import argparse
import array
import filecmp
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL.Image

_ROOT = Path(__file__).resolve().parents[1]


def convert_in_a_loop(source: str, output: str, *, by_rows: bool) -> None:
  """The single process that people use: one image after another, saved by Pillow under its own name.

  Args:
    source: folder with the IDX files, plain or gzip.
    output: a new folder.
    by_rows: in the manner of the article's script: each image put together from slices of a flat array, and its file
      opened once before Pillow opens it again. Otherwise the shortest loop that numpy allows.
  """
  sys.path.insert(0, str(_ROOT))
  from beam_retrain.transforms.core.images.idx import IMAGES_OFFSET, LABELS_OFFSET

  for split, prefix in (("training", "train"), ("testing", "t10k")):
    pixels, labels = (
      _read(source, f"{prefix}-{kind}")[offset:]
      for kind, offset in (("images-idx3", IMAGES_OFFSET), ("labels-idx1", LABELS_OFFSET))
    )
    side = round((len(pixels) / len(labels)) ** 0.5)
    flat = array.array("B", pixels)
    images = np.frombuffer(pixels, np.uint8).reshape(-1, side, side)
    for label in range(10):
      os.makedirs(f"{output}/{split}/{label}")
    for index, label in enumerate(labels):
      path = f"{output}/{split}/{label}/{index}.jpg"
      if by_rows:
        with open(path, "wb"):
          starts = range(index * side * side, (index + 1) * side * side, side)
          PIL.Image.fromarray(np.asarray([flat[start : start + side] for start in starts], np.uint8)).save(path)
      else:
        PIL.Image.fromarray(images[index]).save(path)


def _read(source: str, name: str) -> bytes:
  import gzip

  plain = Path(source) / f"{name}-ubyte"
  return plain.read_bytes() if plain.exists() else gzip.decompress(plain.with_name(f"{plain.name}.gz").read_bytes())


def _measure(command: list[str]) -> tuple[float, float]:
  """Returns wall seconds and CPU seconds of a whole process."""
  before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
  subprocess.run(command, check=True, cwd=_ROOT, stdout=subprocess.DEVNULL)
  wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
  return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _same_tree(one: str, other: str) -> bool:
  """Compares both splits byte for byte."""
  for split in ("training", "testing"):
    for label in sorted(os.listdir(f"{one}/{split}")):
      folders = f"{one}/{split}/{label}", f"{other}/{split}/{label}"
      names = os.listdir(folders[0])
      _, different, unreadable = filecmp.cmpfiles(*folders, names, shallow=False)
      if sorted(names) != sorted(os.listdir(folders[1])) or different or unreadable:
        return False
  return True


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--input", required=True, help="folder with the four IDX files")
  parser.add_argument("--rounds", type=int, default=3, help="how often each way runs (default 3)")
  parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
  parser.add_argument("--loop", choices=("rows", "shortest"), help=argparse.SUPPRESS)
  parser.add_argument("--output", help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  source = os.path.abspath(arguments.input)
  if arguments.loop:
    convert_in_a_loop(source, arguments.output, by_rows=arguments.loop == "rows")
    return
  loop = [sys.executable, os.path.abspath(__file__), "--input", source]
  ours = [sys.executable, "-m", "beam_retrain.pipelines.cli", "convert", "--input", source]
  ways = {
    "loop in the article's manner": [*loop, "--loop", "rows"],
    "shortest loop": [*loop, "--loop", "shortest"],
    "convert --formats jpg": [*ours, "--formats", "jpg"],
    "convert --formats jpg,tfrecord": [*ours, "--formats", "jpg,tfrecord"],
  }
  rounds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
  with tempfile.TemporaryDirectory() as folder:
    for number in range(arguments.rounds):
      outputs = {way: f"{folder}/{number}-{name}" for name, way in enumerate(ways)}
      for way, command in ways.items():
        rounds[way].append(_measure([*command, "--output", outputs[way]]))
    reference, *others = outputs.values()
    same = all(_same_tree(reference, other) for other in others)
  medians = {way: tuple(map(statistics.median, zip(*measured, strict=True))) for way, measured in rounds.items()}
  base = "loop in the article's manner"
  base_wall, base_cpu = medians[base]
  print(f"{'':32}{'wall s':>8}{'ratio':>7}{'CPU s':>8}{'ratio':>7}   (median of {arguments.rounds})")
  for way, (wall, cpu) in medians.items():
    print(f"{way:32}{wall:8.1f}{wall / base_wall:7.2f}{cpu:8.1f}{cpu / base_cpu:7.2f}")
  if arguments.json:
    rows = [
      {"name": way, "seconds": wall, "ratio": wall / base_wall, "against": base, "note": f"{cpu:.1f} s of CPU"}
      for way, (wall, cpu) in medians.items()
    ]
    arguments.json.write_text(json.dumps(rows))
  print(f"load average now {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; trees byte-identical: {same}")
  sys.exit(0 if same else 1)


if __name__ == "__main__":
  main()
