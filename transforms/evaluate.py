"""Evaluation: a shard of pictures, or of stored bottlenecks, becomes lines of the predictions and a table of counts."""

from __future__ import annotations

import abc
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.utils.shared import Shared

from transforms import files
from transforms.core import label_stats
from transforms.core.errors import InputError
from transforms.core.label_stats import LabelCounts, LabelStats
from transforms.core.predictions import Scored, part_line, predict, predictions_lines
from transforms.core.quarantine import Quarantined, Reason
from transforms.core.schema import Bottleneck, decode_bottleneck
from transforms.core.shards import Input, RecordsFile, Shard, ShardReport
from transforms.core.tfrecord import read_records
from transforms.model_handler import ImageModelHandler
from transforms.shard_work import ShardTask, Written
from transforms.sources import read_images

PREDICTIONS_FILE = "predictions.csv"
PER_LABEL_FILE = "per_label.csv"
CONFUSION_FILE = "confusion_matrix.csv"
METRICS_FILE = "metrics.json"
PARTS_FOLDER = ".parts"

BOTTLENECKS_BATCH_SIZE = 1024

_COUNTS = "label_counts"


class Scorer(abc.ABC):
  """How the pictures of a shard get their scores. Pickled to the workers."""

  @abc.abstractmethod
  def setup(self) -> None:
    """Called once per DoFn instance, before the first shard: loads the model."""

  @abc.abstractmethod
  def score(self, shard: Shard) -> Iterator[Scored | Quarantined]:
    """Yields one item per picture, in the shard's order; every label is in the model's label list."""


class ScoreImages(Scorer):
  """Runs the whole exported model over pictures.

  Attributes:
    handler: the exported model, by the path that workers read.
    labels: the model's label list.
  """

  def __init__(self, handler: ImageModelHandler, labels: Sequence[str]):
    self._handler = handler
    self._labels = list(labels)

  def setup(self) -> None:
    self._handler.load_once()

  def score(self, shard: Shard) -> Iterator[Scored | Quarantined]:
    for item in self._handler.infer(read_images(shard, self._labels), self._handler.load_once()):
      if isinstance(item, Quarantined):
        yield item
      else:
        yield Scored(item.image.key, item.image.label, item.image.sha256, item.outputs["scores"])


class ScoreBottlenecks(Scorer):
  """Runs the exported model's head over stored bottlenecks: nothing is decoded, no trunk is run.

  Attributes:
    model: folder of the exported model, readable by the workers.
    labels: the model's label list.
    batch_size: bottlenecks per call of the head; a smaller rest is padded.
  """

  def __init__(self, model: str, labels: Sequence[str], *, batch_size: int = BOTTLENECKS_BATCH_SIZE):
    self._model = model
    self._labels = frozenset(labels)
    self._batch_size = batch_size
    self._shared = Shared()

  def setup(self) -> None:
    self._load_once()

  def _load_once(self) -> Any:
    from transforms.core.trunk import load_saved_model  # loads TensorFlow: on workers only

    return self._shared.acquire(lambda: load_saved_model(self._model), tag=self._model)

  def score(self, shard: Shard) -> Iterator[Scored | Quarantined]:
    head = self._load_once().score_bottlenecks
    records = itertools.chain.from_iterable(map(_read_bottlenecks, shard.inputs))
    while batch := list(itertools.islice(records, self._batch_size)):
      vectors = np.zeros((self._batch_size, batch[0].vector.size), np.float32)
      vectors[: len(batch)] = [bottleneck.vector for bottleneck in batch]
      # float32 [batch_size, C], 0..1
      scores = head(vectors)["scores"].numpy()
      for bottleneck, row in zip(batch, scores, strict=False):  # what is left over is padding
        yield self._checked(bottleneck, row)

  def _checked(self, bottleneck: Bottleneck, scores: np.ndarray) -> Scored | Quarantined:
    if bottleneck.label not in self._labels:
      detail = f"label {bottleneck.label!r} is not one of the {len(self._labels)} labels"
      return Quarantined(bottleneck.key, bottleneck.vector.nbytes, Reason.BAD_LABEL, detail)
    if not np.isfinite(scores).all():
      detail = "the model gave values that are not finite"
      return Quarantined(bottleneck.key, bottleneck.vector.nbytes, Reason.MODEL_ERROR, detail)
    return Scored(bottleneck.key, bottleneck.label, bottleneck.sha256, scores)


def _read_bottlenecks(records_file: Input) -> Iterator[Bottleneck]:
  assert isinstance(records_file, RecordsFile)  # what `RecordsSource` plans
  with files.open_to_read(records_file.path) as file:
    for record in read_records(file, records_file.path):
      try:
        yield decode_bottleneck(record)
      except KeyError as error:
        raise InputError(
          f"{records_file.path} holds a record without {error}: give the folder that `beam-retrain bottlenecks` wrote."
        ) from error


