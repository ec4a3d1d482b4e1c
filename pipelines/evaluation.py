"""A planned evaluation, as `evaluate` and `reevaluate` run it.

The job (`EvaluateClassifier`) writes figures. The command judges them, renders the report and completes the folder.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.engines.dataflow import request_memory
from beam_retrain.pipelines.jobs.runner import claim_output, exit_code, run_pipeline
from beam_retrain.pipelines.models.execution import Execution, choose_execution
from beam_retrain.pipelines.models.model_path import ModelPath
from beam_retrain.pipelines.models.sample import sample_images
from beam_retrain.pipelines.models.trained import (
  Model,
  ModelTrunk,
  check_labels,
  choose_splits,
  shared_percentages,
  split_settings,
  which_images,
)
from beam_retrain.pipelines.options.flags import (
  report_notes,
  report_oriented,
  retrain_names_setting,
)
from beam_retrain.pipelines.requests.evaluation import EvaluationRequest
from beam_retrain.reporting.gates import gate_lines, judge, trained_on, unusable, verdict_line
from beam_retrain.reporting.html_report import Report, render_report
from beam_retrain.reporting.text_tables import per_label_table
from beam_retrain.reporting.wording import corrected
from beam_retrain.transforms.bottlenecks.store import STORES_FOLDER, find_stores, store_folder
from beam_retrain.transforms.core.corrections import OWNED as CORRECTIONS
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics.figures import (
  CANDIDATE,
  MISSED,
  MODEL,
  NONE_SET,
  BadInputs,
  Metrics,
  TrendPoint,
)
from beam_retrain.transforms.core.metrics.metrics_file import write_metrics
from beam_retrain.transforms.core.metrics.wording import accuracy_line, too_few
from beam_retrain.transforms.core.models.agreement import Agreement, Sampled
from beam_retrain.transforms.core.printing import command_of_stage, detail, is_stage, print, say
from beam_retrain.transforms.core.records.leaks import NEAR_DUPLICATES, describe
from beam_retrain.transforms.core.records.schema import (
  INFO_FILE,
  LEAKS_FILE,
  METRICS_FILE,
  QUARANTINE_FILE,
  REPORTS_FOLDER,
  TESTING,
)
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from beam_retrain.transforms.core.run.output_folder import complete_folder, find_info, read_info
from beam_retrain.transforms.core.run.run_info import RunInfo, describe_run
from beam_retrain.transforms.core.run.stats import read_stats
from beam_retrain.transforms.core.system.small_files import read_small
from beam_retrain.transforms.evaluation.classifier import SCORED_FOLDER, EvaluateClassifier, TrunkStore
from beam_retrain.transforms.evaluation.compare_nights import PARTS_FOLDER, SLICES_FILE, CompareNights
from beam_retrain.transforms.evaluation.evaluate import (
  CONFUSION_FILE,
  FIGURES_FILE,
  PER_LABEL_FILE,
  PREDICTIONS_FILE,
  SUSPICIOUS_FILE,
  JobFigures,
  folder_of,
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
from beam_retrain.transforms.shards.ledger import read_quarantine
from beam_retrain.transforms.sources.base import Source
from beam_retrain.transforms.sources.find import find_source
from beam_retrain.transforms.sources.records import RecordsSource

REPORT_FILE = "report.html"
FILES = (REPORT_FILE, PREDICTIONS_FILE, PER_LABEL_FILE, CONFUSION_FILE, SUSPICIOUS_FILE, METRICS_FILE)
_OWNED = (*FILES, SLICES_FILE, PARTS_FOLDER, STORES_FOLDER, *CORRECTIONS)
MAX_QUARANTINED_SHOWN = 500


class Images(NamedTuple):
  """The images to evaluate, or their stored bottlenecks.

  `percentages`: how a source without its own splits is split; None: not at all.
  """

  source: Source
  splits: tuple[str, ...]
  percentages: SplitPercentages | None

  @property
  def empty_message(self) -> str:
    return f"{self.source.path} has no images of the split {' or '.join(self.splits)}: give another --input or --split."


def find_images(request: EvaluationRequest, model: Model) -> Source:
  """Returns the images of `--input`, with a model's labels."""
  source = find_source(
    request.input,
    None if request.class_names else model.idx_classes,
    min_classes=1,
    retrain_names=model.retrain_names,
    class_names=request.class_names,
    transpose=request.transpose,
  )
  report_notes(source)
  return source


