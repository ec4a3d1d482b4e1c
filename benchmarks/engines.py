"""`bottlenecks` on every engine, over the same images: time, rate, memory, and whether the bytes are the same.

    python -m benchmarks.engines --data DIR --engines .engines --output DIR [--trunk_weights FILE]

DIR holds the four IDX files of MNIST, `.engines` is what `make engines` made. One worker is held to one core by
`taskset`, with all of its engine; two have two. Clusters are those of deploy/engines/cluster.py. With the weights, what
can have two workers also runs Inception v3 at 299 x 299. The first row is what the others' bytes are compared with.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from beam_retrain.transforms.core.images.idx import encode_idx
from beam_retrain.transforms.core.run.flags import positive_int
from benchmarks.commands import COMMAND, table, timed
from benchmarks.process_tree import peak_mb, run_watched

_ROOT = Path(__file__).resolve().parents[1]
_CLUSTER = _ROOT / "deploy" / "engines" / "cluster.py"
_LOCAL = ("--runner=FnApiRunner",)
_PROCESSES = ("--direct_running_mode=multi_processing",)
_POLL_SECS = 0.5
_HELD = ("taskset", "--cpu-list", "0")


Peaks = tuple[tuple[float, ...], ...]
"""Of Java's processes, and of Python's, in megabytes."""


class Way(NamedTuple):
  """One way of running a job.

  Attributes:
    engine: as the table names it.
    workers: how many work at a time; what one has is held to one core, but where `free`.
    flags: of the job; a cluster adds its own.
    cluster: of which kind it needs one; empty: none.
    free: one worker has both cores.
  """

  engine: str
  workers: int
  flags: tuple[str, ...] = ()
  cluster: str = ""
  free: bool = False

  @property
  def scales(self) -> bool:
    """Whether more workers are more processes."""
    return bool(self.cluster) or _PROCESSES[0] in self.flags

  @property
  def held(self) -> tuple[str, ...]:
    return _HELD if self.workers == 1 and not self.free else ()

  def __str__(self) -> str:
    return f"{self.engine}, {self.workers} worker{'s' * (self.workers > 1)}{', one core' * bool(self.held)}"


class Row(NamedTuple):
  """What a run took.

  Attributes:
    images: how many it did.
    seconds: the whole command.
    rate: images/s of the second half of the shards.
    java_mb, python_mb: largest resident memory of each process, in megabytes.
    same: whether its records are those of the first row.
  """

  way: Way
  images: int
  seconds: float
  rate: float
  java_mb: tuple[float, ...]
  python_mb: tuple[float, ...]
  same: bool


def ways(engines: Path) -> list[Way]:
  (prism,) = engines.glob("prism-*/prism")
  return [
    Way("DirectRunner, in one process", 1, _LOCAL, free=True),
    Way("DirectRunner, in one process", 1, _LOCAL),
    Way("DirectRunner, worker processes", 1, (*_LOCAL, *_PROCESSES, "--direct_num_workers=1")),
    Way("DirectRunner, worker processes", 2, (*_LOCAL, *_PROCESSES, "--direct_num_workers=2")),
    Way("Prism", 1, ("--runner=PrismRunner", f"--prism_location={prism}"), free=True),
    Way("Flink cluster", 1, cluster="flink"),
    Way("Flink cluster", 2, cluster="flink"),
    Way("Spark cluster", 1, cluster="spark"),
    Way("Spark cluster", 2, cluster="spark"),
  ]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", required=True, help="folder of the four IDX files")
  parser.add_argument("--engines", required=True, type=Path, help="what `make engines` made")
  parser.add_argument("--output", required=True, type=Path, help="a new or empty folder")
  parser.add_argument("--sizes", type=positive_int, nargs="*", default=[7_000, 70_000], metavar="N", help="images")
  parser.add_argument("--only", default="", metavar="NAME", help="of the engines, those with this in their names")
  parser.add_argument("--trunk_weights", metavar="FILE", help="of the full Inception v3, for rows with it")
  parser.add_argument("--inception_images", type=positive_int, default=14_000, metavar="N", help="default: %(default)d")
  flags = parser.parse_args()
  engines, output = flags.engines.resolve(), flags.output.resolve()
  output.mkdir(parents=True, exist_ok=True)
  chosen = [way for way in ways(engines) if flags.only.lower() in way.engine.lower()]
  rows = []
  for size in flags.sizes:
    work = output / str(size)
    pictures = make_images(Path(flags.data), work, size)
    rows += [measure(way, engines, pictures, work, ("--trunk=bundled",)) for way in chosen]
  if flags.trunk_weights:
    work = output / "inception_v3"
    pictures = make_images(Path(flags.data), work, flags.inception_images)
    trunk = ("--trunk=keras:InceptionV3", f"--trunk_weights={Path(flags.trunk_weights).resolve()}")
    rows += [measure(way, engines, pictures, work, trunk) for way in chosen if way.scales or way == ways(engines)[0]]
  print(f"\n{rows_table(rows)}")


def make_images(data: Path, work: Path, images: int) -> Path:
  """Returns class folders of JPGs of MNIST's first images, six of seven for training."""
  pictures = work / "pictures"
  if not (pictures / "COMPLETED").exists():
    shutil.rmtree(work, ignore_errors=True)
    (work / "idx").mkdir(parents=True)
    for name, count in (("t10k", images // 7), ("train", images - images // 7)):
      for kind, header, shape in (("images-idx3", 16, (-1, 28, 28)), ("labels-idx1", 8, (-1,))):
        file = f"{name}-{kind}-ubyte"
        values = np.frombuffer((data / file).read_bytes(), np.uint8, offset=header).reshape(shape)
        (work / "idx" / file).write_bytes(encode_idx(values[:count]))
    timed("convert", f"--input={work / 'idx'}", f"--output={pictures}", "--formats=jpg")
  return pictures


def measure(way: Way, engines: Path, pictures: Path, work: Path, trunk: Sequence[str]) -> Row:
  """Runs `bottlenecks` once in an empty folder; the first run in `work` is what the others are compared with."""
  output, first = work / "bottlenecks", work / "first"
  shutil.rmtree(output, ignore_errors=True)
  with _cluster(way, engines, work / "cluster") as (flags, peaks):
    command = [*COMMAND, "bottlenecks", f"--input={pictures}", f"--output={output}", *trunk, *way.flags, *flags]
    print(f"\n# {way}\n$ {shlex.join(command)}", flush=True)
    # A cluster is held to its core by itself: who submits the job is no worker.
    found = run_watched([*(() if way.cluster else way.held), *command])
    java, python = peaks()
  stats = json.loads((output / "stats.json").read_text())
  if not first.exists():
    output.rename(first)
    output = first
  same = records_of(output) == records_of(first)
  row = Row(way, stats["inputs"], found.seconds, rate_of(output), java, (*found.peaks_mb, *python), same)
  print(rows_table([row]), flush=True)
  return row


@contextlib.contextmanager
def _cluster(way: Way, engines: Path, folder: Path) -> Iterator[tuple[list[str], Callable[[], Peaks]]]:
  """Starts the cluster that it needs; gives its flags, and what returns the peaks of its processes so far."""
  if not way.cluster:
    yield [], lambda: ((), ())
    return
  command = [sys.executable, str(_CLUSTER)]
  place = [way.cluster, f"--engines={engines}", f"--folder={folder}"]
  started = subprocess.run(
    [*way.held, *command, "start", *place, f"--workers={way.workers}"], stdout=subprocess.PIPE, text=True, check=True
  )
  seen: dict[tuple[str, int], float] = {}
  stop = threading.Event()

  def watch() -> None:
    marker = f"BEAM_RETRAIN_CLUSTER={folder}".encode()
    while not stop.wait(_POLL_SECS):
      for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
          if process.name.isdigit() and marker in (process / "environ").read_bytes().split(b"\0"):
            name = (process / "comm").read_text().strip()
            seen[name, int(process.name)] = peak_mb(int(process.name)) or 0.0

  watcher = threading.Thread(target=watch, daemon=True)
  watcher.start()

  def peaks() -> Peaks:
    stop.set()
    watcher.join()
    java = tuple(peak for (name, _), peak in seen.items() if name == "java")
    return java, tuple(peak for (name, _), peak in seen.items() if name.startswith("python"))

  try:
    yield shlex.split(started.stdout), peaks
  finally:
    stop.set()
    subprocess.run([*command, "stop", *place], check=True)


def records_of(bottlenecks: Path) -> dict[str, bytes]:
  """Returns file name -> bytes."""
  return {path.name: path.read_bytes() for path in (bottlenecks / "records").glob("*.tfrecord")}


def rate_of(bottlenecks: Path) -> float:
  """Returns images/s of the second half of the shards, when all workers are at work: a file is written once, whole."""
  counts = json.loads((bottlenecks / "stats.json").read_text())["inputs"]
  files = sorted((path.stat() for path in (bottlenecks / "records").glob("*.tfrecord")), key=lambda stat: stat.st_mtime)
  middle = (len(files) - 1) // 2
  share = sum(file.st_size for file in files[middle + 1 :]) / sum(file.st_size for file in files)
  return counts * share / (files[-1].st_mtime - files[middle].st_mtime)


def rows_table(rows: Sequence[Row]) -> str:
  """Returns a Markdown table."""
  head = ("engine", "workers", "images", "whole, s", "images/s, whole", "images/s, at work", "peak MB", "bytes equal")
  return table([head, *(_line(row) for row in rows)])


def _line(row: Row) -> tuple[str, ...]:
  memory = " + ".join(f"{peak:,.0f}" for peak in row.python_mb)
  java = " + ".join(f"{peak:,.0f}" for peak in row.java_mb)
  return (
    row.way.engine,
    f"{row.way.workers}{', on one core' * bool(row.way.held)}",
    f"{row.images:,}",
    f"{row.seconds:.1f}",
    f"{row.images / row.seconds:,.0f}",
    f"{row.rate:,.0f}",
    f"{memory}{'; Java ' * bool(java)}{java}",
    "yes" if row.same else "NO",
  )


if __name__ == "__main__":
  main()
