"""`beam-retrain reevaluate`: tonight's evaluation, and what got better and worse since an earlier one."""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from beam_retrain.pipelines.evaluation.finish import (
  REPORT_FILE,
  Config,
  Limits,
  TrunkRun,
  build,
  check_trunk,
  claim_store,
  complete,
  judge_figures,
  outcome,
  read_figures,
  read_paths,
  write_report,
)
from beam_retrain.pipelines.jobs import output_dir
from beam_retrain.pipelines.jobs.runner import guarded, run_pipeline
from beam_retrain.pipelines.models.execution import Execution, choose_execution
from beam_retrain.pipelines.models.model_trunk import ModelTrunk
from beam_retrain.pipelines.models.trained import (
  Model,
  check_labels,
  check_same_labels,
  choose_splits,
  shared_percentages,
  split_settings,
  which_images,
)
from beam_retrain.pipelines.models.trunk_sources import BUNDLED
from beam_retrain.pipelines.options.arguments import (
  ArgumentParser,
  add_gate_flags,
  add_max_bad_fraction,
  add_model_flags,
  add_slice_flags,
  parse_job,
  positive_int,
  refuse_unreachable,
  thresholds_of,
)
from beam_retrain.pipelines.options.precision import add_model_precision_flags
from beam_retrain.pipelines.options.retrain_names import retrain_names_setting, tell_left_out
from beam_retrain.pipelines.reevaluate import history
from beam_retrain.pipelines.reevaluate.baseline import Baseline, check_unchanged, choose_baseline
from beam_retrain.pipelines.reevaluate.snapshot import STAGE, Night, check_date, stores, trend
from beam_retrain.reporting.gates import gate_lines, verdict_line
from beam_retrain.reporting.junit import junit_xml
from beam_retrain.reporting.text_tables import changes_table, per_label_table
from beam_retrain.transforms.bottlenecks.model_handler import BATCH_SIZE
from beam_retrain.transforms.bottlenecks.store import STORES_FOLDER, find_stores
from beam_retrain.transforms.core.metrics.figures import CANDIDATE, MODEL, BottleneckCounts, Metrics, ModelMetrics
from beam_retrain.transforms.core.metrics.metrics_file import METRICS_FILE
from beam_retrain.transforms.core.records.schema import QUARANTINE_FILE
from beam_retrain.transforms.core.run.run_info import describe_run
from beam_retrain.transforms.core.run.stats import read_stats
from beam_retrain.transforms.evaluation.compare import CHANGES_FILES, SLICES_FILE, CompareNights
from beam_retrain.transforms.evaluation.evaluate import (
  CONFUSION_FILE,
  PARTS_FOLDER,
  PER_LABEL_FILE,
  PREDICTIONS_FILE,
  SUSPICIOUS_FILE,
)
from beam_retrain.transforms.evaluation.scoring import HeadOf, ScoreWithHeads
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.base import Source
from beam_retrain.transforms.sources.find import find_source

JUNIT_FILE = "junit.xml"
_FILES = (REPORT_FILE, PREDICTIONS_FILE, PER_LABEL_FILE, *CHANGES_FILES, SUSPICIOUS_FILE, METRICS_FILE, JUNIT_FILE)
_OWNED = (*_FILES, PARTS_FOLDER, STORES_FOLDER, CANDIDATE, CONFUSION_FILE, SLICES_FILE)


def make_parser() -> argparse.ArgumentParser:
  parser = ArgumentParser(
    prog="beam-retrain reevaluate",
    description=(
      "Asks every night whether a model still holds: on the same images, on those that arrived since, and whether\n"
      "a candidate would do better. Only new and changed images go through the trunk; the bottlenecks of the others\n"
      "are those of the night before.\n\n"
      "writes   HISTORY/DATE/report.html (all there is to see, one file), predictions.csv, per_label.csv,\n"
      "         regressed.csv (right in the baseline, wrong now), fixed.csv, new.csv, gone.csv,\n"
      "         suspicious_labels.csv, metrics.json, junit.xml, ..., and candidate/ for the candidate\n\n"
      "The night appears whole, when it is finished; a rerun of the same night replaces it; a run that was killed\n"
      "goes on where it was. The model is compared with the last finished night, the candidate with the model, tonight."
    ),
    epilog=(
      "example:\n"
      "  beam-retrain reevaluate --model flowers/model --input flower_photos --history nights --min_accuracy 0.9\n\n"
      "exit codes: 0 done, 1 a gate that you set was missed, 2 wrong usage or the job failed, 3 more bad inputs than\n"
      "allowed (the night is then not published). Any Beam option may follow."
    ),
  )
  parser.add_argument("--model", required=True, metavar="DIR", help="what `train` wrote")
  parser.add_argument(
    "--candidate",
    metavar="DIR",
    help="another model, scored in the same pass: would it do better? Every gate is one of the candidate, too",
  )
  parser.add_argument("--input", required=True, metavar="DIR", help="images: any input of `bottlenecks`")
  parser.add_argument("--history", required=True, metavar="DIR", help="folder of all nights, one folder each")
  parser.add_argument("--date", metavar="YYYY-MM-DD", help="name of the night (default: today)")
  parser.add_argument(
    "--baseline",
    metavar="NIGHT",
    help="what to compare with: a night's date, its folder, or what `evaluate` wrote; or none (default: the last"
    " finished night before DATE)",
  )
  parser.add_argument(
    "--split",
    choices=("auto", "testing", "all"),
    default="auto",
    help="which images, see `beam-retrain evaluate --help` (default: auto)",
  )
  parser.add_argument(
    "--reuse",
    action="append",
    default=[],
    metavar="DIR",
    help="take bottlenecks also from DIR: what `bottlenecks` wrote, or an evaluation with --reuse; may be repeated",
  )
  parser.add_argument(
    "--keep_stores",
    type=positive_int,
    default=2,
    metavar="N",
    help="nights that keep their bottlenecks; the figures and the report of every night stay (default: %(default)d)",
  )
  add_slice_flags(parser)
  add_gate_flags(parser, with_comparison=True)
  add_model_flags(parser, str(BATCH_SIZE))
  add_model_precision_flags(parser)
  add_max_bad_fraction(parser)
  return parser


