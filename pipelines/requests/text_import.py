"""`bottlenecks --bottleneck_dir`: imports retrain.py's text bottlenecks."""

from __future__ import annotations

import dataclasses
import json

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.jobs.runner import run_pipeline
from beam_retrain.pipelines.requests.bottlenecks import BottlenecksRequest

# The old scripts' layer is registered here.
from beam_retrain.transforms.compat.text_bottlenecks import (
  DAMAGED,
  IMPORTED,
  ImportTexts,
  Texts,
  check_lengths,
  find_texts,
  write_counts,
)
from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.records.schema import RECORDS_FOLDER, STATS_FILE, TESTING, TRAINING
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.runtimes.trunk_info import HUB_INCEPTION_V3, INCEPTION_V3, TrunkInfo
from beam_retrain.transforms.core.system.local_files import overlap
from beam_retrain.transforms.core.system.small_files import RUN_AGAIN, read_small
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.checks import CheckSplits
from beam_retrain.transforms.shards.work import WorkShards
from beam_retrain.transforms.sources.base import Source

IMPORTED_FOLDER = ".imported"


@dataclasses.dataclass(frozen=True)
class TextImport:
  """Text bottlenecks, and the store to import them to; `handle`: the trunk's."""

  texts: Texts
  task: ImportTexts
  source: Source
  percentages: SplitPercentages
  store: str
  handle: str

  def check(self, root: beam.Pipeline) -> None:
    """Adds a step that checks whether all text files can be imported."""
    shards = root | "PlanTexts" >> self.source.plan((TRAINING, TESTING), self.percentages)
    _ = shards | "SpreadTexts" >> beam.Reshuffle() | "CheckTexts" >> beam.Map(self.task.check)

  def run(self, request: str, options: PipelineOptions) -> list[str]:
    """Makes the store by a job; returns lines for the user.

    Args:
      request: digest of all but the images that decides the store.
    """
    records = files.join(self.store, RECORDS_FOLDER)

    def build(root: beam.Pipeline) -> None:
      shards = root | "Plan" >> self.source.plan((TRAINING, TESTING), self.percentages)
      checked = shards | "CheckSplits" >> CheckSplits(self.source.labels, self.percentages)
      reports = shards | "ImportTexts" >> WorkShards(self.task, output=records, request=request, checked=checked)
      _ = reports | "CollectReports" >> beam.combiners.ToList() | "WriteCounts" >> beam.Map(write_counts, self.store)

    run_pipeline(build, options, stage="import", shards_folder=records)
    counts = read_small(files.join(self.store, STATS_FILE), json.loads, RUN_AGAIN, files.read_bytes)
    line = (
      f"imported {counts[IMPORTED]:,} text bottlenecks from {files.shown(self.texts.folder)};"
      f" {counts[DAMAGED]:,} damaged, to be computed"
    )
    if not self.texts.module or self.texts.is_of_trunk:
      return [line]
    return [
      line,
      f"their files name the module {self.texts.module}, not {self.handle}: unless these are the same network,"
      " a model trained on them is useless",
    ]


def find_text_import(
  request: BottlenecksRequest, source: Source, percentages: SplitPercentages, trunk: TrunkInfo
) -> TextImport | None:
  """Finds text bottlenecks to import, if asked for, and checks them.

  Raises InputError if there are none, or they are of another trunk.
  """
  if not request.bottleneck_dir:
    return None
  if source.has_splits or not source.class_folders:
    raise InputError(
      f"{flag('bottleneck_dir')} is for class folders without splits, as retrain.py read them, but {source.path} is"
      " something else: leave it out."
    )
  for folder in (files.join(request.bottleneck_dir, each.prefix) for each in source.class_folders):
    if overlap(folder, request.output):
      what = f"{flag('output')} {request.output} overlaps with {folder} of {flag('bottleneck_dir')}"
      raise InputError(f"{what}: give a folder of its own.")
  handles = [trunk.handle, HUB_INCEPTION_V3] if trunk.handle == INCEPTION_V3 else [trunk.handle]
  texts = find_texts(request.bottleneck_dir, {folder.prefix for folder in source.class_folders}, handles)
  check_lengths(texts, trunk.dimensions)
  store = files.join(request.output, IMPORTED_FOLDER)
  task = ImportTexts(texts, source.labels, trunk.dimensions, request.max_pixels)
  return TextImport(texts, task, source, percentages, store, trunk.handle)
