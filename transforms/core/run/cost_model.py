"""Estimates the cost of a `bottlenecks` job from its parts' measured costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from beam_retrain.transforms.core.records.shards import IMAGES_PER_SHARD, SAMPLED_FROM


@dataclasses.dataclass(frozen=True)
class JobCosts:
  """Measured costs of a job's parts.

  Seconds are wall time on a machine with all its available cores.
  """

  start_secs: float  # process start: Python, libraries, trunk, Beam's steps, transform graph
  listing_secs: float  # per image, of the first `SAMPLED_FROM`, before the job: for the sample that checks the trunk
  planning_secs: float  # per image, in the job: listing, counting, and assigning it to a shard
  shard_secs: float  # per shard, in addition to its images: until its batches follow each other without a gap
  image_secs: float  # per image: reading, decoding, computing, and writing its record
  closing_secs: float  # per record: analysis, split audit and ledger
  memory_bytes: int  # peak of a process
  record_bytes: float  # per record on disk
  folder_bytes: int  # other files in the output folder: trunk, transform graph, small files


@dataclasses.dataclass(frozen=True)
class Expectation:
  """Expected duration and size of a job; images and shards by split."""

  images: Mapping[str, int]
  shards: Mapping[str, int]
  workers: int  # machines that share the work, each like the measured one
  rounds: int  # shards of the busiest worker
  seconds: Mapping[str, float]  # by part of the job: `start`, `listing`, `planning`, `trunk`, `closing`
  memory_bytes: int  # peak of each process
  records_bytes: int
  folder_bytes: int  # of files other than records
  images_per_sec: float  # of one worker, within a shard
  total_secs: float
  disk_bytes: int


def to_json_entries(record: JobCosts | Expectation) -> dict[str, float | dict[str, float]]:
  """Returns the entries of `plan --json`, with `picture` for image."""
  return {name.replace("image", "picture"): value for name, value in dataclasses.asdict(record).items()}


def expect(costs: JobCosts, images: Mapping[str, int], workers: int = 1) -> Expectation:
  """Estimates a job over a number of images per split.

  `costs` were measured on a machine like each worker's. Start and listing are not shared. A shard has one worker, so
  the trunk takes as long as on the worker with the most shards, `ceil(shards / workers)`. Planning and closing are
  shared equally.
  """
  shards = {split: math.ceil(count / IMAGES_PER_SHARD) for split, count in images.items()}
  total, total_shards = sum(images.values()), sum(shards.values())
  rounds = math.ceil(total_shards / workers)
  # The busiest worker's fraction of the work.
  share = rounds / total_shards if total_shards else 0.0
  trunk = total_shards * costs.shard_secs + total * costs.image_secs
  seconds = {
    "start": costs.start_secs,
    "listing": min(total, SAMPLED_FROM) * costs.listing_secs,
    "planning": share * total * costs.planning_secs,
    "trunk": share * trunk,
    "closing": share * total * costs.closing_secs,
  }
  records_bytes = round(total * costs.record_bytes)
  return Expectation(
    images=dict(images),
    shards=shards,
    workers=workers,
    rounds=rounds,
    seconds=seconds,
    memory_bytes=costs.memory_bytes,
    records_bytes=records_bytes,
    folder_bytes=costs.folder_bytes,
    images_per_sec=1 / costs.image_secs,
    total_secs=sum(seconds.values()),
    disk_bytes=records_bytes + costs.folder_bytes,
  )


def shard_costs(few: int, few_secs: float, many: int, many_secs: float) -> tuple[float, float]:
  """Returns (seconds per shard, seconds per image) from two shards' times.

  With as many or fewer images than the first, only the second shard counts.
  """
  if many <= few:
    return 0.0, many_secs / many
  image_secs = max(many_secs - few_secs, 0.0) / (many - few)
  shard_secs = max(many_secs - many * image_secs, 0.0)
  return (shard_secs, image_secs) if image_secs else (0.0, many_secs / many)


def whole_rounds(few: int, images: int, rounds: int) -> tuple[int, int]:
  """Returns (images at a time, repetitions) for measuring `rounds` * `few` images.

  A shard's time rises in steps, since a single batch takes as long as all that run beside it: only whole rounds, of
  `few` images, give comparable times per image. `images` are available, at least `few`.
  """
  at_once = min(rounds, images // few)
  return at_once * few, max(1, rounds // at_once)
