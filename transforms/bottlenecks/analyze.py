"""Computes the z-scores' means and variances, and writes tensorflow-transform's folder with them."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import apache_beam as beam
import numpy as np

from beam_retrain.transforms.core.models.moments import BATCH_SIZE, Moments, merge, of_batch
from beam_retrain.transforms.core.models.transform_graph import TransformTemplate
from beam_retrain.transforms.core.records.example import decode_example
from beam_retrain.transforms.core.records.schema import BOTTLENECK, TRAINING
from beam_retrain.transforms.core.records.shards import ShardReport
from beam_retrain.transforms.core.records.tfrecord import pick_records
from beam_retrain.transforms.core.runtimes.trunk_info import TrunkInfo
from beam_retrain.transforms.core.system.imports import load_tensorflow
from beam_retrain.transforms.core.system.prefetch import batched
from beam_retrain.transforms.io import cache, files
from beam_retrain.transforms.io.beam_internals import options_in_use

_BATCHES_TOGETHER = 64
"""So that a million images have sixteen results to merge at the end, and sixty thousand the order of one process."""


class Rows(NamedTuple):
  """Training records `start` to `stop` of a shard's file."""

  file: str
  start: int
  stop: int


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class AnalyzeBottlenecks(beam.PTransform):
  """Writes a `tft.TFTransformOutput` folder.

  PCollection[ShardReport] -> PCollection of its path. Reads the training shards again, so that no vector crosses a
  shuffle. The result is the same for any number of workers.
  """

  records_folder: str
  output: str
  trunk: TrunkInfo
  labels: Sequence[str]  # class index -> label; the order of the vocabulary

  def expand(self, reports: beam.PCollection) -> beam.PCollection:
    moments = (
      reports.pipeline
      | "Plan" >> beam.Create([None])
      | "PlanParts" >> beam.FlatMap(lambda _, reports: plan_parts(reports), beam.pvalue.AsList(reports))
      # (number, list of Rows)
      | "SpreadParts" >> beam.Reshuffle()
      | "AddUp" >> beam.Map(_add_up, self.records_folder)
    )  # (number, Moments)
    template = find_template(self.trunk, len(self.labels))
    return (
      reports.pipeline
      | "TransformFolder" >> beam.Create([self.output])
      | "WriteTransform" >> beam.Map(_write, template, self.labels, self.trunk.dimensions, beam.pvalue.AsList(moments))
    )  # str


def find_template(trunk: TrunkInfo, labels: int) -> TransformTemplate:
  """Returns the template for so many labels, from the cache if possible."""
  versions = [importlib.metadata.version(name) for name in ("tensorflow", "tensorflow-transform")]
  made_up = [str(number) for number in range(labels)]
  digest = hashlib.sha256(json.dumps([1, trunk.dimensions, labels, versions]).encode()).hexdigest()

  def write(folder: str) -> None:
    load_tensorflow()
    from beam_retrain.transforms.bottlenecks.transform_template import make_template

    options = options_in_use()
    make_template(trunk.dimensions, made_up).write(folder)
    files.use_options(options)  # a pipeline of its own, without the endpoint of S3, has set others

  return TransformTemplate.read(
    cache.get_or_create(f"trunks/{trunk.base_fingerprint}/transform-{digest[:16]}", write), made_up
  )


def plan_parts(reports: Sequence[ShardReport]) -> Iterator[tuple[int, list[Rows]]]:
  """Yields numbered parts of the training records, in whole batches."""
  size, number, part, room = BATCH_SIZE * _BATCHES_TOGETHER, 0, list[Rows](), BATCH_SIZE * _BATCHES_TOGETHER
  for report in sorted(reports, key=lambda report: report.file):
    start = 0
    while report.split == TRAINING and start < report.outputs:
      stop = min(report.outputs, start + room)
      part.append(Rows(report.file, start, stop))
      start, room = stop, room - (stop - start)
      if not room:
        yield number, part
        number, part, room = number + 1, [], size
  if part:
    yield number, part


def _add_up(part: tuple[int, Sequence[Rows]], folder: str) -> tuple[int, Moments]:
  number, rows = part
  batches = batched(_read(rows, folder), BATCH_SIZE)
  return number, merge(of_batch(np.stack(vectors)) for vectors in batches)


def _read(part: Sequence[Rows], folder: str) -> Iterator[np.ndarray]:
  for rows in part:
    path = files.join(folder, rows.file)
    with files.open_to_read(path) as file:
      for record in pick_records(file, range(rows.start, rows.stop), path):
        vector = decode_example(record, (BOTTLENECK,))[BOTTLENECK]
        assert isinstance(vector, np.ndarray)
        yield vector


def _write(
  folder: str,
  template: TransformTemplate,
  labels: Sequence[str],
  dimensions: int,
  moments: Sequence[tuple[int, Moments]],
) -> str:
  none = Moments(0, np.zeros(dimensions), np.zeros(dimensions))  # of no training images, as in a sample
  of_all = merge(part for _, part in sorted(moments, key=lambda numbered: numbered[0])) if moments else none
  for name, data in template.fill(of_all, labels):
    files.make_folder(files.split(files.join(folder, name))[0])
    files.write_bytes(files.join(folder, name), data)
  files.sweep(folder, below=True)
  return folder
