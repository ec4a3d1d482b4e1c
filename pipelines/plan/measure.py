"""What `plan` measures: the whole job over a few of the images, and then what each further one costs.

A process of its own, so that start-up and memory are those of a job's process and of nothing else.
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
from typing import Any

import beam_retrain
from beam_retrain.pipelines import bottlenecks
from beam_retrain.pipelines.models.execution import LEAST_IMAGES, Execution, choose_execution
from beam_retrain.pipelines.models.precision import CALIBRATION_IMAGES
from beam_retrain.pipelines.models.sample import IMAGES as CHECKED_IMAGES
from beam_retrain.pipelines.models.sample import RECORD_FILES
from beam_retrain.pipelines.models.trunk_sources import Trunk, load_stored_trunk
from beam_retrain.pipelines.options.precision import INT8
from beam_retrain.pipelines.plan.request import Request, read_request
from beam_retrain.pipelines.plan.timing import time_closing, time_listing, time_planning, time_work, timed
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.bottlenecks.store import record_files
from beam_retrain.transforms.core.errors import InputError, user_sentence
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import (
  TESTING,
  TRAINING,
  Bottleneck,
  Image,
  decode_bottleneck,
)
from beam_retrain.transforms.core.records.shards import IMAGES_PER_SHARD
from beam_retrain.transforms.core.records.tfrecord import read_records
from beam_retrain.transforms.core.run.cost_model import JobCosts
from beam_retrain.transforms.core.run.run_info import read_info
from beam_retrain.transforms.core.run.stats import read_stats
from beam_retrain.transforms.io import cache, files
from beam_retrain.transforms.sources.find import find_source

_TESTING_IMAGES = 16
_CLOSING_RECORDS = 8 * IMAGES_PER_SHARD
_LABELS = ("a", "b")
PREFIX = "beam-retrain-plan-"
_IF_PREPARED, _ANYHOW = "if-prepared", "anyhow"
# As `beam-retrain` imports a command.
_CHILD = """\
import sys
from beam_retrain.transforms.core.system.imports import collector_at_rest
with collector_at_rest():
  from beam_retrain.pipelines.plan import measure as rehearsal
