"""Labels a folder of images with any frozen graph, for `label_image`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import apache_beam as beam

from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.core.compat import digit_file
from beam_retrain.transforms.core.compat.graph_call import GraphCall, parse_graph
from beam_retrain.transforms.core.images.headers import MAX_PIXELS
from beam_retrain.transforms.core.labels import normalise
from beam_retrain.transforms.core.models.inference import LoadedModel
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import ALL, REPORTS_FOLDER
from beam_retrain.transforms.core.records.shards import Shard
from beam_retrain.transforms.core.runtimes.trunk_info import BATCH_SIZE
from beam_retrain.transforms.core.system.imports import load_tensorflow
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.work import ShardTask, Written, read_report_file
from beam_retrain.transforms.sources.folders import ClassFolder, label_of_folder, list_folder
from beam_retrain.transforms.sources.image_files import AssignShards, ImageFile

ACCURATE = "accurate"
UNKNOWN_FOLDER = "unknown_folder"


class FrozenGraphHandler(ImageModelHandler):
  """Runs a frozen graph over images, also in `RunInference`; outputs `scores`.

  `path` is readable by the workers; `batch_size` applies unless `call` fixes it; 0 `threads`: TensorFlow's default.
  """

  def __init__(
    self,
    path: str,
    call: GraphCall,
    *,
    batch_size: int = BATCH_SIZE,
    threads: int = 0,
    max_pixels: int = MAX_PIXELS,
  ):
    super().__init__(path, batch_size=call.batch or batch_size, threads=threads, max_pixels=max_pixels)
    self._call = call

  def load_model(self) -> LoadedModel:
    load_tensorflow(self.thread_limits.here)
    from beam_retrain.transforms.core.compat.frozen_graph import load_graph

    return load_graph(parse_graph(files.read_bytes(self._path), self._path), self._call, self._path)


def plan_image_tree(root: beam.Pipeline, folder: str, shown_as: str) -> beam.PCollection:
  """Plans all files below a folder, labelled by their own folders' names.

  Keys start with `shown_as`, the folder as the user typed it.
  """
  return (
    root
    | "CreateFolder" >> beam.Create([ClassFolder(None, "", folder, shown_as.rstrip("/"))])
    # ClassFolder
    | "AssignShards" >> AssignShards(_list_tree, (ALL,), None)
  )  # Shard


def _list_tree(folder: ClassFolder) -> Iterator[tuple[str | None, ImageFile]]:
  for split, image in list_folder(folder):
    yield split, image._replace(label=os.path.basename(os.path.dirname(image.key)))


class ActualLabels:
  """Maps folder names to labels, which `retrain.py` normalised and `train` does not.

  Spaces at the ends are ignored: a folder `Roses!` had the label `roses `, which is read without its line end.
  """

  def __init__(self, labels: Iterable[str]):
    self._exact = frozenset(labels)
    self._normalised: dict[str, str] = {}
    for label in labels:
      self._normalised.setdefault(label_of_folder(label).strip(), label)

  def find(self, folder: str) -> str | None:
    label = normalise(folder)
    return label if label in self._exact else self._normalised.get(label_of_folder(folder).strip())


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
      answer = digit_file.best(item.outputs["scores"], self._labels)
      label = self._actual.find(item.image.label)
      actual = label_of_folder(item.image.label) if label is None else label
      self._counts[ACCURATE] += actual == answer.label
      self._counts[UNKNOWN_FOLDER] += label is None
      yield Written(actual, digit_file.part_line(item.image.key, actual, answer).encode())

  def extra(self) -> Mapping[str, int]:
    return self._counts


def join_parts(parts_folder: str, path: str, execution_time: str) -> Counter[str]:
  """Writes the digit file; returns the sums of the shards' counts."""
  reports = [read_report_file(stat.path) for stat in files.match_in(files.join(parts_folder, REPORTS_FOLDER), "*.json")]
  with files.write_atomically(path) as file:
    file.write(digit_file.HEADER.encode())
    for name in sorted(report.file for report in reports):
      for line in digit_file.whole_lines(files.read_lines(files.join(parts_folder, name)), execution_time):
        file.write(line.encode())
  return sum((Counter(report.extra) for report in reports), Counter())
