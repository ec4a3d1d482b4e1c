"""`ComputeBottlenecks`, a transform from planned shards to finished bottlenecks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import apache_beam as beam

from beam_retrain.transforms.bottlenecks.analyze import AnalyzeBottlenecks
from beam_retrain.transforms.bottlenecks.augment import DistortShard
from beam_retrain.transforms.bottlenecks.embed import EmbedShard
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.bottlenecks.reuse import EmbedOnlyNew
from beam_retrain.transforms.core.corrections import Correcting
from beam_retrain.transforms.core.images.augment import DISTORTED, Distortions, count_distorted
from beam_retrain.transforms.core.records.quarantine import OnLeak
from beam_retrain.transforms.core.records.schema import PREPROCESSING_VERSION, RECORDS_FOLDER, TRAINING
from beam_retrain.transforms.core.records.shards import ShardReport
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.run_info import request_digest
from beam_retrain.transforms.core.runtimes.trunk_info import TrunkInfo
from beam_retrain.transforms.core.system.locks import claim_of
from beam_retrain.transforms.io import files
from beam_retrain.transforms.leaks.audit import Planned, SplitAudit
from beam_retrain.transforms.shards.kinds import check_kinds
from beam_retrain.transforms.shards.ledger import CloseLedger, delete_strays, mark_completed
from beam_retrain.transforms.shards.work import WorkShards

FRESH_FOLDER = ".fresh"
TRANSFORM_FOLDER = "transform"


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class ComputeBottlenecks(beam.PTransform):
  """Computes, stores, scales and audits bottlenecks.

  PCollection[Shard] -> PCollection of one `Stats`. The scaling is learned from the training images with
  tensorflow-transform. A killed run can be resumed.

    p | source.plan((TRAINING, TESTING), percentages) | ComputeBottlenecks(handler, labels=source.labels, ...)

  Attributes:
    handler: the trunk, by a path that all workers read.
    labels: class index -> label.
    output: folder for `records/`, `transform/`, `stats.json`, `quarantine.csv`, `leaks.csv` and `COMPLETED`.
    trunk: fingerprint and length of a bottleneck.
    percentages: used to plan the shards; selects validation images.
    on_leak: `FAIL` only reports leaks here, like `WARN`.
    stores: folders with bottlenecks of the same trunk, to copy from.
    distortions: of training images; the variants go to `distorted/`.
    max_bad_fraction: 0..1; with more bad images, `COMPLETED` is not written.
    request: digest of everything but the images that determines the records; computed by default.
    corrections: those that the shards bring along, for the ledger.

  Raises:
    ValueError: `labels` are empty or repeat, or `max_bad_fraction` is out of range.
  """

  handler: ImageModelHandler = dataclasses.field(kw_only=False)
  labels: Sequence[str]
  output: str
  trunk: TrunkInfo
  percentages: SplitPercentages = dataclasses.field(default_factory=SplitPercentages)
  on_leak: OnLeak = OnLeak.WARN
  stores: Sequence[str] = ()
  distortions: Distortions | None = None
  max_bad_fraction: float = 0.0
  request: str = ""
  corrections: Correcting | None = None

  def __post_init__(self) -> None:
    if not self.labels or len(set(self.labels)) != len(self.labels):
      raise ValueError(f"labels are {list(self.labels)}, must be at least one, each once")
    if not 0 <= self.max_bad_fraction <= 1:
      raise ValueError(f"max_bad_fraction is {self.max_bad_fraction}, must be in 0..1")
    handler = self.handler
    self._audit = SplitAudit(self.on_leak, self.labels, self.percentages, handler.max_pixels, handler.thread_limits)
    self._settings = record_settings(handler, self.trunk.fingerprint, self.percentages, self.labels)
    self._request = self.request or request_digest("bottlenecks", self._settings)

  @property
  def records_folder(self) -> str:
    return files.join(self.output, RECORDS_FOLDER)

  def expand(self, shards: beam.PCollection) -> beam.PCollection:
    planned = self._audit.plan(shards)
    reports = planned.shards | "Work" >> self._work(planned.checked)
    # ShardReport
    variants = self._embed_variants(planned, reports, self.distortions) if self.distortions else None
    return self.close(planned, reports, variants)

  def _embed_variants(self, planned: Planned, reports: beam.PCollection, distortions: Distortions) -> beam.PCollection:
    """Embeds the training images' variants; returns PCollection of one dict, `Stats.distorted`."""
    output = files.join(self.output, DISTORTED)
    work = WorkShards(
      DistortShard(self.handler, self.labels, self.percentages, distortions),
      output=output,
      request=request_digest(DISTORTED, {**self._settings, "distortions": distortions.to_settings()}),
      checked=planned.checked,
      earlier=[files.join(store, DISTORTED) for store in self.stores],
    )
    return (
      planned.shards
      | "TrainingShards" >> beam.Filter(lambda shard: shard.split == TRAINING)
      # Shard
      | "Distort" >> work
      # ShardReport
      | "CollectVariants" >> beam.combiners.ToList()
      # list of ShardReport
      | "CloseVariants" >> beam.Map(_close_variants, output, distortions, beam.pvalue.AsList(reports))
    )  # dict

  def _work(self, checked: beam.PCollection) -> beam.PTransform:
    if not self.stores:
      task = EmbedShard(self.handler, self.labels)
      return WorkShards(task, output=self.records_folder, request=self._request, checked=checked)
    return EmbedOnlyNew(
      handler=self.handler,
      labels=self.labels,
      stores=self.stores,
      output=self.records_folder,
      fresh_folder=files.join(self.output, FRESH_FOLDER),
      request=self._request,
      checked=checked,
    )

  def close(
    self, planned: Planned, reports: beam.PCollection, variants: beam.PCollection | None = None
  ) -> beam.PCollection:
    """Adds analysis, audit and ledger; returns a PCollection of one `Stats`.

    `variants`: PCollection of one dict, `Stats.distorted`, if there are distortions.
    """
    transform = reports | "Analyze" >> AnalyzeBottlenecks(
      records_folder=self.records_folder,
      output=files.join(self.output, TRANSFORM_FOLDER),
      trunk=self.trunk,
      labels=self.labels,
    )
    leaks = self._audit.audit(planned, reports, self.records_folder)
    return (
      (planned.shards, reports)
      | "Close"
      >> CloseLedger(
        output=self.output,
        shards_folder=self.records_folder,
        leaks=leaks,
        distorted=variants,
        corrections=self.corrections,
      )
      # Stats
      | "MarkCompleted"
      >> beam.Map(mark_completed, claim_of(self.output), self.max_bad_fraction, beam.pvalue.AsList(transform))
    )  # Stats


def _close_variants(
  variant_reports: list[ShardReport], folder: str, distortions: Distortions, reports: list[ShardReport]
) -> dict[str, int]:
  check_kinds(variant_reports)
  counts = count_distorted(distortions, reports, variant_reports)
  delete_strays(folder, {report.file for report in variant_reports})
  return counts


def record_settings(
  handler: ImageModelHandler, trunk_fingerprint: str, percentages: SplitPercentages, labels: Sequence[str]
) -> dict[str, Any]:
  """Returns what decides the records' bytes besides the images, JSON values."""
  return {
    "trunk_fingerprint": trunk_fingerprint,
    "preprocessing": PREPROCESSING_VERSION,
    **percentages.to_settings(),
    "max_pixels": handler.max_pixels,
    "batch_size": handler.batch_size,
    "labels": list(labels),
  }
