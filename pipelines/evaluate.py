"""`beam-retrain evaluate`: pictures through an exported model, or stored bottlenecks through its head."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam

from pipelines import output_folder
from pipelines.arguments import (
  ArgumentParser,
  add_max_bad_fraction,
  add_model_flags,
  fraction,
  parse_with_beam_options,
)
from pipelines.running import DONE, GATE_MISSED, exit_code, guarded, run_pipeline
from pipelines.trunks import BUNDLED
from reporting.tables import accuracy_line, gate_line, per_label_table
from transforms import files
from transforms.close import CloseLedger, mark_completed
from transforms.core.errors import InputError
from transforms.core.finished import parse_info, read_info, read_labels
from transforms.core.schema import ALL, COMPLETED_FILE, INFO_FILE, LABELS_FILE, QUARANTINE_FILE, TESTING, TRAINING
from transforms.core.splits import SplitPercentages
from transforms.evaluate import (
  BOTTLENECKS_BATCH_SIZE,
  CONFUSION_FILE,
  METRICS_FILE,
  PARTS_FOLDER,
  PER_LABEL_FILE,
  PREDICTIONS_FILE,
  CheckNotEmpty,
  CombineLabelStats,
  EvaluateShard,
  ScoreBottlenecks,
  ScoreImages,
  Scorer,
  WritePredictions,
  write_metrics,
)
from transforms.model_handler import BATCH_SIZE, ImageModelHandler
from transforms.shard_work import WorkShards
from transforms.sources import RecordsSource, Source, find_source

STAGE = "evaluate"
_OWNED = (PARTS_FOLDER, PREDICTIONS_FILE, PER_LABEL_FILE, CONFUSION_FILE, METRICS_FILE)


@dataclasses.dataclass(frozen=True)
class Config:
  """What `build` needs to know.

  Attributes:
    source: the pictures, or the stored bottlenecks.
    splits: which of its splits are evaluated.
    percentages: how a source without splits of its own is split; None: not at all.
    scorer: where the scores come from.
    labels: the model's label list.
    output: the stage's folder.
    request: digest of the settings.
    execution_time: the job's start, as `time.ctime()` writes it.
    about: what `metrics.json` says besides the figures.
    min_accuracy: the gate, 0..1, or None.
    max_bad_fraction: 0..1.
  """

  source: Source
  splits: tuple[str, ...]
  percentages: SplitPercentages | None
  scorer: Scorer
  labels: Sequence[str]
  output: str
  request: str
  execution_time: str
  about: Mapping[str, Any]
  min_accuracy: float | None
  max_bad_fraction: float

  @property
  def parts_folder(self) -> str:
    return files.join(self.output, PARTS_FOLDER)


def build(root: beam.Pipeline, config: Config) -> None:
  """Plan, work, close."""
  shards = root | "Plan" >> config.source.plan(config.splits, config.percentages)
  checked = shards | "CheckNotEmpty" >> CheckNotEmpty(
    f"{config.source.path} has no pictures of the split {' or '.join(config.splits)}: give another --input or --split."
  )
  reports = shards | "Work" >> WorkShards(
    EvaluateShard(config.scorer, config.labels),
    output=config.parts_folder,
    request=config.request,
    checked=checked,
  )
  predictions = reports | "WritePredictions" >> WritePredictions(
    parts_folder=config.parts_folder, output=config.output, execution_time=config.execution_time
  )
  label_stats = reports | "CombineLabelStats" >> CombineLabelStats(config.labels)
  ledger = (shards, reports) | "Close" >> CloseLedger(output=config.output, shards_folder=config.parts_folder)
  metrics = ledger | "WriteMetrics" >> beam.Map(
    write_metrics, beam.pvalue.AsSingleton(label_stats), config.output, config.min_accuracy, config.about
  )
  _ = ledger | "MarkCompleted" >> beam.Map(
    mark_completed,
    config.output,
    config.max_bad_fraction,
    beam.pvalue.AsList(predictions),
    beam.pvalue.AsList(metrics),
  )


def make_parser() -> argparse.ArgumentParser:
  parser = ArgumentParser(
    prog="beam-retrain evaluate",
    description=(
      "Says of every picture what the model takes it for, and of every label how much of it was right.\n\n"
      f"writes   OUTPUT/{PREDICTIONS_FILE} (the article's columns first), {PER_LABEL_FILE}, {CONFUSION_FILE},\n"
      f"         {METRICS_FILE}, {QUARANTINE_FILE}, stats.json, info.json and, last, COMPLETED\n\n"
      "A run that was killed goes on where it was: finished shards are kept."
    ),
    epilog=(
      "example:\n  beam-retrain evaluate --model flowers/model --input flower_photos --split testing"
      " --output flowers/evaluation\n\n"
      "Any Beam option may follow, for example --runner=FlinkRunner, or\n"
      "  --direct_running_mode=multi_processing --direct_num_workers=2   for two processes on this machine."
    ),
  )
  parser.add_argument("--model", required=True, metavar="DIR", help="what `train` wrote")
  parser.add_argument(
    "--input",
    required=True,
    metavar="DIR",
    help="pictures: any input of `bottlenecks`; or what `bottlenecks` wrote: then only the model's head runs (seconds)",
  )
  parser.add_argument(
    "--output", required=True, metavar="DIR", help="folder to write; new, empty, or of an earlier run"
  )
  parser.add_argument(
    "--split",
    choices=("auto", "testing", "all"),
    default="auto",
    help="auto (default): the testing pictures of an input that has splits of its own (IDX files, folders training/ and"
    " testing/, records, bottlenecks), all pictures of plain class folders. testing, of plain class folders: those that"
    " were set aside, by the hash of their names, when the model was made. all: the training pictures too",
  )
  parser.add_argument(
    "--min_accuracy",
    type=fraction,
    metavar="A",
    help="gate, 0..1: with an accuracy below it the exit code is 1 (default: none set)",
  )
  add_model_flags(parser, f"{BATCH_SIZE}; of stored bottlenecks {BOTTLENECKS_BATCH_SIZE}")
  add_max_bad_fraction(parser)
  return parser


def run(argv: Sequence[str]) -> int:
  """Runs the stage; returns its exit code.

  Raises:
    InputError: something that the user gave cannot be used.
  """
  flags, options = parse_with_beam_options(make_parser(), argv)
  for name in ("model", "input", "output"):
    setattr(flags, name, files.absolute(getattr(flags, name)))
  config = _claim(flags, argv)
  run_pipeline(lambda root: build(root, config), options, stage="evaluate", shards_folder=config.parts_folder)
  if files.exists(files.join(config.output, COMPLETED_FILE)):
    # Not in the job: a step that is tried again must find the parts. Not without COMPLETED: the next run goes on.
    files.delete([config.parts_folder])
  metrics = json.loads(files.read_bytes(files.join(config.output, METRICS_FILE)))
  _print_summary(metrics, config)
  code = exit_code(output_folder.read_stats(config.output), config.output, config.max_bad_fraction)
  missed = metrics["gates"]["min_accuracy"]["state"] == "missed"
  return GATE_MISSED if code == DONE and missed else code


def _claim(flags: argparse.Namespace, argv: Sequence[str]) -> Config:
  """Checks everything that can be checked before the work, then makes the output folder this run's."""
  execution_time = time.ctime()
  model_info = read_info(flags.model, "train", files.exists, files.read_bytes)
  labels = read_labels(flags.model, files.read_bytes)
  saved_model = files.join(flags.model, "saved_model")
  stored = _holds_bottlenecks(flags.input)
  source = _stored_bottlenecks(flags, model_info) if stored else find_source(flags.input, len(labels))
  _check_labels(source, labels, flags.model)
  splits, percentages = choose_splits(source, flags.split, float(model_info["settings"]["testing_percentage"]))
  source.plan(splits, percentages)  # finds what is missing before the old output is touched
  output_folder.refuse_overlap(flags.input, flags.output)
  batch_size = flags.batch_size or (BOTTLENECKS_BATCH_SIZE if stored else BATCH_SIZE)
  about = {"splits": list(splits), "trunk": model_info["trunk"]["handle"], "stored_bottlenecks": stored}
  settings = {
    **about,
    "input": flags.input,
    "model_fingerprint": _fingerprint(saved_model),
    "labels": labels,
    "testing_percentage": percentages.testing if percentages else None,
    "batch_size": batch_size,
    "max_pixels": flags.max_pixels,
    "min_accuracy": flags.min_accuracy,
  }
  request = output_folder.claim(
    flags.output,
    stage=STAGE,
    settings=settings,
    argv=argv,
    owned=_OWNED,
    shards_folder=PARTS_FOLDER,
    model=flags.model,
    trunk=model_info["trunk"],
    labels=labels,
  )
  files.write_text(files.join(flags.output, LABELS_FILE), "".join(f"{label}\n" for label in labels))
  scorer: Scorer
  if stored:
    scorer = ScoreBottlenecks(saved_model, labels, batch_size=batch_size)
  else:
    handler = ImageModelHandler(
      saved_model, batch_size=batch_size, threads=flags.trunk_threads or 0, max_pixels=flags.max_pixels
    )
    scorer = ScoreImages(handler, labels)
  return Config(
    source=source,
    splits=splits,
    percentages=percentages,
    scorer=scorer,
    labels=labels,
    output=flags.output,
    request=request,
    execution_time=execution_time,
    about=about,
    min_accuracy=flags.min_accuracy,
    max_bad_fraction=flags.max_bad_fraction,
  )


