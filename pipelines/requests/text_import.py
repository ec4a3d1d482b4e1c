"""`bottlenecks --bottleneck_dir`: what retrain.py cached as text is imported, before the trunk runs over the rest."""

from __future__ import annotations

import argparse
import dataclasses
import json

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.jobs.runner import run_pipeline
from beam_retrain.pipelines.models.trunk_sources import HUB_INCEPTION_V3, INCEPTION_V3, Trunk
from beam_retrain.transforms.compat.import_texts import DAMAGED, IMPORTED, ImportTextBottlenecks, ImportTexts
from beam_retrain.transforms.compat.text_bottlenecks import Texts, check_lengths, find_texts
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import RECORDS_FOLDER, STATS_FILE, TESTING, TRAINING
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.checks import CheckSplits
from beam_retrain.transforms.sources.base import Source

IMPORTED_FOLDER = ".imported"


def add_bottleneck_dir(group: argparse._ActionsContainer) -> None:
  group.add_argument(
    "--bottleneck_dir",
    metavar="DIR",
    help="take bottlenecks from the text files that retrain.py wrote to its --bottleneck_dir, and run the trunk over"
    " the images that have none there, or a damaged one. The numbers are then retrain.py's: TensorFlow 1 resized"
    " images slightly otherwise than the exported model does; for class folders",
  )


@dataclasses.dataclass(frozen=True)
class TextImport:
  """What is imported, and whither.

  Attributes:
    texts: the text files.
    task: what is done with a shard of images.
    source: the images.
    percentages: how they are split.
    store: the folder that is written, in the stage's own.
    handle: what the user named the trunk.
  """

  texts: Texts
  task: ImportTexts
  source: Source
  percentages: SplitPercentages
  store: str
  handle: str

  def check(self, root: beam.Pipeline) -> None:
    """Adds a step that reads all text files, and no more, to see whether they can be imported."""
    shards = root | "PlanTexts" >> self.source.plan((TRAINING, TESTING), self.percentages)
    _ = shards | "SpreadTexts" >> beam.Reshuffle() | "CheckTexts" >> beam.Map(self.task.check)

  def run(self, request: str, options: PipelineOptions) -> str:
    """Runs the job that makes the store; returns what the user is told of it.

    Args:
      request: digest of everything but the images that decides the store.
      options: Beam's.
    """

    def build(root: beam.Pipeline) -> None:
      shards = root | "Plan" >> self.source.plan((TRAINING, TESTING), self.percentages)
      checked = shards | "CheckSplits" >> CheckSplits(self.source.labels, self.percentages)
      _ = shards | "ImportTexts" >> ImportTextBottlenecks(self.task, self.store, request, checked)

    run_pipeline(build, options, stage="import", shards_folder=files.join(self.store, RECORDS_FOLDER))
    counts = json.loads(files.read_bytes(files.join(self.store, STATS_FILE)))
    line = (
      f"imported {counts[IMPORTED]:,} text bottlenecks from {files.shown(self.texts.folder)};"
      f" {counts[DAMAGED]:,} damaged, computed anew"
    )
    if not self.texts.module or self.texts.is_of_trunk:
      return line
    return (
      f"{line}\ntheir files name the module {self.texts.module}, not {self.handle}: if these are not the same network,"
      " a model that is trained on them is of no use"
    )


def find_text_import(
  folder: str, source: Source, percentages: SplitPercentages, trunk: Trunk, max_pixels: int, output: str
) -> TextImport:
  """Looks for what can be imported, and whether it fits the trunk.

  Args:
    folder: `--bottleneck_dir`.
    source: the images.
    percentages: how they are split.
    trunk: today's.
    max_pixels: largest height x width that is decoded.
    output: the stage's folder.

  Raises:
    InputError: there is nothing, or of another trunk.
  """
  if source.has_splits or not source.class_folders:
    raise InputError(
      f"--bottleneck_dir goes with the class folders that retrain.py read, and {source.path} has splits of its own or"
      " is something else: leave it out."
    )
  handles = [trunk.info.handle, HUB_INCEPTION_V3] if trunk.info.handle == INCEPTION_V3 else [trunk.info.handle]
  texts = find_texts(folder, {class_folder.prefix for class_folder in source.class_folders}, handles)
  check_lengths(texts, trunk.info.dimensions)
  store = files.join(output, IMPORTED_FOLDER)
  task = ImportTexts(texts, source.labels, trunk.info.dimensions, max_pixels, files.join(store, RECORDS_FOLDER))
  return TextImport(texts, task, source, percentages, store, trunk.info.handle)
