"""What each further image costs a `bottlenecks` job, part by part, measured with the job's own steps, here."""

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

from beam_retrain.pipelines import bottlenecks
from beam_retrain.pipelines.models.sample import sample_images
from beam_retrain.transforms.bottlenecks.compute import EmbedShard
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.core.models.inference import CALLS_AT_ONCE
from beam_retrain.transforms.core.records.leaks import OnLeak
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import TESTING, TRAINING, VALIDATION, Bottleneck, encode_bottleneck
from beam_retrain.transforms.core.records.shards import IMAGES_PER_SHARD, Shard, ShardReport, pick_inputs
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.records.tfrecord import frame
from beam_retrain.transforms.core.run.cost_model import shard_costs, whole_rounds
from beam_retrain.transforms.core.system.cpu import Threads
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.object_stores.options import options_in_use
from beam_retrain.transforms.leaks.policy import Planned, SplitAudit
from beam_retrain.transforms.shards.work import Written
from beam_retrain.transforms.sources.base import Source

T = TypeVar("T")

_WORK_SECS = 3.0
_LEAST_ROUNDS = 4
_LONG_SECS = 3.0
_AS_GIVEN = SplitPercentages(0, 0)


def timed(call: Callable[[], T]) -> tuple[float, T]:
  """Returns (seconds, what the call gave)."""
  began = time.perf_counter()
  result = call()
  return time.perf_counter() - began, result


def least_secs(call: Callable[[], object], budget_secs: float = 1.0) -> float:
  """Returns the shortest, so least disturbed, of up to three times that a call takes, as far as a budget goes."""
  times = [timed(call)[0]]
  while len(times) < 3 and sum(times) < budget_secs:
    times.append(timed(call)[0])
  return min(times)


def time_work(
  handler: ImageModelHandler, shard: Shard, images: int, labels: Sequence[str], budget_secs: float = _WORK_SECS
) -> tuple[float, float]:
  """Returns (seconds of a shard apart from its images, seconds of a image): see `shard_costs`.

  Args:
    handler: the trunk.
    shard: what to work, maybe in part, again and again.
    images: how many it has.
    labels: the label list.
    budget_secs: about how long to measure.
  """
  task = EmbedShard(handler, labels)

  def work(count: int) -> float:
    part = shard._replace(inputs=pick_inputs(shard.inputs, range(count)))
    return timed(lambda: _write_shard(task.work(part)))[0]

  few = min(CALLS_AT_ONCE * handler.batch_size, images)
  work(few)  # loads the trunk
  few_secs = statistics.median(work(few) for _ in range(3))
  many, repeats = whole_rounds(few, images, max(_LEAST_ROUNDS, round(budget_secs / few_secs)))
  return shard_costs(few, few_secs, many, statistics.median(work(many) for _ in range(repeats)))


def _write_shard(items: Iterator[Written | Quarantined]) -> None:
  """What `WorkShards` does with what a task gives, but for Beam's counters."""
  checksum = hashlib.sha256()
  with tempfile.TemporaryFile() as file:
    for item in items:
      if isinstance(item, Written):
        file.write(item.payload)
        checksum.update(item.payload)


def time_planning(source: Source, percentages: SplitPercentages, least: Source) -> tuple[float, dict[str, int]]:
  """Plans a whole input as a job does.

  Args:
    source: the input.
    percentages: how it is split.
    least: a few images with splits: what they take is a job's, and no image's.

  Returns:
    (seconds that the input takes more than `least`; split -> images, those of training also being those that will be
    drawn for validation).

  Raises:
    InputError: a class has no images in some split.
  """
  first_secs, counts = timed(lambda: _plan(source, percentages))
  if not source.has_validation:
    counts[TRAINING] += counts.pop(VALIDATION, 0)

  counts = {split: counts[split] for split in (TRAINING, VALIDATION, TESTING) if split in counts}
  # The first job of a process takes somewhat longer than the next, which does not matter where it is long.
  planned = first_secs if first_secs > _LONG_SECS else least_secs(lambda: _plan(source, percentages))
  return max(0.0, planned - least_secs(lambda: _plan(least, _AS_GIVEN))), counts


