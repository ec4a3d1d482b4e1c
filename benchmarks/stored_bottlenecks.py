"""Bottlenecks without images: what `bottlenecks` writes, filled with drawn vectors, to measure what comes after it.

  python -m benchmarks.stored_bottlenecks --output DIR [--trunk T] [--training 60000] [--testing 10000] [--labels 1000]
  python -m benchmarks.stored_bottlenecks --output DIR --trunk T --widen BOTTLENECKS

Written by the project's own record writer, transform and ledger. The vectors are as a trunk's average pooling leaves
them: not negative, of many directions that vary together; their classes overlap, so that training has something to do.
With --widen they are those of BOTTLENECKS, such as MNIST's through the bundled trunk, times a drawn matrix; what is
negative becomes 0.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np

from beam_retrain.pipelines.jobs.runner import claim_output, run_command, run_pipeline
from beam_retrain.pipelines.models.trunk_sources import Trunk, load_trunk, prepare
from beam_retrain.transforms.bottlenecks.analyze import AnalyzeBottlenecks
from beam_retrain.transforms.core.records.schema import (
  LABELS_FILE,
  PREPROCESSING_VERSION,
  RECORDS_FOLDER,
  TESTING,
  TRAINING,
  VALIDATION,
  Bottleneck,
  bottleneck_record,
  decode_bottleneck,
  encode_bottleneck,
  schema_text,
)
from beam_retrain.transforms.core.records.shards import BOTTLENECKS, IMAGES_PER_SHARD, Shard
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.records.tfrecord import frame, read_records
from beam_retrain.transforms.core.run.run_info import describe_run
from beam_retrain.transforms.core.runtimes.variant import OPENVINO, TENSORFLOW, Variant, has_openvino
from beam_retrain.transforms.core.system.locks import claim_of
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.ledger import CloseLedger, mark_completed
from beam_retrain.transforms.shards.work import ShardTask, WorkShards, Written
from beam_retrain.transforms.sources.idx import IdxRange

_SPLITS = (TRAINING, TESTING, VALIDATION)
_FACTORS = 64  # directions in which all classes vary
_SEPARATION = 0.55  # about 97 % of the vectors of ten labels can be told apart by a line


class DrawShard(ShardTask):
  """A shard of drawn vectors, from (seed, split, shard) alone.

  Attributes:
    dimensions: length of a vector.
  """

  def __init__(self, dimensions: int, labels: Sequence[str]):
    self._dimensions = dimensions
    self._labels = labels
    self._drawn = 0

  def work(self, shard: Shard) -> Iterator[Written]:
    means, factors = _directions(self._dimensions, len(self._labels))
    ((images,), rng) = shard.inputs, np.random.default_rng([1, _SPLITS.index(shard.split), shard.index])
    assert isinstance(images, IdxRange)
    self._drawn = images.count
    classes = rng.permutation(np.arange(images.start, images.start + images.count) % len(self._labels))
    noise = rng.normal(size=(images.count, self._dimensions)).astype(np.float32)
    vectors = means[classes] + rng.normal(size=(images.count, _FACTORS)).astype(np.float32) @ factors + noise
    vectors = np.maximum(0.35 + 0.2 * vectors, 0).astype(np.float32)
    for number, (index, vector) in enumerate(zip(classes.tolist(), vectors, strict=True), images.start):
      label = self._labels[index]
      key = f"{shard.split}/{label}/{number}.png"
      record = Bottleneck(key, label, index, vector, "png", 28, 28, hashlib.sha256(key.encode()).hexdigest())
      yield Written(label, frame(encode_bottleneck(record)))

  def extra(self) -> Mapping[str, Any]:
    return {BOTTLENECKS: {"computed": self._drawn, "reused": 0}}


class WidenShard(DrawShard):
  """A shard of stored vectors, widened."""

  def __init__(self, dimensions: int, labels: Sequence[str], source: str):
    super().__init__(dimensions, labels)
    self._source = source

  def work(self, shard: Shard) -> Iterator[Written]:
    (path,) = Path(self._source, RECORDS_FOLDER).glob(f"{shard.split}-{shard.index:05d}-of-*.tfrecord")
    with path.open("rb") as file:
      records = [decode_bottleneck(one) for one in read_records(file, path.name)]
    self._drawn = len(records)
    length = records[0].vector.size
    matrix = np.random.default_rng([2, self._dimensions]).normal(size=(length, self._dimensions)) / np.sqrt(length)
    vectors = np.maximum(np.stack([one.vector for one in records]) @ matrix.astype(np.float32), 0)
    for record, vector in zip(records, vectors, strict=True):
      yield Written(record.label, frame(encode_bottleneck(dataclasses.replace(record, vector=vector))))


@functools.cache
def _directions(dimensions: int, labels: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns float32 [C, D], the middle of each class, and float32 [factors, D]."""
  rng = np.random.default_rng([0, dimensions])
  scale = _SEPARATION * np.log10(labels) * np.sqrt(2048 / dimensions) / 3
  means = rng.normal(scale=scale, size=(labels, dimensions)).astype(np.float32)
  return means, rng.normal(scale=0.5, size=(_FACTORS, dimensions)).astype(np.float32)


