"""The steps of an evaluation: predictions, counts, thumbnails and figures.

The figures go to one file, `figures.json`, which the command reads and judges.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.utils.shared import Shared

from beam_retrain.transforms.core.corrections import Correcting, no_class
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.thumbnails import perceptual_hash, thumbnail
from beam_retrain.transforms.core.metrics import label_stats
from beam_retrain.transforms.core.metrics.embedding_map import EmbeddingMap, SampledVector, VectorSample, project
from beam_retrain.transforms.core.metrics.figures import (
  MODEL,
  Accuracy,
  CorrectionFigures,
  ModelMetrics,
  QuarantineCounts,
  ShownImage,
  SuspiciousLabels,
)
from beam_retrain.transforms.core.metrics.label_stats import LabelCounts, Outcome
from beam_retrain.transforms.core.metrics.metrics_file import model_from_json, model_to_json
from beam_retrain.transforms.core.metrics.predictions import (
  HEADER,
  HEADER_TRAINED_ON,
  MAX_SHOWN,
  MAX_SHOWN_RIGHT,
  MAX_SHOWN_SUSPICIOUS,
  SUSPICIOUS_PERCENT,
  Mistakes,
  Scored,
  part_line,
  predict,
  read_part,
  row_of,
  shown_image,
  whole_line,
)
from beam_retrain.transforms.core.records.csv_format import csv_text, escape_cell
from beam_retrain.transforms.core.records.leaks import LeakedImage
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import Image
from beam_retrain.transforms.core.records.shards import Shard, ShardReport, some_oriented
from beam_retrain.transforms.core.records.trained_on import TrainedOn
from beam_retrain.transforms.core.run.stats import Stats
from beam_retrain.transforms.core.system.small_files import parse_json
from beam_retrain.transforms.evaluation.compare_nights import PARTS_FOLDER, NightsCompared
from beam_retrain.transforms.evaluation.label_errors import LabelErrors
from beam_retrain.transforms.evaluation.scoring import Scorer
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.work import ShardTask, Written

PREDICTIONS_FILE = "predictions.csv"
PER_LABEL_FILE = "per_label.csv"
CONFUSION_FILE = "confusion_matrix.csv"
SUSPICIOUS_FILE = "suspicious_labels.csv"
FIGURES_FILE = "figures.json"

_COUNTS = "label_counts"
_BEFORE = "label_counts_before"  # they are corrected
_VECTORS = "vectors"
_NOTHING_COMPARED = NightsCompared()
_MAX_HASH_DISTANCE = 10
"""Bits of 64 by which perceptual hashes of near-duplicates may differ."""


def folder_of(output: str, model: str) -> str:
  """Returns the folder of a model's files; a candidate has its own."""
  return output if model == MODEL else files.join(output, model)


class PredictionsWritten(NamedTuple):
  """Images to show (`mistakes`, `suspicious`, `right`) and counts by model."""

  images: Mapping[str, Sequence[ShownImage]]
  suspicious: Mapping[str, SuspiciousLabels]


class JobFigures(NamedTuple):
  """The contents of `figures.json`, from a job to its command."""

  models: Mapping[str, ModelMetrics]  # figures by model, without gates
  # To show in the report, by `mistakes`, `suspicious`, `right`, `regressed` and `fixed`
  images: Mapping[str, Sequence[ShownImage]]
  map: EmbeddingMap = EmbeddingMap()  # of the model's bottlenecks, if it saw some

  def to_json(self) -> str:
    return json.dumps(
      {
        "models": {name: model_to_json(model) for name, model in self.models.items()},
        "images": {kind: [dataclasses.asdict(image) for image in images] for kind, images in self.images.items()},
        "map": dataclasses.asdict(self.map),
      }
    )

  @classmethod
  def from_json(cls, text: bytes) -> JobFigures:
    entries = json.loads(text)
    return cls(
      {name: model_from_json(model) for name, model in entries["models"].items()},
      {kind: [ShownImage(**image) for image in images] for kind, images in entries["images"].items()},
      parse_json(EmbeddingMap, entries["map"]),
    )


