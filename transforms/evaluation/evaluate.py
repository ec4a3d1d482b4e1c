"""The steps of an evaluation: predictions, counts and figures.

The figures go to one file, `figures.json`, which the command reads and judges.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import apache_beam as beam

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics import label_stats
from beam_retrain.transforms.core.metrics.figures import (
  MODEL,
  ModelMetrics,
  QuarantineCounts,
  ShownImage,
  SuspiciousLabels,
)
from beam_retrain.transforms.core.metrics.label_stats import LabelCounts
from beam_retrain.transforms.core.metrics.metrics_file import model_from_json, model_to_json
from beam_retrain.transforms.core.metrics.mistakes import (
  MAX_SHOWN,
  MAX_SHOWN_SUSPICIOUS,
  SUSPICIOUS_COLUMNS,
  SUSPICIOUS_PERCENT,
  Mistakes,
  shown_image,
)
from beam_retrain.transforms.core.metrics.predictions import (
  HEADER,
  part_line,
  predict,
  read_part_cells,
  row_of,
  whole_line,
)
from beam_retrain.transforms.core.records.csv_format import csv_line
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.shards import Shard, ShardReport
from beam_retrain.transforms.core.run.stats import Stats
from beam_retrain.transforms.evaluation.compare import NightsCompared
from beam_retrain.transforms.evaluation.scoring import Scorer
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.work import ShardTask, Written

PREDICTIONS_FILE = "predictions.csv"
PER_LABEL_FILE = "per_label.csv"
CONFUSION_FILE = "confusion_matrix.csv"
SUSPICIOUS_FILE = "suspicious_labels.csv"
PARTS_FOLDER = ".parts"
FIGURES_FILE = "figures.json"

_COUNTS = "label_counts"
_NOTHING_COMPARED = NightsCompared()


def folder_of(output: str, model: str) -> str:
  """Returns the folder of a model's files; a candidate has its own."""
  return output if model == MODEL else files.join(output, model)


class PredictionsWritten(NamedTuple):
  """Images to show (`mistakes`, `suspicious`) and counts by model."""

  images: Mapping[str, Sequence[ShownImage]]
  suspicious: Mapping[str, SuspiciousLabels]


class JobFigures(NamedTuple):
  """The contents of `figures.json`, from a job to its command.

  Attributes:
    models: figures by model, without gates.
    images: to show in the report, by `mistakes`, `suspicious`, `regressed` and `fixed`.
  """

  models: Mapping[str, ModelMetrics]
  images: Mapping[str, Sequence[ShownImage]]

  def to_json(self) -> str:
    return json.dumps(
      {
        "models": {name: model_to_json(model) for name, model in self.models.items()},
        "images": {kind: [dataclasses.asdict(image) for image in images] for kind, images in self.images.items()},
      }
    )

  @classmethod
  def from_json(cls, text: bytes) -> JobFigures:
    entries = json.loads(text)
    return cls(
      {name: model_from_json(model) for name, model in entries["models"].items()},
      {kind: [ShownImage(**image) for image in images] for kind, images in entries["images"].items()},
    )


class EvaluateShard(ShardTask):
  """Writes a shard's predictions, and each model's `LabelCounts` in its report.

  Attributes:
    models: name -> label list, in the order of the scores.
  """

  suffix = "csv"

  def __init__(self, scorer: Scorer, models: Mapping[str, Sequence[str]]):
    self._scorer = scorer
    self._models = {name: list(labels) for name, labels in models.items()}
    self._counts: dict[str, LabelCounts] = {}

  def setup(self) -> None:
    self._scorer.setup()

  def work(self, shard: Shard) -> Iterator[Written | Quarantined]:
    self._counts = {name: label_stats.create() for name in self._models}
    for item in self._scorer.score(shard):
      if isinstance(item, Quarantined):
        yield item.in_split(shard.split)
        continue
      lines = []
      for (name, labels), scored in zip(self._models.items(), item, strict=True):
        prediction = predict(scored, labels)
        self._counts[name] = label_stats.add(self._counts[name], prediction.outcome)
        lines.append(part_line(name, prediction, shard.split))
      yield Written(item[0].actual, b"".join(lines))

  def extra(self) -> Mapping[str, Any]:
    return {_COUNTS: {name: counts.to_json() for name, counts in self._counts.items()}}


class CheckNotEmpty(beam.PTransform):
  """Fails without shards: PCollection[Shard] -> PCollection of their number.

  Attributes:
    message: of the InputError.
  """

  def __init__(self, message: str):
    super().__init__()
    self._message = message

  def expand(self, shards: beam.PCollection) -> beam.PCollection:
    return shards | "CountShards" >> beam.combiners.Count.Globally() | "CheckCount" >> beam.Map(_check, self._message)


def _check(count: int, message: str) -> int:
  if not count:
    raise InputError(message)
  return count


class CombineLabelStats(beam.PTransform):
  """PCollection[ShardReport] of `EvaluateShard` -> PCollection of one `ModelMetrics`."""

  def __init__(self, labels: Sequence[str], model: str = MODEL):
    super().__init__()
    self._labels = list(labels)
    self._model = model

  def expand(self, reports: beam.PCollection) -> beam.PCollection:
    return (
      reports
      | "CountsOfShard" >> beam.Map(_counts_of, self._model)
      # LabelCounts
      | "MergeCounts" >> beam.CombineGlobally(LabelStatsFn(self._labels))
    )  # ModelMetrics


def _counts_of(report: ShardReport, model: str) -> LabelCounts:
  return LabelCounts.from_json(report.extra[_COUNTS][model])


