"""Labels a folder of images with any frozen graph, for `label_image`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam

from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.core.compat.digit_file import (
  ActualLabels,
  best,
  header,
  normalised,
  part_line,
  whole_lines,
)
from beam_retrain.transforms.core.images.headers import MAX_PIXELS
from beam_retrain.transforms.core.models.inference import BATCH_SIZE, LoadedModel
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import ALL
from beam_retrain.transforms.core.records.shards import Shard, ShardReport
from beam_retrain.transforms.core.system.imports import load_tensorflow
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.work import ShardTask, Written
from beam_retrain.transforms.sources.folders import ClassFolder, list_folder
from beam_retrain.transforms.sources.image_files import AssignShards, ImageFile

FIGURES_FILE = "figures.json"
ACCURATE = "accurate"
UNKNOWN_FOLDER = "unknown_folder"


class FrozenGraphHandler(ImageModelHandler):
  """Runs a frozen graph over images, also in `RunInference`; outputs `scores`.

  Attributes:
    path: the graph's file, readable by the workers.
    call: the fields of a `GraphCall`.
    batch_size: images per call, unless `call` fixes it.
    threads: of TensorFlow in this process; 0: its default.
  """

  def __init__(
    self,
    path: str,
    call: Mapping[str, Any],
    *,
    batch_size: int = BATCH_SIZE,
    threads: int = 0,
    max_pixels: int = MAX_PIXELS,
  ):
    super().__init__(path, batch_size=call["batch"] or batch_size, threads=threads, max_pixels=max_pixels)
    # Not a GraphCall: unpickling one would import TensorFlow, with its messages.
    self._call = dict(call)

  def load_model(self) -> LoadedModel:
    load_tensorflow(self.threads)
    from beam_retrain.transforms.core.compat.frozen_graph import load_graph
    from beam_retrain.transforms.core.compat.graph_call import GraphCall, parse_graph

    return load_graph(parse_graph(files.read_bytes(self._path), self._path), GraphCall(**self._call), self._path)


class PlanImageTree(beam.PTransform):
  """PBegin -> PCollection[Shard] of all files below a folder.

  An image's label is the name of the folder it is in; keys start with `shown_as`, the folder as the user typed it.
  """

  def __init__(self, folder: str, shown_as: str):
    super().__init__()
    self._folder = ClassFolder(None, "", folder, shown_as.rstrip("/"))

  def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
    return (
      root
      | "CreateFolder" >> beam.Create([self._folder])
      # ClassFolder
      | "ListFolder" >> beam.FlatMap(list_folder)
      | "LabelByFolder" >> beam.MapTuple(lambda _, image: (ALL, _label_by_folder(image)))
      # (split, ImageFile)
      | "AssignShards" >> AssignShards()
    )  # Shard


def _label_by_folder(image: ImageFile) -> ImageFile:
  return image._replace(label=os.path.basename(os.path.dirname(image.key)))


class LabelShard(ShardTask):
  """Writes a shard's lines of the digit file; counts correct labels."""

  suffix = "csv"

  def __init__(self, handler: FrozenGraphHandler, labels: Sequence[str]):
    self._handler = handler
    self._labels = list(labels)
    self._actual = ActualLabels(labels)
    self._counts: dict[str, int] = {}

  def work(self, shard: Shard) -> Iterator[Written | Quarantined]:
    self._counts = {ACCURATE: 0, UNKNOWN_FOLDER: 0}
    # Images in folders that are not labels are labelled too.
    folders = sorted({label for _, label in shard.names() if label is not None})
    for item in self._handler.infer(shard.read_images(folders), self._handler.load_once):
      if isinstance(item, Quarantined):
        yield item.in_split(shard.split)
        continue
      answer = best(item.outputs["scores"], self._labels)
      label = self._actual.find(item.image.label)
      actual = normalised(item.image.label) if label is None else label
      self._counts[ACCURATE] += actual == answer.label
      self._counts[UNKNOWN_FOLDER] += label is None
      yield Written(actual, part_line(item.image.key, actual, answer).encode())

  def extra(self) -> Mapping[str, Any]:
    return self._counts


class WriteDigitFile(beam.PTransform):
  """PCollection[ShardReport] -> PCollection[dict]: joins parts, sums counts.

  The sums also go to `figures.json` in `parts_folder`. `execution_time` is the job's start as written by
  `time.ctime()`.
  """

  def __init__(self, *, parts_folder: str, path: str, execution_time: str):
    super().__init__()
    self._arguments = (parts_folder, path, execution_time)

  def expand(self, reports: beam.PCollection) -> beam.PCollection:
    return (
      reports
      | "NameAndCounts" >> beam.Map(_name_and_counts)
      | "CollectNames" >> beam.combiners.ToList()
      # list of (str, dict), one per shard
      | "JoinParts" >> beam.Map(_join_parts, *self._arguments)
    )  # dict


def _name_and_counts(report: ShardReport) -> tuple[str, dict[str, int]]:
  return report.file, {name: report.extra[name] for name in (ACCURATE, UNKNOWN_FOLDER)}


def _join_parts(
  parts: list[tuple[str, dict[str, int]]], parts_folder: str, path: str, execution_time: str
) -> dict[str, int]:
  with files.write_atomically(path) as file:
    file.write(header().encode())
    for name in sorted(name for name, _ in parts):
      for line in whole_lines(files.read_lines(files.join(parts_folder, name)), execution_time):
        file.write(line.encode())
  figures = {name: sum(counts[name] for _, counts in parts) for name in (ACCURATE, UNKNOWN_FOLDER)}
  files.write_text(files.join(parts_folder, FIGURES_FILE), json.dumps(figures) + "\n")
  return figures