class EvaluateShard(ShardTask):
  """A shard's file: its lines of `predictions.csv`; beside its report's counts: its `LabelCounts`.

  Attributes:
    scorer: where the scores come from.
    labels: the model's label list.
  """

  suffix = "csv"

  def __init__(self, scorer: Scorer, labels: Sequence[str]):
    self._scorer = scorer
    self._labels = list(labels)
    self._counts = label_stats.create()

  def setup(self) -> None:
    self._scorer.setup()

  def work(self, shard: Shard) -> Iterator[Written | Quarantined]:
    self._counts = label_stats.create()
    for item in self._scorer.score(shard):
      if isinstance(item, Quarantined):
        yield item.in_split(shard.split)
        continue
      prediction = predict(item, self._labels)
      self._counts = label_stats.add(self._counts, prediction.outcome)
      yield Written(item.actual, part_line(prediction, shard.split))

  def extra(self) -> Mapping[str, Any]:
    return {_COUNTS: self._counts.to_json()}


class CheckNotEmpty(beam.PTransform):
  """PCollection[Shard] -> PCollection of one int, the number of shards; fails where there is none.

  Attributes:
    sentence: what to tell the user then.
  """

  def __init__(self, sentence: str):
    super().__init__()
    self._sentence = sentence

  def expand(self, shards: beam.PCollection) -> beam.PCollection:
    return shards | "CountShards" >> beam.combiners.Count.Globally() | "CheckCount" >> beam.Map(_check, self._sentence)


def _check(count: int, sentence: str) -> int:
  if not count:
    raise InputError(sentence)
  return count


class CombineLabelStats(beam.PTransform):
  """PCollection[ShardReport] of `EvaluateShard` -> PCollection of one `LabelStats`.

  Attributes:
    labels: the model's label list.
  """

  def __init__(self, labels: Sequence[str]):
    super().__init__()
    self._labels = list(labels)

  def expand(self, reports: beam.PCollection) -> beam.PCollection:
    return (
      reports
      | "CountsOfShard" >> beam.Map(_counts_of)
      # LabelCounts
      | "MergeCounts" >> beam.CombineGlobally(LabelStatsFn(self._labels))
    )  # LabelStats


def _counts_of(report: ShardReport) -> LabelCounts:
  return LabelCounts.from_json(report.extra[_COUNTS])


class LabelStatsFn(beam.CombineFn):
  """`LabelCounts` -> `LabelStats`: Beam's shell around the functions of `label_stats`."""

  def __init__(self, labels: Sequence[str]):
    self._labels = list(labels)

  def create_accumulator(self) -> LabelCounts:
    return label_stats.create()

  def add_input(self, accumulator: LabelCounts, counts: LabelCounts) -> LabelCounts:
    return label_stats.merge([accumulator, counts])

  def merge_accumulators(self, accumulators: Iterable[LabelCounts]) -> LabelCounts:
    return label_stats.merge(accumulators)

  def extract_output(self, accumulator: LabelCounts) -> LabelStats:
    return label_stats.extract(accumulator, self._labels)


class WritePredictions(beam.PTransform):
  """PCollection[ShardReport] -> PCollection of one str, the path of `predictions.csv`: the parts, one after the other.

  Attributes:
    parts_folder: where the shards' files are.
    output: the stage's folder.
    execution_time: the job's start as `time.ctime()` writes it.
  """

  def __init__(self, *, parts_folder: str, output: str, execution_time: str):
    super().__init__()
    self._parts_folder = parts_folder
    self._path = files.join(output, PREDICTIONS_FILE)
    self._execution_time = execution_time

  def expand(self, reports: beam.PCollection) -> beam.PCollection:
    return (
      reports
      | "NameOfPart" >> beam.Map(lambda report: report.file)
      | "CollectNames" >> beam.combiners.ToList()
      # list of str, one per shard
      | "JoinParts" >> beam.Map(_join_parts, self._parts_folder, self._path, self._execution_time)
    )  # str


def _join_parts(names: list[str], parts_folder: str, path: str, execution_time: str) -> str:
  parts = (_text_lines(files.join(parts_folder, name)) for name in sorted(names))
  with files.write_atomically(path) as file:
    for line in predictions_lines(parts, execution_time):
      file.write(line.encode())
  return path


def _text_lines(path: str) -> Iterator[str]:
  with files.open_to_read(path) as file, io.TextIOWrapper(file, "utf-8", newline="") as text:
    yield from text


def write_metrics(
  ledger: dict[str, Any], stats: LabelStats, output: str, min_accuracy: float | None, about: Mapping[str, Any]
) -> dict[str, Any]:
  """Writes `per_label.csv`, `confusion_matrix.csv` and `metrics.json`; returns the contents of the last.

  Args:
    ledger: the contents of `stats.json`.
    stats: the figures.
    output: the stage's folder.
    min_accuracy: the gate, 0..1, or None.
    about: what else `metrics.json` is to say: which split, which trunk.
  """
  metrics = {
    **about,
    **label_stats.metrics_json(stats),
    "quarantined": {"total": ledger["quarantined"], "reasons": ledger["reasons"]},
    "gates": {"min_accuracy": label_stats.accuracy_gate(stats.accuracy, min_accuracy)},
  }
  files.write_text(files.join(output, PER_LABEL_FILE), label_stats.per_label_csv(stats))
  files.write_text(files.join(output, CONFUSION_FILE), label_stats.confusion_csv(stats))
  files.write_text(files.join(output, METRICS_FILE), json.dumps(metrics, indent=2) + "\n")
  return metrics
