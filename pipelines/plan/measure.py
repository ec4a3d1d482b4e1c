"""Measures a `bottlenecks` job over a sample, and what further images cost."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import beam_retrain
from beam_retrain.pipelines import bottlenecks
from beam_retrain.pipelines.models.execution import choose_execution, limit_tensorflow
from beam_retrain.pipelines.models.precision import CALIBRATION_IMAGES
from beam_retrain.pipelines.models.sample import IMAGES as CHECKED_IMAGES
from beam_retrain.pipelines.models.sample import RECORD_FILES, sample_images
from beam_retrain.pipelines.models.trunk_sources import load_stored_trunk
from beam_retrain.pipelines.options.flags import LEAST_IMAGES
from beam_retrain.pipelines.plan.request import PlannedInput, PlanRequest
from beam_retrain.pipelines.plan.timing import (
  PREFIX,
  find_decoding_limit,
  plan_images,
  time_closing,
  time_growth,
  time_work,
  timed,
)
from beam_retrain.pipelines.requests.bottlenecks import BottlenecksRequest
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.bottlenecks.store import record_files
from beam_retrain.transforms.core.errors import InputError, user_sentence
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import TESTING, TRAINING, TRUNK_FOLDER, Image
from beam_retrain.transforms.core.records.shards import IMAGES_PER_SHARD, SAMPLED_FROM
from beam_retrain.transforms.core.run.cost_model import JobCosts
from beam_retrain.transforms.core.run.output_folder import read_info
from beam_retrain.transforms.core.run.run_info import RunInfo
from beam_retrain.transforms.core.run.stats import read_stats
from beam_retrain.transforms.core.runtimes.variant import INT8
from beam_retrain.transforms.core.system.machine import Threads, peak_memory
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.find import find_source

_TESTING_IMAGES = 16
_CLOSING_RECORDS = 8 * IMAGES_PER_SHARD
_LABELS = ("a", "b")
# Imports as `beam-retrain` does.
_CHILD = """\
import json, pickle, resource, sys
from beam_retrain.transforms.core.system.imports import leave_out_of_beam, load_command
leave_out_of_beam()
bottlenecks = load_command("beam_retrain.pipelines.bottlenecks")
from beam_retrain.transforms.core.system.machine import peak_memory
bottlenecks.execute(pickle.load(sys.stdin.buffer))
from beam_retrain.transforms.io import cache
print(json.dumps([max(peak_memory(), peak_memory(resource.RUSAGE_CHILDREN)), sorted(cache.written)]))"""
# The folder that holds the package, in a checkout and installed.
_ROOT = str(Path(beam_retrain.__file__).parents[1])

Sample = Mapping[str, Sequence[Image | Quarantined]]  # by split


@dataclasses.dataclass(frozen=True)
class Measurement:
  costs: JobCosts
  images: Mapping[str, int]  # by split; training includes the images that will be drawn for validation
  looked_at: int  # images in the sample
  bad: Mapping[str, int]  # reason -> how many of them cannot be used
  job: RunInfo  # of the job over the sample, with the execution of the whole job
  first_secs: float = 0.0  # how much longer the first such job takes, which prepares the trunk
  decoding_megapixels: float = 0.0  # above which a JPEG takes longer to decode than the trunk takes


def measure(request: PlanRequest, whole: PlannedInput) -> Measurement:
  """Runs the job over a sample; measures what each further image costs."""
  sample = _read_sample(request, whole)
  with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
    images, output = os.path.join(folder, "pictures"), os.path.join(folder, "bottlenecks")
    in_shards = write_sample(sample, images)
    job_secs, memory_bytes, first_secs = _run_job(request.of_sample(images, output, whole.engine), folder)
    info, stats, few = read_info(output, bottlenecks.STAGE), read_stats(output), find_source(images)
    looked_at, bad = sum(map(len, sample.values())), _count_bad(sample, stats.reasons)
    if not stats.outputs:
      raise InputError(
        f"none of {looked_at} sample images of {files.absolute(request.input)} can be used ({listed_reasons(bad)}):"
        " repair or remove them, and plan again."
      )
    planning_secs, counts = time_growth(plan_images, whole.source, whole.percentages, few)
    listing_secs, _ = time_growth(
      lambda source, percentages: sample_images(source, (TRAINING,), percentages), whole.source, whole.percentages, few
    )
    total = sum(counts.values())
    wanted = request.pictures or total
    handler, job = _choose_handler(request, whole, os.path.join(output, TRUNK_FOLDER), info, wanted)
    shard, shard_images = whole.source.typical_shard((TRAINING,), whole.percentages, CHECKED_IMAGES)
    shard_secs, image_secs = time_work(handler, shard, shard_images, whole.source.labels)
    if handler.batch_size != info.settings["batch_size"]:
      memory_bytes = max(memory_bytes, peak_memory())
    records_bytes = sum(map(os.path.getsize, record_files(output)))
    costs = JobCosts(
      start_secs=max(0.0, job_secs - len(in_shards) * shard_secs - sum(in_shards) * image_secs),
      listing_secs=listing_secs / min(total, SAMPLED_FROM),
      planning_secs=planning_secs / total,
      shard_secs=shard_secs,
      image_secs=image_secs,
      closing_secs=time_closing(handler, few.labels, info.trunk, min(wanted, _CLOSING_RECORDS)),
      memory_bytes=memory_bytes,
      record_bytes=records_bytes / stats.outputs,
      folder_bytes=sum(map(os.path.getsize, files.walk(output))) - records_bytes,
    )
    limit = find_decoding_limit(handler)
  return Measurement(costs, counts, looked_at, bad, job, first_secs, limit)


def _choose_handler(
  request: PlanRequest, whole: PlannedInput, trunk_folder: str, info: RunInfo, images: int
) -> tuple[ImageModelHandler, RunInfo]:
  """Returns the trunk as the whole job runs it, and its info."""
  limit_tensorflow(request.trunk_threads, whole.options)
  execution = choose_execution(
    request.batch_size,
    request.trunk_threads,
    whole.options,
    load_stored_trunk(trunk_folder, info.trunk),
    is_large=lambda: images >= LEAST_IMAGES,
  )
  # One process with all cores is as fast as several with a part of them each.
  threads = Threads(execution.threads.given * max(1, execution.threads.processes))
  handler = dataclasses.replace(execution, threads=threads).handler(trunk_folder, request.max_pixels)
  return handler, dataclasses.replace(info, execution={**info.execution, **execution.to_info()})


def _run_job(request: BottlenecksRequest, folder: str) -> tuple[float, int, float]:
  """Runs a job in a process of its own.

  Start and memory are then the job's alone. Runs it again if it prepared the trunk.

  Returns:
    (seconds, peak memory in bytes, how much longer the first such job takes).
  """
  first_secs, (memory_bytes, written) = timed(lambda: _run_child(request, folder))
  if not written:
    return first_secs, memory_bytes, 0.0
  shutil.rmtree(request.output)
  secs, (memory_bytes, written_again) = timed(lambda: _run_child(request, folder))
  # If the second also had to prepare it, the cache keeps nothing: every job will. A sample with fewer labels than the
  # input has a transform graph of its own, which is no cost of the job.
  is_kept = not written_again and any("/transform-" not in name for name in written)
  return secs, memory_bytes, max(0.0, first_secs - secs) if is_kept else 0.0


def _run_child(request: BottlenecksRequest, folder: str) -> tuple[int, list[str]]:
  """Runs a job; returns its memory, and what it cached.

  Its temporary files are in `folder`.
  """
  # Not from the current folder, which may contain another `beam_retrain`.
  path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
  # This process cleans up after an interrupted child. TF Hub's downloads are kept.
  hub = os.environ.get("TFHUB_CACHE_DIR", os.path.join(tempfile.gettempdir(), "tfhub_modules"))
  environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": folder, "TFHUB_CACHE_DIR": hub}
  command = [sys.executable, "-P", "-c", _CHILD]
  done = subprocess.run(command, input=pickle.dumps(request), env=environment, capture_output=True)
  if done.returncode:
    output = done.stderr.decode(errors="replace").strip()
    if sentence := user_sentence(RuntimeError(output)):
      raise InputError(sentence)
    last = (output.splitlines() or ["it printed nothing"])[-1]
    raise RuntimeError(f"the job over a sample ended with exit code {done.returncode}: {last}")
  memory_bytes, written = json.loads(done.stdout.splitlines()[-1])
  return memory_bytes, [path for path in written if os.path.exists(path)]  # a cache of its own is gone


def _count_bad(sample: Sample, reasons: Mapping[str, int]) -> dict[str, int]:
  """Returns reason -> images that could not be read or used, sorted."""
  unreadable = (item for items in sample.values() for item in items if isinstance(item, Quarantined))
  return dict(sorted((Counter(str(item.reason) for item in unreadable) + Counter(reasons)).items()))


def listed_reasons(bad: Mapping[str, int]) -> str:
  return ", ".join(f"{count} {reason}" for reason, count in bad.items())


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
  """
  counts = []
  readable = {split: [item for item in items if isinstance(item, Image)] for split, items in sample.items()}
  for split, images in readable.items():
    chosen = images or next(filter(None, readable.values()), [])
    if not chosen:
      unreadable = next((item for items in sample.values() for item in items if isinstance(item, Quarantined)), None)
      if unreadable is None:
        raise InputError("the input has no images: put some into the folders of their classes.")
      raise InputError(f"no image of a sample can be read; {unreadable.key}: {unreadable.detail}.")
    count = max(len(images), len(_LABELS))
    for number, image in zip(range(count), itertools.cycle(chosen), strict=False):
      path = Path(folder, split, _LABELS[number * len(_LABELS) // count], f"{number:04d}")
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(image.encoded)
    counts.append(count)
  return counts