class EvaluateShard(ShardTask):
  """Writes a shard's predictions, and each model's `LabelCounts` in its report.

  `models`: name -> label list, in the order of the scores. `trained_on`: name -> path of `trained_on.bin`, if any.
  """

  suffix = "csv"

  def __init__(
    self,
    scorer: Scorer,
    models: Mapping[str, Sequence[str]],
    trained_on: Mapping[str, str],
    corrections: Correcting | None = None,
  ):
    self._corrections = corrections
    self._before: dict[str, LabelCounts] = {}
    self._scorer = scorer
    self._models = models
    self._trained_on = {name: (path, Shared()) for name, path in trained_on.items()}
    self._images: dict[str, TrainedOn] = {}
    self._counts: dict[str, LabelCounts] = {}
    self._sample = VectorSample(1)

  def setup(self) -> None:
    self._scorer.setup()
    for name, (path, shared) in self._trained_on.items():
      self._images[name] = shared.acquire(functools.partial(_read_trained_on, path), tag=path)

  def kind(self) -> str:
    return self._scorer.kind()

  def work(self, shard: Shard) -> Iterator[Written | Quarantined]:
    self._counts = {name: LabelCounts() for name in self._models}
    self._before = {name: LabelCounts() for name in self._models if self._corrections}
    self._corrections = self._corrections and self._corrections.begun()
    self._sample = VectorSample(shard.of)
    for scores in self._scorer.score(shard):
      item = scores if isinstance(scores, Quarantined) else self._correct(scores)
      if isinstance(item, Quarantined):
        yield item.in_split(shard.split)
        continue
      lines = []
      for (name, labels), scored in zip(self._models.items(), item, strict=True):
        prediction = predict(scored, labels)
        trained_on = self._was_trained_on(name, scored)
        label_stats.add(self._counts[name], prediction.outcome, *trained_on)
        if name == MODEL and scored.vector is not None:
          self._sample.add(scored.key, scored.sha256, prediction.outcome, scored.vector)
        lines.append(part_line(name, prediction, shard.split, *trained_on))
      yield Written(item[0].actual, b"".join(lines))

  def _was_trained_on(self, name: str, scored: Scored) -> list[bool | None]:
    """Returns whether a model was, None without a SHA-256; empty: unknown."""
    images = [self._images[name]] if name in self._images else []
    return [scored.sha256 in known if scored.sha256 else None for known in images]

  def _correct(self, scores: tuple[Scored, ...]) -> tuple[Scored, ...] | Quarantined:
    """Corrects an image's label, once it is counted with that of before."""
    if self._corrections is None:
      return scores
    for (name, labels), scored in zip(self._models.items(), scores, strict=True):
      outcome = Outcome(scored.actual, labels[int(np.argmax(scored.scores))])
      label_stats.add(self._before[name], outcome, *self._was_trained_on(name, scored))
    key, label, sha256, *_ = scores[0]
    now = self._corrections.label_of(key, label, *([sha256] if sha256 else []))
    if now is None:
      return no_class(key, 0)
    if any(now not in labels for labels in self._models.values()):
      return Quarantined(key, 0, Reason.BAD_LABEL, f"label {now!r} is none of the model's")
    return tuple(scored._replace(actual=now) for scored in scores)

  def extra(self) -> Mapping[str, Any]:
    corrected = self._corrections.to_extra() if self._corrections else {}
    before = {_BEFORE: {name: counts.to_json() for name, counts in self._before.items()}} if corrected else {}
    return {
      **corrected,
      **before,
      _COUNTS: {name: counts.to_json() for name, counts in self._counts.items()},
      _VECTORS: self._sample.to_json(),
      **some_oriented(self._scorer.oriented),
    }


def _read_trained_on(path: str) -> TrainedOn:
  return TrainedOn.decode(files.read_bytes(path), path)


def check_not_empty(shards: beam.PCollection, message: str) -> beam.PCollection:
  """Fails without shards: PCollection[Shard] -> PCollection of their number.

  `message` is that of the InputError.
  """
  return shards | "CountShards" >> beam.combiners.Count.Globally() | "CheckNotEmpty" >> beam.Map(_check_count, message)


def _check_count(count: int, message: str) -> int:
  if not count:
    raise InputError(message)
  return count


def counts_of(report: ShardReport) -> Iterator[tuple[str, LabelCounts]]:
  """Yields (model, its counts) of a shard that `EvaluateShard` evaluated."""
  for model, counts in report.extra[_COUNTS].items():
    yield model, LabelCounts.from_json(counts)


def before_of(report: ShardReport) -> Iterator[tuple[str, LabelCounts]]:
  """Yields (model, counts with uncorrected labels), if there are corrections."""
  for model, counts in report.extra.get(_BEFORE, {}).items():
    yield model, LabelCounts.from_json(counts)


def vectors_of(report: ShardReport) -> Iterator[SampledVector]:
  """Yields the bottlenecks that `EvaluateShard` drew."""
  for sampled in report.extra.get(_VECTORS, ()):
    yield SampledVector(*sampled)