def holds_bottlenecks(folder: str) -> bool:
  """Whether the images to evaluate are stored bottlenecks."""
  info = find_info(folder, files)
  return info is not None and info.stage == "bottlenecks"


def open_bottlenecks(folder: str, model: Model) -> RecordsSource:
  """Returns stored bottlenecks; raises InputError unless by the model's trunk."""
  stored, wanted = read_info(folder, "bottlenecks", files).trunk, model.info.trunk
  if stored.fingerprint != wanted.fingerprint:
    raise InputError(
      f"the bottlenecks in {folder} are of another trunk ({stored.handle}, {stored.fingerprint[:12]}) than the"
      f" model in {model.path} ({wanted.handle}, {wanted.fingerprint[:12]}): evaluate images, or run"
      " `beam-retrain bottlenecks` with the model's trunk."
    )
  return RecordsSource(folder)


def choose_images(source: Source, split: str, models: Sequence[Model]) -> Images:
  """Returns the images of `--split`, whose labels all models must know."""
  for model in models:
    check_labels(source, model)
  splits, percentages = choose_splits(source, split, shared_percentages(models), models)
  source.plan(splits, percentages)  # raises for missing inputs before anything is changed
  return Images(source, splits, percentages)


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Models, and the images that they score.

  Attributes:
    models: `model` and perhaps `candidate`.
    trunks: by model; empty if the input is stored bottlenecks.
    reuse: trunk fingerprint -> folders of its bottlenecks; None: no bottlenecks are kept.
    corrected: corrections of labels, if they are given.
  """

  request: EvaluationRequest
  options: PipelineOptions
  models: Mapping[str, Model]
  images: Images
  execution: Execution
  trunks: Mapping[str, ModelTrunk]
  reuse: Mapping[str, Sequence[str]] | None
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
    execution = choose_execution(request.batch_size, request.trunk_threads, options)
    known = set.intersection(*(set(model.labels) for model in models.values()))
    corrected = open_corrections(request.corrections, source, sorted(known))
    images = choose_images(source, request.split, list(models.values()))
    trunks: dict[str, ModelTrunk] = {}
    if not is_stored:
      trunks = {name: ModelTrunk(model, request.precision, request.runtime) for name, model in models.items()}
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

  def judge(
    self, step: EvaluateClassifier, info: RunInfo, title: str, nights: Sequence[TrendPoint] = (), **about: Any
  ) -> tuple[Metrics, dict[str, str]]:
    """Judges the job's figures; writes `metrics.json` and the report.

    Returns the contents of `metrics.json`, and what the figures of each model are of, in words.

    Args:
      nights: the earlier ones, the oldest first.
      about: further fields of `Metrics`.
    """
    output, allowed = step.output, self.request.max_bad_fraction
    agreements = {
      name: self.paths[name].compare(sampled, files.join(folder_of(output, name), PREDICTIONS_FILE))
      for name, sampled in self.sampled.items()
    }
    path = files.join(step.parts_folder, FIGURES_FILE)
    figures = read_small(path, JobFigures.from_json, "run the command again", files.read_bytes)
    models = {
      name: dataclasses.replace(
        model,
        gates=judge(model, dict(self.request.gates)),
        trunk_kind=self.paths[name].to_info(agreements.get(name)),
      )
      for name, model in figures.models.items()
    }
    stats = read_stats(output, files)
    metrics = Metrics(
      models[MODEL],
      models.get(CANDIDATE),
      splits=self.images.splits,
      trunk=self.models[MODEL].info.trunk.handle,
      predictions_sha256=files.sha256(files.join(output, PREDICTIONS_FILE)),
      leaks=stats.leaks,
      bad_inputs=BadInputs(stats.quarantined, stats.inputs, allowed, stats.bad_fraction > allowed),
      **about,
    )
    files.write_text(files.join(output, METRICS_FILE), write_metrics(metrics))
    report = Report(
      metrics,
      images=figures.images,
      quarantined=read_quarantine(files.join(output, QUARANTINE_FILE), MAX_QUARANTINED_SHOWN),
      info=dataclasses.replace(info, command=command_of_stage() or info.command),
      trend=[*nights, metrics.trend_point()] if nights else [],
      title=title,
      date=metrics.night or datetime.date.today().isoformat(),
      training={name: model.training for name, model in self.models.items()},
      map=figures.map,
    )
    files.write_text(files.join(output, REPORT_FILE), render_report(report))
    return metrics, {name: self._describe(path, agreements.get(name)) for name, path in self.paths.items()}

  def _describe(self, path: ModelPath, agreement: Agreement | None) -> str:
    how = self.execution.describe() if self.trunks else ""
    return "; ".join(filter(None, [f"figures of {path}", str(agreement or ""), how]))

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

  def print_results(self, metrics: Metrics, trunks: Mapping[str, str], about: str, tables: Sequence[str] = ()) -> None:
    """Prints accuracy, verdict and tables; how the `trunks` ran."""
    main = metrics.model.main
    if metrics.night is None:
      print(accuracy_line(main.correct, main.total, " on images not trained on" if metrics.model.is_mixed else ""))
    if metrics.night or unusable(metrics) or metrics.verdict != NONE_SET:
      print(verdict_line(metrics))
    say(f"{which_images(metrics.splits)} of {files.shown(self.images.source.path)}{trained_on(metrics.model)}{about}")
    if self.corrected:
      for name, scored in metrics.models.items():
        say(f"{name}: {corrected(scored)}" if len(metrics.models) > 1 else corrected(scored))
    if few := too_few(main.total, self._testing_percentage):
      say(few)
    for line in self._unknown(metrics):
      say(line)
    for name, description in trunks.items():
      if name == MODEL:
        detail(description)
      elif description != trunks[MODEL]:
        detail(f"{name}: {description}")
    for table in (*tables, per_label_table(metrics.model)):
      say("", *table.split("\n"), sep="\n")
    say("")
    for line in gate_lines(metrics):
      say(line)

  @property
  def _testing_percentage(self) -> float | None:
    model = self.models[MODEL]
    return None if model.info.has_splits else model.percentages.testing

  def _unknown(self, metrics: Metrics) -> Iterator[str]:
    """Yields why it is unknown which images a model was trained on."""
    for name, model in self.models.items():
      if metrics.models[name].trained_on is None and metrics.models[name].total:
        if model.trained_on is None:
          yield f"the model in {files.shown(model.path)} does not say what it was trained on: train it again to know"
        else:
          yield f"bottlenecks in {files.shown(self.images.source.path)} have no SHA-256: make them again to know"

  def say_leaks(self, metrics: Metrics, folder: str) -> None:
    """Prints label errors, leaks and near-duplicates, and where they are listed."""
    suspicious = metrics.model.suspicious
    if suspicious and suspicious.label_errors is not None:
      path = files.shown(files.join(folder, SUSPICIOUS_FILE))
      say(f"{suspicious.label_errors:,} labels are likely wrong: see {path}")
    for kind, words in describe(metrics.leaks or {}).items():
      warning = "" if kind == NEAR_DUPLICATES else "warning: "
      say(f"{warning}{words}: see {files.shown(files.join(folder, LEAKS_FILE))}", file=sys.stderr)

  def exit_code(self, metrics: Metrics, output: str) -> ExitCode:
    """Reports oriented and bad images; returns the exit code."""
    stats, allowed = read_stats(output, files), self.request.max_bad_fraction
    if not is_stage():  # an earlier stage has said so, of all images
      report_oriented(stats, files.shown(self.images.source.path), allowed)
    if self.corrected:
      self.corrected.tell_unused(stats, output, of_all=self.images.splits != (TESTING,))
    return exit_code(stats, output, allowed, gate_missed=metrics.verdict == MISSED)