rehearsal.main(sys.argv[1:])"""
# The folder that holds the package, in a checkout and installed.
_ROOT = str(Path(beam_retrain.__file__).parents[1])


@dataclasses.dataclass(frozen=True)
class Rehearsal:
  """What was measured.

  Attributes:
    costs: of the job's parts.
    images: split -> images in the input; those of training are also those that will be drawn for validation.
    looked_at: how many images the job was rehearsed with.
    bad: reason -> how many of them cannot be used.
    trunk: its card.
    execution: how it is run, as in `info.json`.
    first_secs: how much longer the first such job takes here, which prepares the trunk; 0: it is prepared already.
  """

  costs: JobCosts
  images: dict[str, int]
  looked_at: int
  bad: dict[str, int]
  trunk: dict[str, Any]
  execution: dict[str, Any]
  first_secs: float = 0.0

  def to_json(self) -> dict[str, Any]:
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, found: dict[str, Any]) -> Rehearsal:
    """Inverse of `to_json`."""
    return cls(**{**found, "costs": JobCosts(**found["costs"])})


def rehearse_apart(argv: Sequence[str]) -> Rehearsal:
  """Measures in new processes: one, or a second one where the first has prepared the trunk, which no later job does.

  Args:
    argv: the command line of `plan`.

  Raises:
    InputError: as the job itself would.
    RuntimeError: a process ended otherwise; with what it said last.
  """
  found = _run_apart(argv, _IF_PREPARED)
  rehearsed_secs = found["rehearsed_secs"]
  if "rehearsal" in found:
    return Rehearsal.from_json(found["rehearsal"])
  found = _run_apart(argv, _ANYHOW)
  # Where the second one had to prepare it too, the cache keeps nothing: every job will.
  first_secs = 0.0 if found["has_prepared"] else max(0.0, rehearsed_secs - found["rehearsed_secs"])
  return dataclasses.replace(Rehearsal.from_json(found["rehearsal"]), first_secs=first_secs)


def _run_apart(argv: Sequence[str], when: str) -> dict[str, Any]:
  with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
    result = os.path.join(folder, "rehearsal.json")
    # Not from the current folder, where another `pipelines` may lie.
    path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-P", "-c", _CHILD, result, when, repr(time.time()), *argv]
    # Interrupted, it may be killed before it has cleaned up: this process does it. What TF Hub has fetched is to stay.
    hub = os.environ.get("TFHUB_CACHE_DIR", os.path.join(tempfile.gettempdir(), "tfhub_modules"))
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": folder, "TFHUB_CACHE_DIR": hub}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if not os.path.exists(result):
      last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
      raise RuntimeError(f"the rehearsal of the job ended with exit code {done.returncode}: {last}")
    found: dict[str, Any] = json.loads(files.read_bytes(result))
  if "error" in found:
    raise InputError(found["error"])
  return found


def main(argv: Sequence[str]) -> None:
  """`RESULT WHEN BEGAN ARGV...`: measures, in this process, which has done nothing else before.

  BEGAN is `time.time()` when it was started. Writes JSON to the file RESULT: `rehearsed_secs`, `has_prepared` and,
  unless WHEN says that the trunk must have been prepared before and it had not, a `rehearsal`; or `error`, a sentence.
  """
  result, when, began, *rest = argv
  started_secs = time.time() - float(began)
  try:
    found = _rehearse(read_request(rest), started_secs, measure_anyhow=when == _ANYHOW)
  except Exception as error:
    sentence = user_sentence(error)
    if sentence is None:
      raise
    found = {"error": sentence}
  files.write_text(result, json.dumps(found))


def _rehearse(request: Request, started_secs: float, *, measure_anyhow: bool) -> dict[str, Any]:
  source, percentages = request.source, request.percentages
  sample = _sample(request)
  with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
    images, output = os.path.join(folder, "pictures"), os.path.join(folder, "bottlenecks")
    in_shards = write_sample(sample, images)
    cached = _cached()
    rehearsed_secs, _ = timed(lambda: bottlenecks.run(request.rehearsed(images, output)))
    files.use_options(request.options)  # the job that was rehearsed has local paths only
    memory_bytes = peak_memory()
    has_prepared = _cached() != cached
    if has_prepared and not measure_anyhow:
      return {"rehearsed_secs": rehearsed_secs, "has_prepared": True}

    info, stats = read_info(output, "bottlenecks"), read_stats(output)
    looked_at, bad = sum(map(len, sample.values())), _count_bad(sample, stats.reasons)
    if not stats.outputs:
      raise InputError(
        f"none of {looked_at} images of {request.flags.input} that were looked at can be used"
        f" ({listed_reasons(bad)}): mend or remove them, and plan again."
      )
    few = find_source(images)
    planning_secs, counts = time_planning(source, percentages, few)
    listing_secs = time_listing(source, percentages, few)
    total = sum(counts.values())
    wanted = request.flags.pictures or total
    trunk_folder, trunk = files.join(output, "trunk"), info.trunk
    execution = _choose_execution(request, load_stored_trunk(trunk_folder, trunk), wanted)
    # All cores that are given, in this process: so many processes of fewer threads do as much together.
    handler = ImageModelHandler(
      trunk_folder,
      batch_size=execution.batch_size,
      threads=execution.threads.given * max(1, execution.threads.processes),
      max_pixels=request.flags.max_pixels,
    )
    shard, shard_images = source.typical_shard((TRAINING,), percentages, CHECKED_IMAGES)
    shard_secs, image_secs = time_work(handler, shard, shard_images, source.labels)
    if execution.batch_size != info.settings["batch_size"]:
      memory_bytes = peak_memory()
    closing_secs = time_closing(_read_training(output), few, handler, min(wanted, _CLOSING_RECORDS))
    records_bytes = sum(os.path.getsize(path) for path in record_files(output))
    worked_secs = len(in_shards) * shard_secs + sum(in_shards) * image_secs
    costs = JobCosts(
      start_secs=max(0.0, started_secs + rehearsed_secs - worked_secs),
      listing_secs=listing_secs / total,
      planning_secs=planning_secs / total,
      shard_secs=shard_secs,
      image_secs=image_secs,
      closing_secs=closing_secs,
      memory_bytes=memory_bytes,
      record_bytes=records_bytes / stats.outputs,
      folder_bytes=_size(output) - records_bytes,
    )
  how = {**info.execution, **execution.to_info()}
  rehearsal = Rehearsal(costs, counts, looked_at, bad, info.trunk.to_json(), how)
  return {"rehearsed_secs": rehearsed_secs, "has_prepared": has_prepared, "rehearsal": rehearsal.to_json()}


def _count_bad(sample: dict[str, list[Image | Quarantined]], reasons: Mapping[str, int]) -> dict[str, int]:
  """Returns reason -> images, sorted: those of a sample that could not be read, and those that the job found."""
  unreadable = (item for items in sample.values() for item in items if isinstance(item, Quarantined))
  return dict(sorted((Counter(str(item.reason) for item in unreadable) + Counter(reasons)).items()))


def listed_reasons(bad: dict[str, int]) -> str:
  return ", ".join(f"{count} {reason}" for reason, count in bad.items())


def _choose_execution(request: Request, trunk: Trunk, images: int) -> Execution:
  flags = request.flags
  return choose_execution(
    flags.batch_size, flags.trunk_threads, request.options, trunk, is_large=lambda: images >= LEAST_IMAGES
  )


def _cached() -> set[str]:
  return {os.path.join(parent, name) for parent, _, names in os.walk(cache.folder()) for name in names}


def _sample(request: Request) -> dict[str, list[Image | Quarantined]]:
  """Returns images of each split; of training those that the job checks, or calibrates, its trunk with."""
  training = CALIBRATION_IMAGES if request.flags.precision == INT8 else CHECKED_IMAGES
  return {
    split: list(request.source.read_sample((split,), request.percentages, count, max_files=RECORD_FILES))
    for split, count in ((TRAINING, training), (TESTING, _TESTING_IMAGES))
  }


def write_sample(sample: dict[str, list[Image | Quarantined]], folder: str) -> list[int]:
  """Writes images as class folders in splits, for a job to read; returns how many each shard of it will have.

  Labels are made up, so that each split has images of each: what a job costs does not depend on them. By name, the
  images have the order that they have in the sample. Where a split has too few of them, some are there twice.

  Raises:
    InputError: there is none, or none that can be read.
  """
  counts = []
  readable = {split: [item for item in items if isinstance(item, Image)] for split, items in sample.items()}
  for split, images in readable.items():
    chosen = images or next(filter(None, readable.values()), [])
    if not chosen:
      first = next((item for items in sample.values() for item in items if isinstance(item, Quarantined)), None)
      if first is None:
        raise InputError("the input has no image: put some into the folders of their classes.")
      raise InputError(f"no image of a sample can be read; {first.key}: {first.detail}.")
    count = max(len(images), len(_LABELS))
    for number, image in zip(range(count), itertools.cycle(chosen), strict=False):
      label = _LABELS[number * len(_LABELS) // count]
      path = os.path.join(folder, split, label, f"{number:04d}")
      os.makedirs(os.path.dirname(path), exist_ok=True)
      Path(path).write_bytes(image.encoded)
    counts.append(count)
  return counts


def peak_memory() -> int:
  """Returns the most bytes of memory that this process, or one that it has started and waited for, has held so far."""
  of_children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
  return 1024 * max(_peak_kb(), of_children)


def _peak_kb() -> int:
  # Not `ru_maxrss`, which a process takes over from the one that started it.
  with contextlib.suppress(OSError), open("/proc/self/status") as status:
    for line in status:
      if line.startswith("VmHWM:"):
        return int(line.split()[1])
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _read_training(output: str) -> list[Bottleneck]:
  records = []
  for path in record_files(output):
    if os.path.basename(path).startswith(TRAINING):
      with files.open_to_read(path) as file:
        records += [decode_bottleneck(record) for record in read_records(file, path)]
  return records


def _size(folder: str) -> int:
  return sum(os.path.getsize(path) for path in files.walk(folder))
