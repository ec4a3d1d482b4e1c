"""What an evaluation found: judged, written, reported and printed."""

from __future__ import annotations

import dataclasses
import datetime
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from beam_retrain.pipelines.evaluation.planned import REPORT_FILE, Evaluation
from beam_retrain.pipelines.jobs.runner import exit_code
from beam_retrain.pipelines.models.trained import which_images
from beam_retrain.pipelines.options.flags import report_oriented
from beam_retrain.reporting.gates import gate_lines, judge, trained_on, unusable, verdict_line
from beam_retrain.reporting.html_report import Report, render_report
from beam_retrain.reporting.text_tables import per_label_table
from beam_retrain.reporting.wording import corrected
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
from beam_retrain.transforms.core.models.agreement import Agreement
from beam_retrain.transforms.core.printing import command_of_stage, detail, is_stage, print, say
from beam_retrain.transforms.core.records.leaks import NEAR_DUPLICATES, describe
from beam_retrain.transforms.core.records.schema import LEAKS_FILE, METRICS_FILE, QUARANTINE_FILE, TESTING
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from beam_retrain.transforms.core.run.run_info import RunInfo
from beam_retrain.transforms.core.run.stats import read_stats
from beam_retrain.transforms.core.system.small_files import read_small
from beam_retrain.transforms.evaluation.classifier import EvaluateClassifier
from beam_retrain.transforms.evaluation.evaluate import (
  FIGURES_FILE,
  PREDICTIONS_FILE,
  SUSPICIOUS_FILE,
  JobFigures,
  folder_of,
)
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.ledger import read_quarantine

MAX_QUARANTINED_SHOWN = 500


@dataclasses.dataclass(frozen=True)
class Results:
  """An evaluation, and the contents of its `metrics.json`."""

  evaluation: Evaluation
  metrics: Metrics
  agreements: Mapping[str, Agreement]  # by model, of the trunk with the exported model; empty where that scored

  def print(self, about: str, tables: Sequence[str] = ()) -> None:
    """Prints accuracy, verdict and tables; how the trunks ran."""
    metrics, main = self.metrics, self.metrics.model.main
    if metrics.night is None:
      print(accuracy_line(main.correct, main.total, " on images not trained on" if metrics.model.is_mixed else ""))
    if metrics.night or unusable(metrics) or metrics.verdict != NONE_SET:
      print(verdict_line(metrics))
    say(f"{which_images(metrics.splits)} of {self._source}{trained_on(metrics.model)}{about}")
    if self.evaluation.corrected:
      for name, scored in metrics.models.items():
        say(f"{name}: {corrected(scored)}" if len(metrics.models) > 1 else corrected(scored))
    if few := too_few(main.total, self._testing_percentage):
      say(few)
    for line in self._unknown():
      say(line)
    trunks = {name: self._describe(name) for name in self.evaluation.paths}
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
  def _source(self) -> str:
    return files.shown(self.evaluation.images.source.path)

  @property
  def _testing_percentage(self) -> float | None:
    model = self.evaluation.models[MODEL]
    return None if model.info.has_splits else model.percentages.testing

  def _unknown(self) -> Iterator[str]:
    """Yields why it is unknown which images a model was trained on."""
    for name, model in self.evaluation.models.items():
      if self.metrics.models[name].trained_on is None and self.metrics.models[name].total:
        if model.trained_on is None:
          yield f"the model in {files.shown(model.path)} does not say what it was trained on: train it again to know"
        else:
          yield f"bottlenecks in {self._source} have no SHA-256: make them again to know"

  def _describe(self, name: str) -> str:
    how = self.evaluation.execution.describe() if self.evaluation.trunks else ""
    figures = f"figures of {self.evaluation.paths[name]}"
    return "; ".join(filter(None, [figures, str(self.agreements.get(name, "")), how]))

  def say_leaks(self, folder: str) -> None:
    """Prints label errors, leaks and near-duplicates, and where they are listed."""
    suspicious = self.metrics.model.suspicious
    if suspicious and suspicious.label_errors is not None:
      path = files.shown(files.join(folder, SUSPICIOUS_FILE))
      say(f"{suspicious.label_errors:,} labels are likely wrong: see {path}")
    for kind, words in describe(self.metrics.leaks or {}).items():
      warning = "" if kind == NEAR_DUPLICATES else "warning: "
      say(f"{warning}{words}: see {files.shown(files.join(folder, LEAKS_FILE))}", file=sys.stderr)

  def exit_code(self, folder: str) -> ExitCode:
    """Reports oriented and bad images; returns the exit code."""
    stats, allowed = read_stats(folder, files), self.evaluation.request.max_bad_fraction
    if not is_stage():  # an earlier stage has said so, of all images
      report_oriented(stats, self._source, allowed)
    if corrections := self.evaluation.corrected:
      corrections.tell_unused(stats, folder, of_all=self.evaluation.images.splits != (TESTING,))
    return exit_code(stats, folder, allowed, gate_missed=self.metrics.verdict == MISSED)


def judged(
  evaluation: Evaluation,
  step: EvaluateClassifier,
  info: RunInfo,
  title: str,
  nights: Sequence[TrendPoint] = (),
  **about: Any,
) -> Results:
  """Judges the job's figures; writes `metrics.json` and the report.

  `nights` are the earlier ones, the oldest first, `about` further fields of `Metrics`.
  """
  output, allowed, paths = step.output, evaluation.request.max_bad_fraction, evaluation.paths
  agreements = {
    name: paths[name].compare(sampled, files.join(folder_of(output, name), PREDICTIONS_FILE))
    for name, sampled in evaluation.sampled.items()
  }
  path = files.join(step.parts_folder, FIGURES_FILE)
  figures = read_small(path, JobFigures.from_json, "run the command again", files.read_bytes)
  models = {
    name: dataclasses.replace(
      model,
      gates=judge(model, dict(evaluation.request.gates)),
      trunk_kind=paths[name].to_info(agreements.get(name)),
    )
    for name, model in figures.models.items()
  }
  stats = read_stats(output, files)
  metrics = Metrics(
    models[MODEL],
    models.get(CANDIDATE),
    splits=evaluation.images.splits,
    trunk=evaluation.models[MODEL].info.trunk.handle,
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
    training={name: model.training for name, model in evaluation.models.items()},
    map=figures.map,
  )
  files.write_text(files.join(output, REPORT_FILE), render_report(report))
  return Results(evaluation, metrics, agreements)
