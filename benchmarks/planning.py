"""What listing and planning take, for few and for very many images: in the driver before a job, and in the job itself.

  python -m benchmarks.planning [--sizes 10000 5000000] [--job_sizes 10000 100000] [--output DIR]

Names alone: the files are links to empty ones, in ten class folders and in a manifest, and no image is read. Each row
is a process of its own. Give a folder in memory, such as /dev/shm, where a disk takes long to make millions of names.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.bottlenecks import sample_images
from beam_retrain.pipelines.jobs.runner import run_pipeline
from beam_retrain.pipelines.options.flags import LEAST_IMAGES
from beam_retrain.transforms.core.records.schema import TESTING, TRAINING
from beam_retrain.transforms.core.records.shards import Shard
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.flags import positive_int
from beam_retrain.transforms.core.system.machine import peak_memory
from beam_retrain.transforms.shards.checks import CheckSplits
from beam_retrain.transforms.sources.find import find_source
from benchmarks.commands import table

_ROOT = Path(__file__).resolve().parents[1]
_LABELS = 10
_LINKS = 30_000  # to one file: ext4 allows 65,000
_RUNNERS = {
  "in the command's process": [],
  "by two workers": ["--direct_running_mode=multi_processing", "--direct_num_workers=2"],
}
_SPLITS, _PERCENTAGES = (TRAINING, TESTING), SplitPercentages()


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--sizes", type=positive_int, nargs="+", default=[10_000, 5_000_000], metavar="N")
  parser.add_argument("--job_sizes", type=positive_int, nargs="*", default=[10_000, 100_000], metavar="N")
  parser.add_argument("--output", type=Path, help="folder to work in (default: a temporary one)")
  parser.add_argument("--one", nargs="*", help=argparse.SUPPRESS)
  flags = parser.parse_args()
  if flags.one is not None:
    print(json.dumps(_plan(*flags.one)))
    return
  rows: list[tuple[str, ...]] = [("names", "in", "planned", "CPU seconds", "us a name beyond the fewest", "MB")]
  first: dict[tuple[str, str], tuple[int, float]] = {}
  for size in sorted({*flags.sizes, *flags.job_sizes}):
    with tempfile.TemporaryDirectory(prefix="planning-", dir=flags.output) as folder:
      inputs = {"class folders": write_names(Path(folder, "names"), size), "a manifest": Path(folder, "names.csv")}
      steps = [*(["before the job"] if size in flags.sizes else []), *(_RUNNERS if size in flags.job_sizes else [])]
      for (kind, path), step in itertools.product(inputs.items(), steps):
        seconds, megabytes = _measure(path, step)
        fewest, least = first.setdefault((kind, step), (size, seconds))
        each = f"{1e6 * (seconds - least) / (size - fewest):.2f}" if size > fewest else ""
        rows.append((f"{size:,}", kind, step, f"{seconds:.2f}", each, f"{megabytes:,.0f}"))
        print(*rows[-1], sep="  ", flush=True)
      shutil.rmtree(inputs["class folders"])
  print(table(rows))


def write_names(folder: Path, count: int) -> Path:
  """Makes so many names in class folders, and a manifest of them beside; returns the folder."""
  for label in range(_LABELS):
    (folder / f"class_{label}").mkdir(parents=True)
  target = ""
  with folder.with_suffix(".csv").open("w") as manifest:
    manifest.write("file_name,label\n")
    for number in range(count):
      name = f"{folder.name}/class_{number % _LABELS}/image_{number:07d}.jpg"
      path = f"{folder.parent}/{name}"
      if number % _LINKS:
        os.link(target, path)
      else:
        target = path
        Path(path).touch()
      manifest.write(f"{name},class_{number % _LABELS}\n")
  return folder


def _measure(path: Path, step: str) -> tuple[float, float]:
  command = [sys.executable, "-m", "benchmarks.planning", "--one", str(path), step]
  done = subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.PIPE, text=True)
  seconds, megabytes = json.loads(done.stdout.splitlines()[-1])
  return seconds, megabytes


def _plan(path: str, step: str) -> tuple[float, float]:
  """Returns CPU seconds, of workers too, and by how many MB the memory of this process grew."""
  memory, began = peak_memory(), _cpu_secs()
  source = find_source(path)
  if step in _RUNNERS:
    with tempfile.TemporaryDirectory() as folder:
      began, options = _cpu_secs(), PipelineOptions(_RUNNERS[step])

      def build(root: beam.Pipeline) -> None:
        shards = root | "Plan" >> source.plan(_SPLITS, _PERCENTAGES)
        checked = shards | CheckSplits(source.labels, _PERCENTAGES)
        _ = shards | beam.Reshuffle() | "Take" >> beam.Map(_take, beam.pvalue.AsList(checked))

      run_pipeline(build, options, stage="plan", shards_folder=folder)
  else:  # what `bottlenecks` does with names before its job
    list(source.notes())
    source.plan(_SPLITS, _PERCENTAGES)
    source.has_at_least(LEAST_IMAGES)
    sample_images(source, (TRAINING,), _PERCENTAGES)
  return _cpu_secs() - began, (peak_memory() - memory) / 1e6


def _take(shard: Shard, checked: object) -> str:
  return shard.name()


def _cpu_secs() -> float:
  return time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


if __name__ == "__main__":
  sys.exit(main())