def _holds_bottlenecks(folder: str) -> bool:
  info_path = files.join(folder, INFO_FILE)
  return files.exists(info_path) and parse_info(files.read_bytes(info_path)).get("stage") == "bottlenecks"


def _stored_bottlenecks(flags: argparse.Namespace, model_info: Mapping[str, Any]) -> RecordsSource:
  info = read_info(flags.input, "bottlenecks", files.exists, files.read_bytes)
  found, wanted = info["trunk"], model_info["trunk"]
  if found["fingerprint"] != wanted["fingerprint"]:
    raise InputError(
      f"the bottlenecks in {flags.input} are of another trunk ({found['handle']}, {found['fingerprint'][:12]}) than the"
      f" model in {flags.model} ({wanted['handle']}, {wanted['fingerprint'][:12]}): evaluate pictures, or run"
      " `beam-retrain bottlenecks` with the model's trunk."
    )
  return RecordsSource(flags.input, files.join(flags.input, "records"))


def _check_labels(source: Source, labels: Sequence[str], model: str) -> None:
  unknown = [label for label in source.labels if label not in labels]
  if unknown:
    raise InputError(
      f"labels differ: {source.path} has {_listed(unknown)}, the model in {model} knows {_listed(labels)}: remove or"
      " rename what it cannot know, or train on these labels."
    )