class LabelStatsFn(beam.CombineFn):
  """Combines `LabelCounts` to `ModelMetrics` with `label_stats`."""

  def __init__(self, labels: Sequence[str]):
    self._labels = list(labels)

  def create_accumulator(self) -> LabelCounts:
    return label_stats.create()

  def add_input(self, accumulator: LabelCounts, counts: LabelCounts) -> LabelCounts:
    return label_stats.merge([accumulator, counts])

  def merge_accumulators(self, accumulators: Iterable[LabelCounts]) -> LabelCounts:
    return label_stats.merge(accumulators)

  def extract_output(self, accumulator: LabelCounts) -> ModelMetrics:
    return label_stats.extract(accumulator, self._labels)


class WritePredictions(beam.PTransform):
  """Joins the shards' files to `predictions.csv`; writes `suspicious_labels.csv`.

  PCollection[ShardReport] -> PCollection of one `PredictionsWritten`.

  Attributes:
    execution_time: start of the job, as from `time.ctime()`.
  """

  def __init__(self, *, parts_folder: str, output: str, models: Sequence[str], execution_time: str):
    super().__init__()
    self._arguments = (parts_folder, output, list(models), execution_time)

  def expand(self, reports: beam.PCollection) -> beam.PCollection:
    return (
      reports
      | "NameOfPart" >> beam.Map(lambda report: report.file)
      | "CollectNames" >> beam.combiners.ToList()
      # list of str, one per shard
      | "JoinParts" >> beam.Map(_join_parts, *self._arguments)
    )  # PredictionsWritten


def _join_parts(
  names: list[str], parts_folder: str, output: str, models: Sequence[str], execution_time: str
) -> PredictionsWritten:
  mistakes = {model: Mistakes() for model in models}
  with ExitStack() as stack:
    written = {}
    for model in models:
      path = files.join(folder_of(output, model), PREDICTIONS_FILE)
      files.make_folder(folder_of(output, model))
      written[model] = stack.enter_context(files.write_atomically(path))
      written[model].write(HEADER.encode())
    for name in sorted(names):
      for model, cells in read_part_cells(files.read_lines(files.join(parts_folder, name))):
        written[model].write(whole_line(cells, execution_time).encode())
        mistakes[model].add(row_of(cells))
  for model, seen in mistakes.items():
    lines = [csv_line(SUSPICIOUS_COLUMNS)]
    lines += [csv_line([row.key, row.actual, row.predicted, row.confidence, row.sha256]) for row in seen.suspicious()]
    files.write_text(files.join(folder_of(output, model), SUSPICIOUS_FILE), "".join(lines))
  chosen = {
    "mistakes": [(model, row) for model in models for row in mistakes[model].shown(MAX_SHOWN // len(models))],
    "suspicious": [
      (model, row) for model in models for row in mistakes[model].suspicious(MAX_SHOWN_SUSPICIOUS // len(models))
    ],
  }
  return PredictionsWritten(
    {kind: [shown_image(model, row) for model, row in rows] for kind, rows in chosen.items()},
    {model: SuspiciousLabels(SUSPICIOUS_PERCENT / 100, seen.suspicious_count) for model, seen in mistakes.items()},
  )


class WriteFigures(beam.PTransform):
  """Writes `per_label.csv`, `confusion_matrix.csv` and `figures.json`.

  PCollection of one `Stats` -> PCollection of one str, the path of `figures.json`.

  Attributes:
    thumbnails: PCollection of one dict, key -> data URI.
    compared: PCollection of one `NightsCompared`, or None.
  """

  def __init__(
    self,
    *,
    parts_folder: str,
    output: str,
    stats: Mapping[str, beam.PCollection],
    predictions: beam.PCollection,
    thumbnails: beam.PCollection,
    compared: beam.PCollection | None = None,
  ):
    super().__init__()
    self._parts_folder = parts_folder
    self._output = output
    self._stats = dict(stats)
    self._sides = {"predictions": predictions, "thumbnails": thumbnails}
    if compared is not None:
      self._sides["compared"] = compared

  def expand(self, ledger: beam.PCollection) -> beam.PCollection:
    sides = {name: beam.pvalue.AsSingleton(side) for name, side in {**self._sides, **self._stats}.items()}
    return ledger | "WriteFigures" >> beam.Map(
      _write_figures, self._parts_folder, self._output, list(self._stats), **sides
    )  # str


# `stats` has no annotation: Beam takes one for the type of the whole dict.
def _write_figures(  # type: ignore[no-untyped-def]
  ledger: Stats,
  parts_folder: str,
  output: str,
  models: Sequence[str],
  *,
  predictions: PredictionsWritten,
  thumbnails: dict[str, str],
  compared: NightsCompared = _NOTHING_COMPARED,
  **stats,
) -> str:
  figures = {}
  for model in models:
    folder = folder_of(output, model)
    files.write_text(files.join(folder, PER_LABEL_FILE), label_stats.per_label_csv(stats[model]))
    files.write_text(files.join(folder, CONFUSION_FILE), label_stats.confusion_csv(stats[model]))
    figures[model] = dataclasses.replace(
      stats[model],
      suspicious=predictions.suspicious[model],
      comparison=compared.comparison.get(model),
      slices=compared.slices.get(model),
    )
  quarantined = QuarantineCounts(ledger.quarantined, dict(ledger.reasons))
  figures[MODEL] = dataclasses.replace(figures[MODEL], quarantined=quarantined)
  images = {
    kind: [dataclasses.replace(image, thumbnail=thumbnails.get(image.key)) for image in shown]
    for kind, shown in {**predictions.images, **compared.images}.items()
  }
  path = files.join(parts_folder, FIGURES_FILE)
  files.write_text(path, JobFigures(figures, images).to_json() + "\n")
  return path