def run(argv: Sequence[str], today: Callable[[], datetime.date] = datetime.date.today) -> int:
  """Runs tonight's evaluation; returns its exit code.

  Args:
    argv: the command's arguments.
    today: the clock.

  Raises:
    InputError: something that the user gave cannot be used.
  """
  flags, options = parse_job(make_parser(), argv)
  read_paths(flags, "model", "candidate", "input", "history", "reuse", "manifest")
  refuse_unreachable(options, flags.model, flags.candidate, flags.input, flags.reuse, flags.manifest)
  models = _read_models(flags)
  retrain_names = models[MODEL].retrain_names
  source = find_source(flags.input, len(models[MODEL].labels), min_classes=1, retrain_names=retrain_names)
  tell_left_out(source)
  for model in models.values():
    check_labels(source, model)
  output_dir.validate_apart(flags.input, flags.history, "history")
  finished, damaged = history.look(flags.history)
  date = check_date(flags.date, today(), finished)
  baseline = choose_baseline(flags.history, date, flags.baseline, models[MODEL].labels)
  for name, why in damaged:
    passed_over = not flags.baseline and name < date and (baseline is None or name > baseline.name)
    if passed_over:
      print(f"the night {name} is damaged and not compared with: {why}", file=sys.stderr)
  execution = choose_execution(flags.batch_size, flags.trunk_threads, options)
  night = _Night(flags, argv, models, source, date, baseline, finished, execution)
  with history.tonight(flags.history, date, night.request) as working:
    return night.run(working, options)


def _read_models(flags: argparse.Namespace) -> dict[str, Model]:
  models = {MODEL: Model(flags.model)}
  if flags.candidate:
    models[CANDIDATE] = Model(flags.candidate)
    check_same_labels(models[MODEL], models[CANDIDATE])
  return models


