"""A planned evaluation, as `evaluate` and `reevaluate` run it.

The job (`EvaluateClassifier`) writes figures; `results.py` judges them.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.engines.dataflow import request_memory
from beam_retrain.pipelines.evaluation.images import Images, choose_images
from beam_retrain.pipelines.jobs.runner import claim_output, run_pipeline
from beam_retrain.pipelines.models.execution import Execution, choose_execution
from beam_retrain.pipelines.models.model_path import ModelPath
from beam_retrain.pipelines.models.sample import sample_images
from beam_retrain.pipelines.models.trained import Model, ModelTrunk, split_settings
from beam_retrain.pipelines.options.flags import retrain_names_setting
from beam_retrain.pipelines.requests.evaluation import EvaluationRequest
from beam_retrain.transforms.bottlenecks.store import STORES_FOLDER, find_stores, store_folder
from beam_retrain.transforms.core.corrections import OWNED as CORRECTIONS
from beam_retrain.transforms.core.metrics.figures import MODEL
from beam_retrain.transforms.core.models.agreement import Sampled
from beam_retrain.transforms.core.records.schema import INFO_FILE, METRICS_FILE, REPORTS_FOLDER
from beam_retrain.transforms.core.run.output_folder import complete_folder
from beam_retrain.transforms.core.run.run_info import RunInfo, describe_run
from beam_retrain.transforms.core.run.stats import read_stats
from beam_retrain.transforms.evaluation.classifier import SCORED_FOLDER, EvaluateClassifier, TrunkStore
from beam_retrain.transforms.evaluation.compare_nights import PARTS_FOLDER, SLICES_FILE, CompareNights
from beam_retrain.transforms.evaluation.evaluate import (
  CONFUSION_FILE,
  FIGURES_FILE,
  PER_LABEL_FILE,
  PREDICTIONS_FILE,
  SUSPICIOUS_FILE,
)
from beam_retrain.transforms.evaluation.scoring import (
  BOTTLENECKS_BATCH_SIZE,
  HeadOf,
  ScoreBottlenecks,
  ScoreImages,
  Scorer,
  ScoreWithHeads,
)
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.corrections import Opened, open_corrections
from beam_retrain.transforms.sources.base import Source

REPORT_FILE = "report.html"
FILES = (REPORT_FILE, PREDICTIONS_FILE, PER_LABEL_FILE, CONFUSION_FILE, SUSPICIOUS_FILE, METRICS_FILE)
_OWNED = (*FILES, SLICES_FILE, PARTS_FOLDER, STORES_FOLDER, *CORRECTIONS)


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Models, and the images that they score."""

  request: EvaluationRequest
  options: PipelineOptions
  models: Mapping[str, Model]  # `model` and perhaps `candidate`
  images: Images
  execution: Execution
  trunks: Mapping[str, ModelTrunk]  # by model; empty if the input is stored bottlenecks
  reuse: Mapping[str, Sequence[str]] | None  # trunk fingerprint -> folders of its bottlenecks; None: none are kept
  corrected: Opened | None = None

  @classmethod
  def plan(
    cls,
    request: EvaluationRequest,
    options: PipelineOptions,
    models: Mapping[str, Model],
    source: Source,
    *,
    is_stored: bool = False,
    keeps_bottlenecks: bool,
  ) -> Self:
    """Checks the models' labels and trunks, the images and reusable bottlenecks."""
    for model in models.values():
      _ = model.trained_on  # raises if it is damaged
    known = set.intersection(*(set(model.labels) for model in models.values()))
    corrected = open_corrections(request.corrections, source, sorted(known))
    images = choose_images(source, request.split, list(models.values()))
    trunks: dict[str, ModelTrunk] = {}
    if not is_stored:
      trunks = {name: ModelTrunk(model, request.precision, request.runtime) for name, model in models.items()}
    prepared = trunks[MODEL].prepared if trunks else None
    execution = choose_execution(request.batch_size, request.trunk_threads, options, prepared)
    reuse: dict[str, Sequence[str]] = {}
    for trunk in trunks.values() if keeps_bottlenecks else ():
      _ = trunk.model.head  # raises for older models, which have none
      if trunk.fingerprint not in reuse:
        reuse[trunk.fingerprint] = find_stores(request.reuse, trunk.fingerprint, trunk.model.preprocessing)
    return cls(request, options, models, images, execution, trunks, reuse if keeps_bottlenecks else None, corrected)

  def settings(self) -> dict[str, Any]:
    """Returns settings that determine the output's bytes, as JSON values."""
    model = self.models[MODEL]
    return {
      "input": self.request.input,
      "splits": list(self.images.splits),
      **split_settings(self.images.percentages),
      **retrain_names_setting(model.retrain_names),
      **self.request.idx_settings(),
      "labels": model.labels,
      "preprocessing": model.preprocessing,
      "batch_size": self._batch_size,
      "max_pixels": self.request.max_pixels,
      **(self.corrected.settings() if self.corrected else {}),
    }

  @functools.cached_property
  def paths(self) -> Mapping[str, ModelPath]:
    """Returns what each model's figures are of."""
    paths = {}
    for name, model in self.models.items():
      trunk = self.trunks.get(name)
      with_head = trunk.serving.is_prepared or self.reuse is not None if trunk else model.has_head
      paths[name] = ModelPath(model, trunk, with_head)
    return paths

  @functools.cached_property
  def sampled(self) -> Mapping[str, Sampled]:
    """Returns the checks of each path on a sample, see `ModelPath.check`."""
    sample = sample_images(*self.images, max_pixels=self.request.max_pixels) if self.trunks else []
    threads, data_set = self.execution.threads.here, self.images.source.path
    checked = {name: path.check(sample, threads, data_set) for name, path in self.paths.items()}
    return {name: sampled for name, sampled in checked.items() if sampled}

  @property
  def _batch_size(self) -> int:
    return self.execution.batch_size if self.trunks else self.request.batch_size or BOTTLENECKS_BATCH_SIZE

  def begin(
    self,
    info: RunInfo,
    output: str,
    *,
    also_owned: Sequence[str] = (),
    compare: CompareNights | None = None,
    finds_leaks: bool = False,
    finds_errors: bool = False,
    find_earlier: Callable[[str], list[str]] = lambda fingerprint: [],
  ) -> EvaluateClassifier:
    """Claims the output folder; returns the job's step.

    `find_earlier` returns further folders of a trunk's bottlenecks, given its fingerprint. For `also_owned`, see
    `claim_folder`.
    """
    _ = self.sampled  # raises before anything is changed
    claim_output(output, info, owned=(*_OWNED, *also_owned), shards_folder=PARTS_FOLDER)
    if self.corrected:
      self.corrected.copy_to(output)
    stores = [
      self._claim_store(output, fingerprint, [*find_earlier(fingerprint), *reuse])
      for fingerprint, reuse in (self.reuse or {}).items()
    ]
    return EvaluateClassifier(
      scorer=self._scorer(),
      models={name: model.labels for name, model in self.models.items()},
      output=output,
      request=info.request,
      trained_on={name: model.trained_on for name, model in self.models.items() if model.trained_on},
      stores=stores,
      compare=compare,
      finds_leaks=finds_leaks,
      finds_errors=finds_errors,
      corrections=self.corrected.in_output(output) if self.corrected else None,
      scored_labels=self.corrected.away if self.corrected else (),
      empty_message=self.images.empty_message,
    )

  def build(self, root: beam.Pipeline | beam.pvalue.PBegin, step: EvaluateClassifier) -> beam.PCollection:
    """Plans and evaluates; returns a PCollection of the path of `figures.json`."""
    source, splits, percentages = self.images
    return root | "Plan" >> source.plan(splits, percentages) | "Evaluate" >> step

  def run(self, step: EvaluateClassifier, stage: str) -> None:
    """Runs the job of `begin`."""
    request_memory(self.options, self.request.model)
    run_pipeline(lambda root: self.build(root, step), self.options, stage=stage, shards_folder=step.longest_work_folder)

  def _claim_store(self, output: str, fingerprint: str, reuse: Sequence[str]) -> TrunkStore:
    """Creates the store of a trunk's bottlenecks in the claimed output folder."""
    trunk = next(trunk for trunk in self.trunks.values() if trunk.fingerprint == fingerprint)
    folder, labels = store_folder(output, fingerprint), self._scored_labels(trunk.model)
    settings = {
      "trunk_fingerprint": fingerprint,
      "preprocessing": trunk.model.preprocessing,
      "labels": labels,
      "batch_size": self.execution.batch_size,
      "max_pixels": self.request.max_pixels,
    }
    info = describe_run("store", settings, [], trunk=trunk.info, labels=labels)
    files.make_folder(folder)
    files.sweep(folder)
    files.write_text(files.join(folder, INFO_FILE), info.to_json())
    handler = trunk.to_bottlenecks(self.execution, self.request.max_pixels)
    return TrunkStore(folder=folder, handler=handler, reuse=reuse, request=info.request)

  def _scorer(self) -> Scorer:
    model = self.models[MODEL]
    if not self.trunks:
      head = model.head if model.has_head else None
      return ScoreBottlenecks(model.saved_model, self._scored_labels(model), head=head, batch_size=self._batch_size)
    if self.reuse is None:
      handler = self.trunks[MODEL].to_scores(self.execution, self.request.max_pixels)
      return ScoreImages(handler, self._scored_labels(model))
    places = list(self.reuse)
    return ScoreWithHeads(
      [
        HeadOf(each.model.head, places.index(each.fingerprint), tuple(self._scored_labels(each.model)))
        for each in self.trunks.values()
      ]
    )

  def _scored_labels(self, model: Model) -> list[str]:
    """Returns a model's labels, and those that are corrected away."""
    away = self.corrected.away if self.corrected else ()
    return [*model.labels, *(label for label in away if label not in model.labels)]

  def complete(self, step: EvaluateClassifier, keeps_scored: bool = False) -> bool:
    """Completes the folder unless too many inputs are bad; returns whether.

    With `keeps_scored`, the shards' predictions stay in a local store.
    """
    if read_stats(step.output, files).bad_fraction > self.request.max_bad_fraction:
      for store in step.stores:
        files.sweep(files.join(store.fresh_folder, REPORTS_FOLDER))
      return False
    complete_folder(step.output, files)
    if keeps_scored and files.is_local(step.output):
      scored = files.join(step.stores[0].folder, SCORED_FOLDER)
      files.delete([scored, files.join(step.parts_folder, FIGURES_FILE)])
      os.rename(step.parts_folder, scored)
      complete_folder(scored, files)
    files.delete([step.parts_folder, *(store.fresh_folder for store in step.stores)])
    return True
