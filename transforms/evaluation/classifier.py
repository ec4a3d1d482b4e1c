"""`EvaluateClassifier`, a transform from planned shards to evaluation figures."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping, Sequence

import apache_beam as beam

from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.bottlenecks.reuse import EmbedOnlyNew
from beam_retrain.transforms.core.corrections import Correcting
from beam_retrain.transforms.core.metrics import label_stats
from beam_retrain.transforms.core.metrics.figures import MODEL
from beam_retrain.transforms.core.records.schema import parse_shard_name
from beam_retrain.transforms.core.records.shards import ORIENTED, Shard, ShardReport, some_oriented
from beam_retrain.transforms.core.run import contents
from beam_retrain.transforms.core.system.locks import claim_of
from beam_retrain.transforms.evaluation.compare_nights import PARTS_FOLDER, CompareNights
from beam_retrain.transforms.evaluation.evaluate import (
  EvaluateShard,
  before_of,
  check_not_empty,
  compare_hashes,
  counts_of,
  read_thumbnails,
  vectors_of,
  write_figures,
  write_predictions,
)
from beam_retrain.transforms.evaluation.label_errors import find_label_errors
from beam_retrain.transforms.evaluation.scoring import Scorer
from beam_retrain.transforms.io import files
from beam_retrain.transforms.leaks.audit import AuditPredictions
from beam_retrain.transforms.shards.ledger import CloseLedger, mark_completed
from beam_retrain.transforms.shards.work import WorkShards
from beam_retrain.transforms.sources.records import RecordsFile

FRESH_FOLDER = ".fresh"
SCORED_FOLDER = ".scored"
"""In a store: the shards' predictions, from which another evaluation copies those of equal bottlenecks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrunkStore:
  """A folder for the bottlenecks of all images by one trunk.

  `reuse`: stores of the same trunk to copy from; `request`: digest of what determines the records' bytes.
  """

  folder: str
  handler: ImageModelHandler
  reuse: Sequence[str]
  request: str

  @property
  def records_folder(self) -> str:
    return files.join(self.folder, "records")

  @property
  def fresh_folder(self) -> str:
    """Folder of the newly computed bottlenecks, temporary."""
    return files.join(self.folder, FRESH_FOLDER)


