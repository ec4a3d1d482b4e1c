"""Measures a `bottlenecks` job over a few images, and costs per image.

Runs in a new process, so that start-up and memory are the job's alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import beam_retrain
from beam_retrain.pipelines import bottlenecks
from beam_retrain.pipelines.models.execution import LEAST_IMAGES, choose_execution
from beam_retrain.pipelines.models.precision import CALIBRATION_IMAGES
from beam_retrain.pipelines.models.sample import IMAGES as CHECKED_IMAGES
from beam_retrain.pipelines.models.sample import RECORD_FILES
from beam_retrain.pipelines.models.trunk_sources import load_stored_trunk
from beam_retrain.pipelines.plan.request import PlannedInput, PlanRequest
from beam_retrain.pipelines.plan.timing import time_closing, time_listing, time_planning, time_work, timed
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.bottlenecks.store import record_files
from beam_retrain.transforms.core.errors import InputError, user_sentence
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import TESTING, TRAINING, Image
from beam_retrain.transforms.core.records.shards import IMAGES_PER_SHARD
from beam_retrain.transforms.core.run.cost_model import JobCosts
from beam_retrain.transforms.core.run.run_info import read_info
from beam_retrain.transforms.core.run.stats import read_stats
from beam_retrain.transforms.core.runtimes.variant import INT8
from beam_retrain.transforms.io import cache, files
from beam_retrain.transforms.sources.find import find_source

PREFIX = "beam-retrain-plan-"
_TESTING_IMAGES = 16
_CLOSING_RECORDS = 8 * IMAGES_PER_SHARD
_LABELS = ("a", "b")
_IF_PREPARED, _ANYHOW = "if-prepared", "anyhow"
# Imports as `beam-retrain` does.
_CHILD = """\
import sys
from beam_retrain.transforms.core.system.imports import gc_paused
with gc_paused():
  from beam_retrain.pipelines.plan import measure