def _listed(labels: Sequence[str]) -> str:
  more = f" and {len(labels) - 10} more" if len(labels) > 10 else ""
  return ", ".join(map(repr, labels[:10])) + more


def choose_splits(
  source: Source, split: str, testing_percentage: float
) -> tuple[tuple[str, ...], SplitPercentages | None]:
  """Returns the splits to plan for `--split`, and how a source without splits of its own is cut.

  Args:
    source: the pictures.
    split: `auto`, `testing` or `all`.
    testing_percentage: what the model's bottlenecks were made with, so that no training image is tested on.
  """
  if source.has_splits:
    return ((TRAINING, TESTING) if split == "all" else (TESTING,)), None
  if split == "testing":
    return (TESTING,), SplitPercentages(testing=testing_percentage, validation=0.0)
  return (ALL,), None


def _fingerprint(folder: str) -> str:
  """Returns the SHA-256, 64 hex digits, of a folder's files and their names; the folder may be remote."""
  digest = hashlib.sha256()
  for stat in files.match_in(folder, "**"):
    digest.update(stat.path.removeprefix(folder).encode() + b"\0")
    digest.update(hashlib.sha256(files.read_bytes(stat.path)).digest())
  return digest.hexdigest()


def _print_summary(metrics: Mapping[str, Any], config: Config) -> None:
  which = "all pictures" if config.splits == (ALL,) else f"the {' and '.join(sorted(config.splits))} pictures"
  kind = ", from stored bottlenecks" if metrics["stored_bottlenecks"] else ""
  print(accuracy_line(metrics))
  print(f"{which} of {files.shown(config.source.path)}{kind}")
  if metrics["trunk"] == BUNDLED:
    print("the trunk is the bundled stand-in: for real work train with --trunk inception_v3")
  print(f"\n{per_label_table(metrics)}\n")
  print(gate_line(metrics))
  for name in (PREDICTIONS_FILE, PER_LABEL_FILE, CONFUSION_FILE, METRICS_FILE, QUARANTINE_FILE):
    print(files.shown(files.join(config.output, name)))


if __name__ == "__main__":
  sys.exit(guarded(run, sys.argv[1:]))