class EvaluateClassifier(beam.PTransform):
  """Scores images and writes predictions, confusion, figures and comparisons.

  PCollection[Shard] -> PCollection of one str, the path of `figures.json` (`JobFigures`).

  ```python
  with beam.Pipeline() as pipeline:
    shards = pipeline | find_source("flowers").plan(("all",), None)
    scorer = ScoreImages(ImageModelHandler("model/saved_model"), labels)
    shards | EvaluateClassifier(scorer=scorer, models={"model": labels}, output="evaluation", request="1")
  ```

  Attributes:
    scorer: computes the scores. With `stores` it reads their records, one file per store; else the shards' inputs.
    models: name -> label list, in the order of the scores; the first is `model`.
    request: digest, or any text, of what determines the scores; shards with the same one are resumed.
    trained_on: name -> path of the model's `trained_on.bin`, if it has one.
    stores: bottlenecks to compute or reuse first.
    finds_leaks: whether to list identical images in `leaks.csv`.
    finds_errors: whether to look for label errors and near-duplicates too, in the records of the first trunk.
    corrections: of labels, after the scores are known.
    scored_labels: labels of images that may be corrected besides the models' own.
    empty_message: of the InputError that the job raises if there are no images.

  Raises:
    ValueError: `models` does not start with `model`, has an unusable label list, or `output` is empty.
  """

  def __init__(
    self,
    *,
    scorer: Scorer,
    models: Mapping[str, Sequence[str]],
    output: str,
    request: str,
    trained_on: Mapping[str, str] | None = None,
    stores: Sequence[TrunkStore] = (),
    compare: CompareNights | None = None,
    finds_leaks: bool = False,
    finds_errors: bool = False,
    corrections: Correcting | None = None,
    scored_labels: Sequence[str] = (),
    empty_message: str = "there are no images to evaluate: give another input.",
  ):
    super().__init__()
    if next(iter(models), None) != MODEL:
      raise ValueError(f"the first model must be called {MODEL!r}, not {next(iter(models), None)!r}")
    for name, labels in models.items():
      if not labels or len(set(labels)) < len(labels):
        raise ValueError(f"the label list of {name!r} is empty or repeats a label: {list(labels)}")
    if not output:
      raise ValueError("the output folder is empty")
    self.output = output
    self.stores = tuple(stores)
    self._scorer = scorer
    self._models = {name: tuple(labels) for name, labels in models.items()}
    self._request = request
    self._trained_on = dict(trained_on or {})
    self._compare = compare
    self._finds_leaks = finds_leaks or finds_errors
    self._finds_errors = finds_errors
    self._corrections = corrections
    self._scored_labels = tuple(scored_labels)
    self._empty_message = empty_message

  @property
  def parts_folder(self) -> str:
    """Folder of the shards' predictions, temporary."""
    return files.join(self.output, PARTS_FOLDER)

  @property
  def longest_work_folder(self) -> str:
    """Folder whose shards show the progress: the first trunk's, if any."""
    return self.stores[0].fresh_folder if self.stores else self.parts_folder

  def expand(self, shards: beam.PCollection) -> beam.PCollection:
    checked = check_not_empty(shards, self._empty_message)
    to_score = self._embed(shards, checked) if self.stores else shards
    # Shard
    task = EvaluateShard(self._scorer, self._models, self._trained_on, self._corrections)
    work = WorkShards(task, output=self.parts_folder, request=self._request, checked=checked, earlier=self._earlier())
    reports = to_score | "Work" >> work
    # ShardReport
    found, errors = {}, None
    if self._finds_errors:
      errors = (
        to_score
        | "CollectRecords" >> beam.combiners.ToList()
        | "FindLabelErrors" >> beam.Map(find_label_errors, self._models[MODEL], self._corrections)
      )  # LabelErrors
      found = {"errors": beam.pvalue.AsSingleton(errors)}
    predictions = (
      reports
      | "NameOfPart" >> beam.Map(lambda report: report.file)
      | "CollectNames" >> beam.combiners.ToList()
      # list of str, one per shard
      | "WritePredictions"
      >> beam.Map(write_predictions, self.output, list(self._models), list(self._trained_on), time.ctime(), **found)
    )  # PredictionsWritten
    shown = {"predictions": beam.pvalue.AsSingleton(predictions)}
    if self._compare:
      shown["compared"] = beam.pvalue.AsSingleton(reports | "Compare" >> self._compare)  # NightsCompared
    thumbnails = shards | "ReadThumbnails" >> beam.FlatMap(read_thumbnails, **shown, **found)  # (key, str)
    counts = (
      reports
      | "CountsOfShard" >> beam.FlatMap(counts_of)
      # (model, LabelCounts)
      | "MergeCounts" >> beam.CombinePerKey(label_stats.merge)
    )
    vectors = reports | "VectorsOfShard" >> beam.FlatMap(vectors_of)  # SampledVector
    before = {}
    if self._corrections:
      merged = (
        reports | "BeforeOfShard" >> beam.FlatMap(before_of) | "MergeBefore" >> beam.CombinePerKey(label_stats.merge)
      )
      before["before"] = beam.pvalue.AsDict(merged)
    leaks = None
    if self._finds_leaks:
      leaks = reports | "Audit" >> AuditPredictions(self.parts_folder, self._models[MODEL])  # LeakedImage
    if errors is not None:
      near = errors | "CompareHashes" >> beam.FlatMap(compare_hashes, beam.pvalue.AsDict(thumbnails))
      leaks = (leaks, near) | "JoinLeaks" >> beam.Flatten()  # LeakedImage
    close = CloseLedger(output=self.output, shards_folder=self.parts_folder, leaks=leaks, corrections=self._corrections)
    ledger = (shards, reports) | "Close" >> close
    # Stats
    return ledger | "WriteFigures" >> beam.Map(
      write_figures,
      self.output,
      self._models,
      counts=beam.pvalue.AsDict(counts),
      thumbnails=beam.pvalue.AsDict(thumbnails),
      vectors=beam.pvalue.AsList(vectors),
      **shown,
      **before,
    )  # str

  def _earlier(self) -> list[str]:
    """Returns folders of predictions that are as they were written."""
    reused = self.stores[0].reuse if self.stores else ()
    folders = [files.join(store, SCORED_FOLDER) for store in reused if files.is_local(store)]
    return [folder for folder in folders if not any(contents.find_faults(folder, files))]

  def _embed(self, shards: beam.PCollection, checked: beam.PCollection) -> beam.PCollection:
    """Fills the stores; returns PCollection[Shard] of one record file per store."""
    written = {}
    for number, store in enumerate(self.stores):
      name = f"[{number}]"
      reports = shards | f"Embed{name}" >> EmbedOnlyNew(
        handler=store.handler,
        labels=[*self._models[MODEL], *self._scored_labels],
        stores=store.reuse,
        output=store.records_folder,
        fresh_folder=store.fresh_folder,
        request=store.request,
        checked=checked,
      )
      # ShardReport
      ledger = (shards, reports) | f"CloseStore{name}" >> CloseLedger(
        output=store.folder, shards_folder=store.records_folder
      )
      # 1.0: the evaluation itself limits the fraction of bad images.
      _ = ledger | f"MarkStore{name}" >> beam.Map(mark_completed, claim_of(store.folder), 1.0)
      written[number] = reports | f"RecordsOfShard{name}" >> beam.Map(_records_of, store.records_folder)
      # (shard's file name, (RecordsFile, text))
    joined = written | "JoinStores" >> beam.CoGroupByKey()
    return joined | "ShardOfRecords" >> beam.Map(_shard_of, self._request)  # Shard


def _records_of(report: ShardReport, folder: str) -> tuple[str, tuple[RecordsFile, str]]:
  """Returns a shard's name and (its records, what decides their scores)."""
  stat = files.stat(files.join(folder, report.file))
  assert stat is not None, f"{report.file} is missing"
  oriented = some_oriented(report.extra.get(ORIENTED, 0))
  return report.file, (RecordsFile(*stat), dataclasses.replace(report, digest="", extra=oriented).to_json())


def _shard_of(joined: tuple[str, Mapping[int, Sequence[tuple[RecordsFile, str]]]], request: str) -> Shard:
  """Returns a shard of records, whose contents identify it, wherever they are."""
  name, records = joined
  parsed = parse_shard_name(name)
  assert parsed is not None, f"{name} is no shard name"
  inputs, reports = zip(*(each for number in sorted(records) for each in records[number]), strict=True)
  return Shard(*parsed, inputs, same_as=hashlib.sha256(json.dumps([request, *reports]).encode()).hexdigest())
