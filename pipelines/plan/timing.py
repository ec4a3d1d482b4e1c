"""Measures, by its own steps, the parts of a `bottlenecks` job that grow with the input."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.jobs.runner import run_pipeline
from beam_retrain.pipelines.models.sample import sample_images
from beam_retrain.transforms.bottlenecks.compute import ComputeBottlenecks
from beam_retrain.transforms.bottlenecks.embed import EmbedShard
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.bottlenecks.store import record_files
from beam_retrain.transforms.core.models.inference import CALLS_AT_ONCE
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import (
  TESTING,
  TRAINING,
  VALIDATION,
  Bottleneck,
  decode_bottleneck,
  encode_bottleneck,
)
from beam_retrain.transforms.core.records.shards import IMAGES_PER_SHARD, Shard, ShardReport, pick_inputs
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.records.tfrecord import frame, read_records
from beam_retrain.transforms.core.run.cost_model import shard_costs, whole_rounds
from beam_retrain.transforms.core.runtimes.trunk_info import TrunkInfo
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.beam_internals import options_in_use
from beam_retrain.transforms.leaks.audit import Planned
from beam_retrain.transforms.shards.checks import CheckSplits
from beam_retrain.transforms.shards.work import Written
from beam_retrain.transforms.sources.base import Source

T = TypeVar("T")

PREFIX = "beam-retrain-plan-"
"""Of temporary folders."""

_WORK_SECS = 3.0
_LEAST_ROUNDS = 4
_LONG_SECS = 3.0
_AS_GIVEN = SplitPercentages(0, 0)


def timed(call: Callable[[], T]) -> tuple[float, T]:
  began = time.perf_counter()
  result = call()
  return time.perf_counter() - began, result


def least_secs(call: Callable[[], object], budget_secs: float = 1.0) -> float:
  """Returns the shortest duration of up to three calls within a budget."""
  times = [timed(call)[0]]
  while len(times) < 3 and sum(times) < budget_secs:
    times.append(timed(call)[0])
  return min(times)


def time_work(handler: ImageModelHandler, shard: Shard, images: int, labels: Sequence[str]) -> tuple[float, float]:
  """Returns (seconds per shard, seconds per image); see `shard_costs`.

  `shard` is processed repeatedly, in whole or in part.
  """
  task = EmbedShard(handler, labels)

  def work(count: int) -> float:
    part = shard._replace(inputs=pick_inputs(shard.inputs, range(count)))
    return timed(lambda: _write_shard(task.work(part)))[0]

  few = min(CALLS_AT_ONCE * handler.batch_size, images)
  work(few)  # loads the trunk
  few_secs = statistics.median(work(few) for _ in range(3))
  many, repeats = whole_rounds(few, images, max(_LEAST_ROUNDS, round(_WORK_SECS / few_secs)))
  return shard_costs(few, few_secs, many, statistics.median(work(many) for _ in range(repeats)))


def _write_shard(items: Iterator[Written | Quarantined]) -> None:
  """Processes a task's items as `WorkShards` does, without Beam's counters."""
  checksum = hashlib.sha256()
  with tempfile.TemporaryFile() as file:
    for item in items:
      if isinstance(item, Written):
        file.write(item.payload)
        checksum.update(item.payload)


def time_planning(source: Source, percentages: SplitPercentages, least: Source) -> tuple[float, dict[str, int]]:
  """Plans a whole input as a job does.

  Args:
    least: a few images with splits, whose duration is subtracted.

  Returns:
    (seconds more than for `least`; split -> images, training including those that will be drawn for validation).

  Raises:
    InputError: a class has no images in some split.
  """
  first_secs, counts = timed(lambda: _plan(source, percentages))
  if not source.has_validation:
    counts[TRAINING] += counts.pop(VALIDATION, 0)

  counts = {split: counts[split] for split in (TRAINING, VALIDATION, TESTING) if split in counts}
  # The first job of a process takes somewhat longer than the next; if it is long, that does not matter.
  planned = first_secs if first_secs > _LONG_SECS else least_secs(lambda: _plan(source, percentages))
  return max(0.0, planned - least_secs(lambda: _plan(least, _AS_GIVEN))), counts


def time_listing(source: Source, percentages: SplitPercentages, least: Source) -> float:
  """Returns how many seconds longer a sample takes than one of `least`."""

  def sample(which: Source, how: SplitPercentages) -> float:
    return least_secs(lambda: sample_images(which, (TRAINING,), how))

  return max(0.0, sample(source, percentages) - sample(least, _AS_GIVEN))


def _plan(source: Source, percentages: SplitPercentages) -> dict[str, int]:
  with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
    path = os.path.join(folder, "counts.json")

    def build(root: beam.Pipeline) -> None:
      shards = root | "Plan" >> source.plan((TRAINING, TESTING), percentages)
      checked = shards | "CheckSplits" >> CheckSplits(source.labels, percentages)
      _ = checked | "WriteCounts" >> beam.Map(_write_counts, path)

    _run_here(build, folder)
    counts: dict[str, int] = json.loads(files.read_bytes(path))
    return counts


def _write_counts(counts: dict[tuple[str, str], int], path: str) -> None:
  totals: Counter[str] = Counter()
  for (split, _), count in counts.items():
    totals[split] += count
  files.write_text(path, json.dumps(totals))


def time_closing(output: str, source: Source, handler: ImageModelHandler, trunk: TrunkInfo, count: int) -> float:
  """Returns seconds per record for the analysis, the audit and the ledger.

  Measures with `count` records, repeats of the job's training images. If that is not much more than they are, returns
  0: the job itself has shown all.
  """
  records = []
  for path in record_files(output):
    if os.path.basename(path).startswith(TRAINING):
      with files.open_to_read(path) as file:
        records += [decode_bottleneck(record) for record in read_records(file, path)]
  if not records or count < 2 * len(records):
    return 0.0
  few_secs, many_secs = (_close(records, number, source, handler, trunk) for number in (len(records), count))
  return max(0.0, many_secs - few_secs) / (count - len(records))


def _close(
  records: Sequence[Bottleneck], count: int, source: Source, handler: ImageModelHandler, trunk: TrunkInfo
) -> float:
  with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
    compute = ComputeBottlenecks(
      handler, labels=source.labels, output=folder, trunk=trunk, percentages=_AS_GIVEN, max_bad_fraction=1.0
    )
    reports = _write_records(compute.records_folder, records, count)

    def build(root: beam.Pipeline) -> None:
      shards = root | "Shards" >> beam.Create([Shard(TRAINING, 0, 1, ()) for _ in reports])
      compute.close(Planned(shards, checked=shards, leaks=None), root | "Reports" >> beam.Create(reports))

    return timed(lambda: _run_here(build, folder))[0]


def _write_records(folder: str, records: Sequence[Bottleneck], count: int) -> list[ShardReport]:
  """Writes `count` records with keys of their own into shards."""
  files.make_folder(folder)
  of = -(-count // IMAGES_PER_SHARD)
  numbered = enumerate(itertools.islice(itertools.cycle(records), count))
  reports = []
  for index in range(of):
    name = Shard(TRAINING, index, of, ()).name()
    labels: Counter[str] = Counter()
    with files.write_atomically(files.join(folder, name)) as file:
      for number, record in itertools.islice(numbered, IMAGES_PER_SHARD):
        sha256 = hashlib.sha256(b"%d" % number).hexdigest()
        renamed = dataclasses.replace(record, key=f"{TRAINING}/{record.label}/{number}", sha256=sha256)
        file.write(frame(encode_bottleneck(renamed)))
        labels[record.label] += 1
    written = labels.total()
    reports.append(ShardReport(name, TRAINING, written, written, 0, "", "", dict(labels)))
  return reports


def _run_here(build: Callable[[beam.Pipeline], None], folder: str) -> None:
  of_the_input = options_in_use()

  def build_here(root: beam.Pipeline) -> None:
    files.use_options(of_the_input)  # Beam has replaced them by the pipeline's
    build(root)

  run_pipeline(build_here, PipelineOptions(flags=["--runner=FnApiRunner"]), stage="plan", shards_folder=folder)
