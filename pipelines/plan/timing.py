"""Measures the parts of a `bottlenecks` job, by its own steps."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TypeVar

import apache_beam as beam
import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.jobs.runner import run_pipeline
from beam_retrain.pipelines.models.batch_size import trunk_rate
from beam_retrain.transforms.bottlenecks.compute import ComputeBottlenecks
from beam_retrain.transforms.bottlenecks.embed import EmbedShard
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.core.images.encode import encode_pixels
from beam_retrain.transforms.core.models.inference import CALLS_AT_ONCE, LoadedModel
from beam_retrain.transforms.core.records.schema import (
  TESTING,
  TRAINING,
  VALIDATION,
  Bottleneck,
  Image,
  encode_bottleneck,
)
from beam_retrain.transforms.core.records.shards import IMAGES_PER_SHARD, Shard, ShardReport, pick_inputs
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.records.tfrecord import frame
from beam_retrain.transforms.core.run.cost_model import shard_costs, whole_rounds
from beam_retrain.transforms.core.runtimes.trunk_info import TrunkInfo
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.beam_internals import options_in_use
from beam_retrain.transforms.leaks.audit import Planned
from beam_retrain.transforms.shards.checks import CheckSplits
from beam_retrain.transforms.sources.base import Source

T = TypeVar("T")

PREFIX = "beam-retrain-plan-"  # of temporary folders

_BUDGET_SECS = 1.0
_WORK_SECS = 3.0
_LEAST_ROUNDS = 4
_FEW_RECORDS = 64
_SIDES = (320, 1600)  # of JPEGs, in pixels, larger than a trunk's input
_QUALITY = 90
_DECODED = 8
_AS_GIVEN = SplitPercentages(0, 0)


def timed(call: Callable[[], T], budget_secs: float = 0.0) -> tuple[float, T]:
  """Returns (shortest of up to three durations within a budget, last result)."""
  times: list[float] = []
  while not times or (len(times) < 3 and sum(times) < budget_secs):
    began = time.perf_counter()
    result = call()
    times.append(time.perf_counter() - began)
  return min(times), result


def time_growth(
  step: Callable[[Source, SplitPercentages], T], source: Source, percentages: SplitPercentages, few: Source
) -> tuple[float, T]:
  """Returns (seconds that a step takes longer than for `few`, its result).

  `few` is a source of a few images with splits.
  """
  step(few, _AS_GIVEN)  # the first takes longer
  few_secs, _ = timed(lambda: step(few, _AS_GIVEN), _BUDGET_SECS)
  secs, result = timed(lambda: step(source, percentages), _BUDGET_SECS)
  return max(0.0, secs - few_secs), result


def plan_images(source: Source, percentages: SplitPercentages) -> dict[str, int]:
  """Plans an input as a job does; returns split -> images.

  Training includes images that will be drawn for validation.
  """
  with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
    path = os.path.join(folder, "counts.json")

    def build(root: beam.Pipeline) -> None:
      shards = root | "Plan" >> source.plan((TRAINING, TESTING), percentages)
      checked = shards | "CheckSplits" >> CheckSplits(source.labels, percentages)
      _ = checked | "WriteCounts" >> beam.Map(_write_counts, path)

    _run_here(build, folder)
    counts: dict[str, int] = json.loads(files.read_bytes(path))
  if not source.has_validation:
    counts[TRAINING] += counts.pop(VALIDATION, 0)
  return {split: counts[split] for split in (TRAINING, VALIDATION, TESTING) if split in counts}


def _write_counts(counts: dict[tuple[str, str], int], path: str) -> None:
  totals: Counter[str] = Counter()
  for (split, _), count in counts.items():
    totals[split] += count
  files.write_text(path, json.dumps(totals))


def time_work(handler: ImageModelHandler, shard: Shard, images: int, labels: Sequence[str]) -> tuple[float, float]:
  """Returns (seconds per shard, seconds per image); see `shard_costs`.

  `shard` is processed repeatedly, in whole or in part.
  """
  task = EmbedShard(handler, labels)

  def work(count: int) -> float:
    part = shard._replace(inputs=pick_inputs(shard.inputs, range(count)))
    return timed(lambda: deque(task.work(part), maxlen=0))[0]

  few = min(CALLS_AT_ONCE * handler.batch_size, images)
  work(few)  # loads the trunk
  few_secs = statistics.median(work(few) for _ in range(3))
  many, repeats = whole_rounds(few, images, max(_LEAST_ROUNDS, round(_WORK_SECS / few_secs)))
  return shard_costs(few, few_secs, many, statistics.median(work(many) for _ in range(repeats)))


def find_decoding_limit(handler: ImageModelHandler) -> float:
  """Returns megapixels above which a JPEG takes longer than the trunk.

  Both with all cores; what a JPEG takes grows with its pixels. The measured one is generated: a smooth image with noise
  of a photo's size at its quality, two bits a pixel.
  """
  model = handler.load_once()
  trunk_secs = 1 / trunk_rate(model.infer, handler.batch_size, model.input_px)
  few_secs, many_secs = (_decoding_secs(model, side) for side in _SIDES)
  few, many = (side**2 / 1e6 for side in _SIDES)
  return few + max(0.0, trunk_secs - few_secs) * (many - few) / max(many_secs - few_secs, 1e-9)


def _decoding_secs(model: LoadedModel, side: int) -> float:
  """Returns seconds an image of so many pixels a side."""
  y, x = np.mgrid[:side, :side] / side
  noise = np.random.default_rng(0).normal(0, 6, (side, side, 3))
  pixels = 128 + 100 * np.sin(9 * np.stack([x + y, x * y, x - y], axis=-1)) + noise
  encoded = encode_pixels(pixels.clip(0, 255).astype(np.uint8), "jpeg", _QUALITY)
  images = [Image("", "", encoded, "jpeg", side, side)] * _DECODED
  model.decode(images)  # loads TensorFlow
  return timed(lambda: np.asarray(model.decode(images)), _BUDGET_SECS)[0] / _DECODED


def time_closing(handler: ImageModelHandler, labels: Sequence[str], trunk: TrunkInfo, count: int) -> float:
  """Returns seconds per record for the analysis, the audit and the ledger.

  Measures with `count` records. If those are few, returns 0: the job over the sample has shown all.
  """
  if count < 2 * _FEW_RECORDS:
    return 0.0
  _close(handler, labels, trunk, _FEW_RECORDS)  # loads tensorflow-transform
  few_secs, many_secs = (_close(handler, labels, trunk, number) for number in (_FEW_RECORDS, count))
  return max(0.0, many_secs - few_secs) / (count - _FEW_RECORDS)


def _close(handler: ImageModelHandler, labels: Sequence[str], trunk: TrunkInfo, count: int) -> float:
  with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
    compute = ComputeBottlenecks(handler, labels=labels, output=folder, trunk=trunk, percentages=_AS_GIVEN)
    reports = _write_records(compute.records_folder, labels, trunk.dimensions, count)

    def build(root: beam.Pipeline) -> None:
      shards = root | "Shards" >> beam.Create([Shard(TRAINING, 0, 1, ()) for _ in reports])
      compute.close(Planned(shards, checked=shards, leaks=None), root | "Reports" >> beam.Create(reports))

    return timed(lambda: _run_here(build, folder))[0]


def _write_records(folder: str, labels: Sequence[str], dimensions: int, count: int) -> list[ShardReport]:
  """Writes records of training images, with vectors of random numbers."""
  files.make_folder(folder)
  vectors = np.random.default_rng(0).random((IMAGES_PER_SHARD, dimensions), np.float32)
  reports = []
  for index, start in enumerate(range(0, count, IMAGES_PER_SHARD)):
    name = Shard(TRAINING, index, -(-count // IMAGES_PER_SHARD), ()).name()
    written: Counter[str] = Counter()
    with files.write_atomically(files.join(folder, name)) as file:
      for number in range(start, min(count, start + IMAGES_PER_SHARD)):
        label, vector = labels[number % len(labels)], vectors[number - start]
        key, sha256 = f"{TRAINING}/{label}/{number}", hashlib.sha256(b"%d" % number).hexdigest()
        record = Bottleneck(key, label, number % len(labels), vector, "png", 1, 1, sha256)
        file.write(frame(encode_bottleneck(record)))
        written[label] += 1
    total = written.total()
    reports.append(ShardReport(name, TRAINING, total, total, 0, "", "", dict(written)))
  return reports


def _run_here(build: Callable[[beam.Pipeline], None], folder: str) -> None:
  of_the_input = options_in_use()

  def build_here(root: beam.Pipeline) -> None:
    files.use_options(of_the_input)  # Beam has replaced them by the pipeline's
    build(root)

  run_pipeline(build_here, PipelineOptions(flags=["--runner=FnApiRunner"]), stage="plan", shards_folder=folder)