def write_predictions(
  names: list[str],
  output: str,
  models: Sequence[str],
  known: Collection[str],
  execution_time: str,
  errors: LabelErrors | None = None,
) -> PredictionsWritten:
  """Joins the shards' files to `predictions.csv`; writes `suspicious_labels.csv`.

  `known`: models with known training images; `execution_time`: start of the job, as from `time.ctime()`.
  """
  mistakes = {model: Mistakes(errors.labels if errors else None) for model in models}
  with ExitStack() as stack:
    written = {}
    for model in models:
      path = files.join(folder_of(output, model), PREDICTIONS_FILE)
      files.make_folder(folder_of(output, model))
      written[model] = stack.enter_context(files.write_atomically(path))
      written[model].write((HEADER_TRAINED_ON if model in known else HEADER).encode())
    for name in sorted(names):
      for model, cells in read_part(files.read_lines(files.join(output, PARTS_FOLDER, name))):
        written[model].write(whole_line(cells, execution_time).encode())
        mistakes[model].add(row_of(cells))
  for model, seen in mistakes.items():
    files.write_text(files.join(folder_of(output, model), SUSPICIOUS_FILE), csv_text(seen.suspicious_table()))
  chosen = {
    "mistakes": [(model, row) for model in models for row in mistakes[model].shown(MAX_SHOWN // len(models))],
    "suspicious": [
      (model, row) for model in models for row in mistakes[model].suspicious(MAX_SHOWN_SUSPICIOUS // len(models))
    ],
    "right": [(MODEL, row) for row in mistakes[MODEL].right(MAX_SHOWN_RIGHT)],
  }
  return PredictionsWritten(
    {kind: [shown_image(model, row) for model, row in rows] for kind, rows in chosen.items()},
    {
      model: SuspiciousLabels(SUSPICIOUS_PERCENT / 100, seen.suspicious_count, len(errors.labels) if errors else None)
      for model, seen in mistakes.items()
    },
  )


def read_thumbnails(
  shard: Shard,
  predictions: PredictionsWritten,
  compared: NightsCompared = _NOTHING_COMPARED,
  errors: LabelErrors | None = None,
) -> Iterator[tuple[str, str]]:
  """Yields (key as in the CSVs, `data:` URI) of images to show."""
  shown = [*predictions.images.values(), *compared.images.values()]
  wanted = {image.key for images in shown for image in images}
  wanted |= {escape_cell(key) for near in (errors.alike if errors else ()) for key in (near.key, near.like)}
  for entry in shard.inputs:
    for image in entry.read_where(shard.split, lambda key: escape_cell(key) in wanted):
      # An image deleted meanwhile has no thumbnail.
      if isinstance(image, Image) and (small := thumbnail(image.encoded)):
        yield escape_cell(image.key), small


def compare_hashes(errors: LabelErrors, thumbnails: Mapping[str, str]) -> Iterator[LeakedImage]:
  """Yields near-duplicates, but those whose perceptual hashes are unlike."""
  for near in errors.alike:
    both = [thumbnails.get(escape_cell(key)) for key in (near.key, near.like)]
    hashes = [perceptual_hash(one) for one in both if one]
    distance = (hashes[0] ^ hashes[1]).bit_count() if len(hashes) == 2 else None
    if distance is None or distance <= _MAX_HASH_DISTANCE:
      yield near._replace(hash_distance=distance)


def write_figures(
  ledger: Stats,
  output: str,
  models: Mapping[str, Sequence[str]],
  *,
  counts: Mapping[str, LabelCounts],
  thumbnails: Mapping[str, str],
  predictions: PredictionsWritten,
  compared: NightsCompared = _NOTHING_COMPARED,
  vectors: Sequence[SampledVector] = (),
  before: Mapping[str, LabelCounts] | None = None,
) -> str:
  """Writes `per_label.csv`, `confusion_matrix.csv` and `figures.json`.

  Returns the path of `figures.json`. `models`: name -> label list; `before`: counts with labels that are corrected now.
  """
  figures = {}
  for model, labels in models.items():
    folder, stats = folder_of(output, model), label_stats.extract(counts[model], labels)
    files.write_text(files.join(folder, PER_LABEL_FILE), label_stats.per_label_csv(stats))
    files.write_text(files.join(folder, CONFUSION_FILE), label_stats.confusion_csv(stats))
    figures[model] = dataclasses.replace(
      stats,
      suspicious=predictions.suspicious[model],
      comparison=compared.comparison.get(model),
      reference=compared.reference.get(model),
      slices=compared.slices.get(model),
      corrections=_corrected(ledger, before[model], labels) if before else None,
    )
  quarantined = QuarantineCounts(ledger.quarantined, dict(ledger.reasons))
  figures[MODEL] = dataclasses.replace(figures[MODEL], quarantined=quarantined)
  images = {
    kind: [dataclasses.replace(image, thumbnail=thumbnails.get(image.key)) for image in shown]
    for kind, shown in {**predictions.images, **compared.images}.items()
  }
  path = files.join(output, PARTS_FOLDER, FIGURES_FILE)
  files.write_text(path, JobFigures(figures, images, project(vectors)).to_json() + "\n")
  return path


def _corrected(ledger: Stats, before: LabelCounts, labels: Sequence[str]) -> CorrectionFigures:
  counts = ledger.corrections or {}
  all_labels = sorted({*labels, *(label for label, _ in before.confusion)})
  main = label_stats.extract(before, all_labels).main
  return CorrectionFigures(counts["relabelled"], counts["dropped"], Accuracy.of(main.correct, main.total))
