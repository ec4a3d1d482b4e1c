"""What a `bottlenecks` job will take, from what its parts were measured to cost on one machine. Arithmetic only."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from beam_retrain.transforms.core.records.shards import IMAGES_PER_SHARD


@dataclasses.dataclass(frozen=True)
class JobCosts:
  """Measured costs of a job's parts. Seconds are wall time on a machine with the cores that were given.

  Attributes:
    start_secs: of a whole process with nothing to do: Python, libraries, the trunk, Beam's steps, the transform graph.
    listing_secs: of passing over an image's name, where the job is started, for a sample to check the trunk with.
    planning_secs: of listing an image in the job, dealing it into a shard and counting it.
    shard_secs: of a shard, apart from its images: until its batches follow one another without a gap.
    image_secs: of reading, decoding and computing an image, and of writing its record.
    closing_secs: of a record's part in the analysis, the split audit and the ledger.
    memory_bytes: the most that a process held.
    record_bytes: of a record on disk.
    folder_bytes: of what else the output folder holds: trunk, transform graph, small files.
  """

  start_secs: float
  listing_secs: float
  planning_secs: float
  shard_secs: float
  image_secs: float
  closing_secs: float
  memory_bytes: int
  record_bytes: float
  folder_bytes: int


@dataclasses.dataclass(frozen=True)
class Expectation:
  """What a job will take.

  Attributes:
    images: split -> images.
    shards: split -> shards.
    workers: machines that share the work, each like the one that was measured.
    rounds: how many shards the busiest worker works.
    seconds: part of the job (`start`, `listing`, `planning`, `trunk`, `closing`) -> seconds.
    memory_bytes: of each process.
    records_bytes: of all records on disk.
    folder_bytes: of what else the output folder holds.
    images_per_sec: of one worker, within a shard.
  """

  images: Mapping[str, int]
  shards: Mapping[str, int]
  workers: int
  rounds: int
  seconds: Mapping[str, float]
  memory_bytes: int
  records_bytes: int
  folder_bytes: int
  images_per_sec: float

  @property
  def total_secs(self) -> float:
    return sum(self.seconds.values())

  @property
  def disk_bytes(self) -> int:
    return self.records_bytes + self.folder_bytes

  def to_json(self) -> dict[str, Any]:
    derived = {"total_secs": self.total_secs, "disk_bytes": self.disk_bytes}
    return {**in_words_of_json(dataclasses.asdict(self)), **derived}


def in_words_of_json(fields: Mapping[str, Any]) -> dict[str, Any]:
  """Returns fields by the keys of `plan --json`, which say picture for image."""
  return {name.replace("image", "picture"): value for name, value in fields.items()}


def expect(costs: JobCosts, images: Mapping[str, int], workers: int = 1) -> Expectation:
  """Returns what a job over so many images will take.

  Start and listing are nobody's to share. A shard is worked by one worker, so that the trunk takes as long as the one
  with the most shards: `ceil(shards / workers)` of them. Planning and closing are shared out alike.

  Args:
    costs: measured on a machine such as each worker has.
    images: split -> number of images.
    workers: at least 1.
  """
  shards = {split: math.ceil(count / IMAGES_PER_SHARD) for split, count in images.items()}
  total, total_shards = sum(images.values()), sum(shards.values())
  rounds = math.ceil(total_shards / workers)
  # One worker's share, as a part of the whole.
  share = rounds / total_shards if total_shards else 0.0
  trunk = total_shards * costs.shard_secs + total * costs.image_secs
  return Expectation(
    images=dict(images),
    shards=shards,
    workers=workers,
    rounds=rounds,
    seconds={
      "start": costs.start_secs,
      "listing": total * costs.listing_secs,
      "planning": share * total * costs.planning_secs,
      "trunk": share * trunk,
      "closing": share * total * costs.closing_secs,
    },
    memory_bytes=costs.memory_bytes,
    records_bytes=round(total * costs.record_bytes),
    folder_bytes=costs.folder_bytes,
    images_per_sec=1 / costs.image_secs,
  )


def shard_costs(few: int, few_secs: float, many: int, many_secs: float) -> tuple[float, float]:
  """Returns (seconds of a shard apart from its images, seconds of an image), of two shards' times.

  Args:
    few: images of the one.
    few_secs: its time.
    many: of the other; more than `few`, or it is taken for all that there is.
    many_secs: its time.
  """
  if many <= few:
    return 0.0, many_secs / many
  image_secs = max(many_secs - few_secs, 0.0) / (many - few)
  shard_secs = max(many_secs - many * image_secs, 0.0)
  return (shard_secs, image_secs) if image_secs else (0.0, many_secs / many)


def whole_rounds(few: int, images: int, rounds: int) -> tuple[int, int]:
  """Returns (images to work at a time, how often), for so many rounds of `few` images in all.

  The time of a shard goes up by steps: a batch that is alone takes as long as the batches that could be computed with
  it. From one whole number of rounds to another, it is the same for each image.

  Args:
    few: images of a round: as many batches as are computed at a time.
    images: that there are, at least `few`.
    rounds: at least 1.
  """
  at_once = min(rounds, images // few)
  return at_once * few, max(1, rounds // at_once)