def time_listing(source: Source, percentages: SplitPercentages, least: Source) -> float:
  """Returns the seconds that a sample of a whole input takes more than one of `least`, which is no larger than that."""

  def sample(which: Source, how: SplitPercentages) -> float:
    return least_secs(lambda: sample_images(which, (TRAINING,), how))

  return max(0.0, sample(source, percentages) - sample(least, _AS_GIVEN))


def _plan(source: Source, percentages: SplitPercentages) -> dict[str, int]:
  with tempfile.TemporaryDirectory(prefix="beam-retrain-plan-") as folder:
    path = os.path.join(folder, "counts.json")

    def build(root: beam.Pipeline) -> None:
      shards = root | "Plan" >> source.plan((TRAINING, TESTING), percentages)
      planned = _audit(source, percentages).plan(shards)
      _ = planned.checked | "WriteCounts" >> beam.Map(_write_counts, path)

    _run_here(build)
    counts: dict[str, int] = json.loads(files.read_bytes(path))
    return counts


def _write_counts(counts: dict[tuple[str, str], int], path: str) -> None:
  totals: Counter[str] = Counter()
  for (split, _), count in counts.items():
    totals[split] += count
  files.write_text(path, json.dumps(totals))


def time_closing(records: Sequence[Bottleneck], source: Source, handler: ImageModelHandler, count: int) -> float:
  """Returns the seconds that a record's part in the analysis, the audit and the ledger takes.

  Args:
    records: some of a job's, of training.
    source: what they were made of.
    handler: what they were made with.
    count: how many to measure with: the same again, under other names. Where that is not much more than there are, 0 is
      returned: the job over them has shown all.
  """
  if not records or count < 2 * len(records):
    return 0.0
  few_secs, many_secs = (_close(records, number, source, handler) for number in (len(records), count))
  return max(0.0, many_secs - few_secs) / (count - len(records))


def _close(records: Sequence[Bottleneck], count: int, source: Source, handler: ImageModelHandler) -> float:
  with tempfile.TemporaryDirectory(prefix="beam-retrain-plan-") as folder:
    config = bottlenecks.Config(
      source=source,
      output=folder,
      request="",
      dimensions=len(records[0].vector),
      percentages=_AS_GIVEN,
      audit=_audit(source, _AS_GIVEN),
      max_bad_fraction=1.0,
      handler=handler,
    )
    reports = _write_records(config.records_folder, records, count)

    def build(root: beam.Pipeline) -> None:
      shards = root | "Shards" >> beam.Create([Shard(TRAINING, 0, 1, ()) for _ in reports])
      planned = Planned(shards, checked=shards, leaks=None)
      bottlenecks.close(planned, root | "Reports" >> beam.Create(reports), config)

    return timed(lambda: _run_here(build))[0]


def _write_records(folder: str, records: Sequence[Bottleneck], count: int) -> list[ShardReport]:
  """Writes so many records, each as if of a image of its own, into shards; returns the reports on them."""
  files.make_folder(folder)
  of = -(-count // IMAGES_PER_SHARD)
  again = itertools.cycle(records)
  reports = []
  for index in range(of):
    name = Shard(TRAINING, index, of, ()).name()
    labels: Counter[str] = Counter()
    with files.write_atomically(files.join(folder, name)) as file:
      for number in range(index * IMAGES_PER_SHARD, min(count, (index + 1) * IMAGES_PER_SHARD)):
        record = next(again)
        sha256 = hashlib.sha256(b"%d" % number).hexdigest()
        renamed = dataclasses.replace(record, key=f"{TRAINING}/{record.label}/{number}", sha256=sha256)
        file.write(frame(encode_bottleneck(renamed)))
        labels[record.label] += 1
    written = labels.total()
    reports.append(ShardReport(name, TRAINING, written, written, 0, "", "", dict(labels)))
  return reports


def _run_here(build: Callable[[beam.Pipeline], None]) -> None:
  of_the_input = options_in_use()
  with beam.Pipeline(options=PipelineOptions(flags=["--runner=FnApiRunner"])) as root:
    files.use_options(of_the_input)  # in whose place Beam has put the pipeline's
    build(root)


def _audit(source: Source, percentages: SplitPercentages) -> SplitAudit:
  return SplitAudit(OnLeak.WARN, source.labels, percentages, max_pixels=1, threads=Threads())