def plan(counts: Mapping[str, int]) -> list[Shard]:
  """Returns the shards of so many vectors of each split."""
  shards = []
  for split, count in counts.items():
    starts = range(0, count, IMAGES_PER_SHARD)
    for index, start in enumerate(starts):
      images = IdxRange("", "", start, min(IMAGES_PER_SHARD, count - start), 28, 28, None, None)
      shards.append(Shard(split, index, len(starts), (images,)))
  return shards


def write_stored(
  output: str, trunk: Trunk, counts: Mapping[str, int], labels: Sequence[str], task: ShardTask, argv: Sequence[str] = ()
) -> None:
  """Writes the folder.

  Args:
    output: new, empty, or written by this function.
    trunk: saved with the vectors, which have its length; it is not run.
    counts: split -> how many vectors.
    task: makes the records.
    argv: for `info.json`.
  """
  percentages = SplitPercentages(testing=10.0, validation=10.0)
  info = describe_run(
    "bottlenecks",
    {
      "drawn": dict(counts),
      "trunk_fingerprint": trunk.info.fingerprint,
      "labels": list(labels),
      "preprocessing": PREPROCESSING_VERSION,
      **percentages.to_settings(),
    },
    argv,
    trunk=trunk.info,
    labels=list(labels),
    has_splits=True,
    others={"schema": bottleneck_record(trunk.info.dimensions)},
  )
  owned = (RECORDS_FOLDER, "trunk", "transform", "schema.pbtxt")
  claim_output(output, info, owned=owned, shards_folder=RECORDS_FOLDER)
  files.write_text(files.join(output, LABELS_FILE), "".join(f"{label}\n" for label in labels))
  files.write_text(files.join(output, "schema.pbtxt"), schema_text(trunk.info.dimensions))
  trunk.save(files.join(output, "trunk"))
  records = files.join(output, RECORDS_FOLDER)

  def build(root: beam.Pipeline) -> None:
    shards = root | "Plan" >> beam.Create(plan(counts))
    reports = shards | "Draw" >> WorkShards(task, output=records, request=info.request)
    transform = reports | "Analyze" >> AnalyzeBottlenecks(
      records_folder=records,
      output=files.join(output, "transform"),
      trunk=trunk.info,
      labels=labels,
    )
    stats = (shards, reports) | "Close" >> CloseLedger(output=output, shards_folder=records)
    _ = stats | "MarkCompleted" >> beam.Map(mark_completed, claim_of(output), 0.0, beam.pvalue.AsList(transform))

  options = beam.options.pipeline_options.PipelineOptions(flags=["--runner=FnApiRunner"])
  run_pipeline(build, options, stage="draw", shards_folder=records)


def run(argv: Sequence[str]) -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--output", required=True, help="folder to write")
  parser.add_argument("--trunk", default="bundled", help="as of `bottlenecks` (default bundled: 512 numbers each)")
  parser.add_argument("--trunk_weights", help="as of `bottlenecks`")
  parser.add_argument("--training", type=int, default=60_000, help="vectors to train on (default %(default)d)")
  parser.add_argument("--testing", type=int, default=10_000, help="vectors to test with (default %(default)d)")
  parser.add_argument("--validation", type=int, default=0, help="more, to validate with (default: a tenth of them)")
  parser.add_argument("--labels", type=int, default=10, help="how many labels (default %(default)d)")
  parser.add_argument("--widen", metavar="DIR", help="what `bottlenecks` wrote, of ten labels: widened")
  flags = parser.parse_args(argv)
  # Prepared, as `bottlenecks` would have it.
  trunk = prepare(load_trunk(flags.trunk, flags.trunk_weights), Variant(OPENVINO if has_openvino() else TENSORFLOW))
  counts = {TRAINING: flags.training, TESTING: flags.testing, VALIDATION: flags.validation}
  labels = [str(number).zfill(len(str(flags.labels - 1))) for number in range(flags.labels)]
  task = DrawShard(trunk.info.dimensions, labels)
  if flags.widen:
    task = WidenShard(trunk.info.dimensions, labels, flags.widen)
  write_stored(flags.output, trunk, {split: count for split, count in counts.items() if count}, labels, task, argv)
  return 0


if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