measure.main(*sys.argv[1:])"""
# The folder that holds the package, in a checkout and installed.
_ROOT = str(Path(beam_retrain.__file__).parents[1])

Sample = Mapping[str, Sequence[Image | Quarantined]]  # by split


@dataclasses.dataclass(frozen=True)
class Measurement:
  """Result of a measurement.

  Attributes:
    images: split -> images in the input; training includes the images that will be drawn for validation.
    looked_at: images in the sample.
    bad: reason -> how many of them cannot be used.
    trunk: its info, JSON values.
    first_secs: how much longer the first such job takes, which prepares the trunk; 0: it is already prepared.
  """

  costs: JobCosts
  images: Mapping[str, int]
  looked_at: int
  bad: Mapping[str, int]
  trunk: Mapping[str, Any]
  execution: Mapping[str, Any]
  first_secs: float = 0.0

  @classmethod
  def from_json(cls, values: Mapping[str, Any]) -> Measurement:
    """Inverse of `dataclasses.asdict`."""
    return cls(**{**values, "costs": JobCosts(**values["costs"])})


class _Trial(NamedTuple):
  """Result of one process.

  Attributes:
    has_prepared: whether that job had to prepare the trunk.
    measurement: None if the process stopped there.
  """

  job_secs: float
  has_prepared: bool
  measurement: Measurement | None


def measure_apart(request: PlanRequest) -> Measurement:
  """Measures in a new process; again if the first prepared the trunk.

  Raises:
    RuntimeError: the process failed otherwise; with its last line.
  """
  first = _run_child(request, _IF_PREPARED)
  if first.measurement:
    return first.measurement
  second = _run_child(request, _ANYHOW)
  assert second.measurement
  # If the second also had to prepare it, the cache keeps nothing: every job will.
  first_secs = 0.0 if second.has_prepared else max(0.0, first.job_secs - second.job_secs)
  return dataclasses.replace(second.measurement, first_secs=first_secs)


def _run_child(request: PlanRequest, when: str) -> _Trial:
  with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
    result = os.path.join(folder, "result.json")
    # Not from the current folder, which may contain another `beam_retrain`.
    path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
    # This process cleans up after an interrupted child. TF Hub's downloads are kept.
    hub = os.environ.get("TFHUB_CACHE_DIR", os.path.join(tempfile.gettempdir(), "tfhub_modules"))
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": folder, "TFHUB_CACHE_DIR": hub}
    command = [sys.executable, "-P", "-c", _CHILD, result, request.to_json(), when, repr(time.time())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if not os.path.exists(result):
      last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
      raise RuntimeError(f"the job over a sample ended with exit code {done.returncode}: {last}")
    found = json.loads(files.read_bytes(result))
  if "error" in found:
    raise InputError(found["error"])
  measurement = found["measurement"] and Measurement.from_json(found["measurement"])
  return _Trial(found["job_secs"], found["has_prepared"], measurement)


def main(result: str, request: str, when: str, began: str) -> None:
  """Measures in this process, which must be new.

  Args:
    result: file to write a `_Trial` to, or the `error` of an unusable request; JSON.
    when: `if-prepared` stops after the job if it had to prepare the trunk; else `anyhow`.
    began: `time.time()` when the process was started.
  """
  started_secs = time.time() - float(began)
  try:
    trial = _measure(PlanRequest.from_json(request), started_secs, stop_if_unprepared=when == _IF_PREPARED)
    found = {**trial._asdict(), "measurement": trial.measurement and dataclasses.asdict(trial.measurement)}
  except Exception as error:
    sentence = user_sentence(error)
    if sentence is None:
      raise
    found = {"error": sentence}
  files.write_text(result, json.dumps(found))


def _measure(request: PlanRequest, started_secs: float, *, stop_if_unprepared: bool) -> _Trial:
  whole = request.find_input()
  sample = _read_sample(request, whole)
  with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
    images, output = os.path.join(folder, "pictures"), os.path.join(folder, "bottlenecks")
    in_shards = write_sample(sample, images)
    cached = _cached()
    job_secs, _ = timed(lambda: bottlenecks.execute(request.of_sample(images, output, whole.engine)))
    files.use_options(whole.options)  # the job over the sample has local paths only
    has_prepared = _cached() != cached
    if has_prepared and stop_if_unprepared:
      return _Trial(job_secs, has_prepared, None)
    measured = _measure_parts(request, whole, sample, images, output)
  costs = measured.costs
  worked_secs = len(in_shards) * costs.shard_secs + sum(in_shards) * costs.image_secs
  costs = dataclasses.replace(costs, start_secs=max(0.0, started_secs + job_secs - worked_secs))
  return _Trial(job_secs, has_prepared, dataclasses.replace(measured, costs=costs))


def _measure_parts(request: PlanRequest, whole: PlannedInput, sample: Sample, images: str, output: str) -> Measurement:
  """Measures all but the start, from a finished job over a sample."""
  memory_bytes = peak_memory()
  info, stats, few = read_info(output, bottlenecks.STAGE), read_stats(output), find_source(images)
  looked_at, bad = sum(map(len, sample.values())), _count_bad(sample, stats.reasons)
  if not stats.outputs:
    raise InputError(
      f"none of {looked_at} sample images of {files.absolute(request.input)} can be used ({listed_reasons(bad)}):"
      " repair or remove them, and plan again."
    )
  planning_secs, counts = time_planning(whole.source, whole.percentages, few)
  listing_secs = time_listing(whole.source, whole.percentages, few)
  total = sum(counts.values())
  wanted = request.pictures or total
  trunk_folder, trunk = os.path.join(output, bottlenecks.TRUNK_FOLDER), info.trunk
  execution = choose_execution(
    request.batch_size,
    request.trunk_threads,
    whole.options,
    load_stored_trunk(trunk_folder, trunk),
    is_large=lambda: wanted >= LEAST_IMAGES,
  )
  # One process with all cores is as fast as several with a part of them each.
  threads = execution.threads.given * max(1, execution.threads.processes)
  handler = ImageModelHandler(
    trunk_folder, batch_size=execution.batch_size, threads=threads, max_pixels=request.max_pixels
  )
  shard, shard_images = whole.source.typical_shard((TRAINING,), whole.percentages, CHECKED_IMAGES)
  shard_secs, image_secs = time_work(handler, shard, shard_images, whole.source.labels)
  if execution.batch_size != info.settings["batch_size"]:
    memory_bytes = peak_memory()
  closing_secs = time_closing(output, few, handler, trunk, min(wanted, _CLOSING_RECORDS))
  records_bytes = sum(map(os.path.getsize, record_files(output)))
  costs = JobCosts(
    start_secs=0.0,
    listing_secs=listing_secs / total,
    planning_secs=planning_secs / total,
    shard_secs=shard_secs,
    image_secs=image_secs,
    closing_secs=closing_secs,
    memory_bytes=memory_bytes,
    record_bytes=records_bytes / stats.outputs,
    folder_bytes=sum(map(os.path.getsize, files.walk(output))) - records_bytes,
  )
  return Measurement(costs, counts, looked_at, bad, info.trunk.to_json(), {**info.execution, **execution.to_info()})


def _count_bad(sample: Sample, reasons: Mapping[str, int]) -> dict[str, int]:
  """Returns reason -> images that could not be read or used, sorted."""
  unreadable = (item for items in sample.values() for item in items if isinstance(item, Quarantined))
  return dict(sorted((Counter(str(item.reason) for item in unreadable) + Counter(reasons)).items()))


def listed_reasons(bad: Mapping[str, int]) -> str:
  return ", ".join(f"{count} {reason}" for reason, count in bad.items())


def _cached() -> set[str]:
  return {os.path.join(parent, name) for parent, _, names in os.walk(cache.folder()) for name in names}


def _read_sample(request: PlanRequest, whole: PlannedInput) -> Sample:
  """Returns sample images of each split.

  For training, as many as the job uses to check or calibrate its trunk.
  """
  training = CALIBRATION_IMAGES if request.precision == INT8 else CHECKED_IMAGES
  return {
    split: list(whole.source.read_sample((split,), whole.percentages, count, max_files=RECORD_FILES))
    for split, count in ((TRAINING, training), (TESTING, _TESTING_IMAGES))
  }


def write_sample(sample: Sample, folder: str) -> list[int]:
  """Writes images as class folders in splits; returns each shard's image count.

  Labels are made up, so that each split has images of each: a job's costs do not depend on them. Names keep the
  sample's order. If a split has too few images, some are written twice.

  Raises:
    InputError: there is no image, or none can be read.
  """
  counts = []
  readable = {split: [item for item in items if isinstance(item, Image)] for split, items in sample.items()}
  for split, images in readable.items():
    chosen = images or next(filter(None, readable.values()), [])
    if not chosen:
      first = next((item for items in sample.values() for item in items if isinstance(item, Quarantined)), None)
      if first is None:
        raise InputError("the input has no images: put some into the folders of their classes.")
      raise InputError(f"no image of a sample can be read; {first.key}: {first.detail}.")
    count = max(len(images), len(_LABELS))
    for number, image in zip(range(count), itertools.cycle(chosen), strict=False):
      label = _LABELS[number * len(_LABELS) // count]
      path = Path(folder, split, label, f"{number:04d}")
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(image.encoded)
    counts.append(count)
  return counts


def peak_memory() -> int:
  """Returns the peak memory, bytes, of this process and its finished children."""
  of_children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
  return 1024 * max(_peak_kb(), of_children)


def _peak_kb() -> int:
  # Not `ru_maxrss`, which a process inherits from its parent.
  with contextlib.suppress(OSError), open("/proc/self/status") as status:
    for line in status:
      if line.startswith("VmHWM:"):
        return int(line.split()[1])
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