class _Night:
  """Tonight's run, once everything that can be checked before has been.

  Attributes:
    request: digest of what decides the bytes of its shards.
  """

  def __init__(
    self,
    flags: argparse.Namespace,
    argv: Sequence[str],
    models: Mapping[str, Model],
    source: Source,
    date: str,
    baseline: Baseline | None,
    finished: Sequence[Night],
    execution: Execution,
  ):
    self._flags = flags
    self._argv = argv
    self._models = models
    self._source = source
    self._date = date
    self._baseline = baseline
    self._finished = finished
    known = list(models.values())
    self._splits, self._percentages = choose_splits(source, flags.split, shared_percentages(known), known)
    source.plan(self._splits, self._percentages)  # finds what is missing before the work
    self._execution = execution
    self._trunks = {name: ModelTrunk(model, flags.precision, flags.runtime) for name, model in models.items()}
    self._reused = {
      trunk.fingerprint: find_stores(flags.reuse, trunk.fingerprint, trunk.model.preprocessing)
      for trunk in self._trunks.values()
    }
    settings = {
      "input": flags.input,
      "splits": list(self._splits),
      **split_settings(self._percentages),
      **retrain_names_setting(models[MODEL].retrain_names),
      "models": {name: model.fingerprint for name, model in models.items()},
      "trunks": {name: trunk.fingerprint for name, trunk in self._trunks.items()},
      "labels": models[MODEL].labels,
      "preprocessing": models[MODEL].preprocessing,
      "batch_size": execution.batch_size,
      "max_pixels": flags.max_pixels,
    }
    self._info = describe_run(
      STAGE,
      settings,
      argv,
      models={name: model.path for name, model in models.items()},
      trunk=self._trunks[MODEL].info,
      execution=execution.to_info(),
      labels=models[MODEL].labels,
      others={"night": date, "baseline": baseline.name if baseline else None},
    )
    self.request = self._info.request
    # Both look into files: what is wrong there is told before anything is made.
    fingerprints = list(dict.fromkeys(trunk.fingerprint for trunk in self._trunks.values()))
    self._scorer = ScoreWithHeads(
      [
        HeadOf(trunk.model.head, fingerprints.index(trunk.fingerprint), tuple(trunk.model.labels))
        for trunk in self._trunks.values()
      ]
    )
    working = history.working_folder(flags.history, date, self.request)
    self._compare = CompareNights(
      parts_folder=files.join(working, PARTS_FOLDER),
      output=working,
      models=list(models),
      baseline=baseline.predictions if baseline else None,
      baseline_name=baseline.name if baseline else None,
      manifest=flags.manifest,
      min_slice_size=flags.min_slice_size,
    )

  def run(self, working: str, options: Any) -> int:
    """Works in `working`, publishes it where all went well, and returns the exit code."""
    config = self._claim(working)
    run_pipeline(lambda root: build(root, config), options, stage=STAGE, shards_folder=config.longest_work_folder)
    flags = self._flags
    checked = {
      name: check_trunk(trunk, config, self._execution.threads.here, flags.max_pixels)
      for name, trunk in self._trunks.items()
    }
    kinds = {name: ModelMetrics(trunk_kind=found.info) for name, found in checked.items()}
    about = Metrics(
      kinds[MODEL],
      kinds.get(CANDIDATE),
      night=self._date,
      splits=self._splits,
      trunk=self._models[MODEL].info.trunk.handle,
      bottlenecks=_bottlenecks(config.trunks),
    )
    figures = read_figures(working)
    metrics = judge_figures(figures, about, Limits(thresholds_of(flags), flags.max_bad_fraction), working)
    write_report(metrics, figures, self._info, f"Night of {self._date}", working, trend(self._finished, self._date))
    files.write_text(files.join(working, JUNIT_FILE), junit_xml(metrics))
    folder = working
    if complete(config, flags.max_bad_fraction):
      if self._baseline:
        check_unchanged(self._baseline)
      folder = history.publish(working, flags.history, self._date)
      history.prune_stores(flags.history, flags.keep_stores, self._date)
    told = {name: f"{of_trunk.told}; {self._execution.describe()}" for name, of_trunk in checked.items()}
    _print_summary(metrics, folder, self._source.path, told)
    return outcome(metrics, folder, flags.max_bad_fraction)

  def _claim(self, working: str) -> Config:
    flags, models = self._flags, self._models
    execution_time = time.ctime()
    output_dir.claim(working, self._info, owned=_OWNED, shards_folder=PARTS_FOLDER)
    trunks: dict[str, TrunkRun] = {}
    for trunk in self._trunks.values():
      fingerprint = trunk.fingerprint
      if fingerprint not in trunks:
        found = [*stores(flags.history, self._date, fingerprint, working), *self._reused[fingerprint]]
        trunks[fingerprint] = claim_store(working, trunk, found, self._execution, flags.max_pixels)
    return Config(
      source=self._source,
      splits=self._splits,
      percentages=self._percentages,
      scorer=self._scorer,
      models={name: model.labels for name, model in models.items()},
      output=working,
      request=self.request,
      execution_time=execution_time,
      trunks=list(trunks.values()),
      compare=self._compare,
    )


def _bottlenecks(trunks: Sequence[TrunkRun]) -> BottleneckCounts:
  counts = [counts for trunk in trunks if (counts := read_stats(trunk.store, files).bottlenecks)]
  return BottleneckCounts(sum(count.computed for count in counts), sum(count.reused for count in counts))


def _print_summary(metrics: Metrics, folder: str, source: str, of_trunks: Mapping[str, str]) -> None:
  print(verdict_line(metrics))
  counts = metrics.bottlenecks or BottleneckCounts(0, 0)
  print(
    f"{which_images(metrics.splits)} of {files.shown(source)}: {counts.reused:,} bottlenecks reused,"
    f" {counts.computed:,} computed"
  )
  print(of_trunks[MODEL])
  if of_trunks.get(CANDIDATE, of_trunks[MODEL]) != of_trunks[MODEL]:
    print(f"of the candidate {of_trunks[CANDIDATE]}")
  if metrics.trunk == BUNDLED:
    print("the trunk is the bundled stand-in: for real work train with --trunk inception_v3")
  print(f"\n{changes_table(metrics)}\n\n{per_label_table(metrics.model)}\n")
  for line in gate_lines(metrics):
    print(line)
  print(f"everything lies in {files.shown(folder)}: {', '.join((*_FILES, QUARANTINE_FILE))}")


if __name__ == "__main__":
  sys.exit(guarded(run, sys.argv[1:]))
