"""`ComputeBottlenecks`, a transform from planned shards to finished bottlenecks."""

from __future__ import annotations

from collections.abc import Sequence

import apache_beam as beam

from beam_retrain.transforms.bottlenecks.augment import EmbedVariants
from beam_retrain.transforms.bottlenecks.embed import EmbedShard
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.bottlenecks.reuse import EmbedOnlyNew
from beam_retrain.transforms.core.images.augment import DISTORTED, Distortions
from beam_retrain.transforms.core.records.leaks import OnLeak
from beam_retrain.transforms.core.records.schema import PREPROCESSING_VERSION, RECORDS_FOLDER, REPORTS_FOLDER
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.run_info import request_digest
from beam_retrain.transforms.core.runtimes.trunk_info import TrunkInfo
from beam_retrain.transforms.io import files
from beam_retrain.transforms.leaks.audit import Planned, SplitAudit
from beam_retrain.transforms.shards.ledger import CloseLedger, mark_completed
from beam_retrain.transforms.shards.work import WorkShards

FRESH_FOLDER = ".fresh"
TRANSFORM_FOLDER, TEMP_FOLDER = "transform", "temp"


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
    scratch: folder that all workers share, if TensorFlow cannot write to a remote `output`.

  Raises:
    ValueError: `labels` are empty or repeat, or `max_bad_fraction` is out of range.
  """

  def __init__(
    self,
    handler: ImageModelHandler,
    *,
    labels: Sequence[str],
    output: str,
    trunk: TrunkInfo,
    percentages: SplitPercentages | None = None,
    on_leak: OnLeak = OnLeak.WARN,
    stores: Sequence[str] = (),
    distortions: Distortions | None = None,
    max_bad_fraction: float = 0.0,
    request: str = "",
    scratch: str = "",
  ):
    super().__init__()
    if not labels or len(set(labels)) != len(labels):
      raise ValueError(f"labels are {list(labels)}, must be at least one, each once")
    if not 0 <= max_bad_fraction <= 1:
      raise ValueError(f"max_bad_fraction is {max_bad_fraction}, must be in 0..1")
    self._handler = handler
    self._labels = tuple(labels)
    self._output = output
    self._trunk = trunk
    self._percentages = percentages or SplitPercentages()
    self._audit = SplitAudit(on_leak, labels, self._percentages, handler.max_pixels, handler.thread_limits)
    self._stores = tuple(stores)
    self._distortions = distortions
    self._max_bad_fraction = max_bad_fraction
    self._request = request or self._default_request()
    self._scratch = scratch

  @property
  def records_folder(self) -> str:
    return files.join(self._output, RECORDS_FOLDER)

  def expand(self, shards: beam.PCollection) -> beam.PCollection:
    files.make_folder(files.join(self.records_folder, REPORTS_FOLDER))
    planned = self._audit.plan(shards)
    reports = planned.shards | "Work" >> self._work(planned.checked)
    # ShardReport
    variants = None
    if self._distortions:
      variants = (planned.shards, reports) | "EmbedVariants" >> EmbedVariants(
        self._handler,
        labels=self._labels,
        percentages=self._percentages,
        distortions=self._distortions,
        output=files.join(self._output, DISTORTED),
        fingerprint=self._trunk.fingerprint,
        checked=planned.checked,
        earlier=[files.join(store, DISTORTED) for store in self._stores],
      )  # dict
    return self.close(planned, reports, variants)

  def _work(self, checked: beam.PCollection) -> beam.PTransform:
    if not self._stores:
      task = EmbedShard(self._handler, self._labels)
      return WorkShards(task, output=self.records_folder, request=self._request, checked=checked)
    return EmbedOnlyNew(
      handler=self._handler,
      labels=self._labels,
      stores=self._stores,
      output=self.records_folder,
      fresh_folder=files.join(self._output, FRESH_FOLDER),
      request=self._request,
      checked=checked,
    )

  def close(
    self, planned: Planned, reports: beam.PCollection, variants: beam.PCollection | None = None
  ) -> beam.PCollection:
    """Adds analysis, audit and ledger; returns a PCollection of one `Stats`.

    Args:
      variants: PCollection of one dict, `Stats.distorted`, if there are distortions.
    """
    # Loads TensorFlow, which is too slow for `--help`.
    from beam_retrain.transforms.bottlenecks.analyze import AnalyzeBottlenecks

    transform = reports | "Analyze" >> AnalyzeBottlenecks(
      records_folder=self.records_folder,
      output=files.join(self._output, TRANSFORM_FOLDER),
      temp_folder=files.join(self._scratch or self._output, TEMP_FOLDER),
      dimensions=self._trunk.dimensions,
      labels=self._labels,
    )
    leaks = self._audit.audit(planned, reports, self.records_folder)
    return (
      (planned.shards, reports)
      | "Close" >> CloseLedger(output=self._output, shards_folder=self.records_folder, leaks=leaks, distorted=variants)
      # Stats
      | "MarkCompleted" >> beam.Map(mark_completed, self._output, self._max_bad_fraction, beam.pvalue.AsList(transform))
    )  # Stats

  def _default_request(self) -> str:
    settings = {
      "trunk_fingerprint": self._trunk.fingerprint,
      "preprocessing": PREPROCESSING_VERSION,
      **self._percentages.to_settings(),
      "max_pixels": self._handler.max_pixels,
      "batch_size": self._handler.batch_size,
      "labels": list(self._labels),
    }
    return request_digest("bottlenecks", settings)
