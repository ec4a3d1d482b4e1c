"""`beam-retrain evaluate`: images through an exported model, or stored bottlenecks through its head."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence

from beam_retrain.pipelines.engines.dataflow import ask_for_memory, refuse_more_jobs, what_was_built
from beam_retrain.pipelines.evaluation.finish import (
  REPORT_FILE,
  Config,
  Limits,
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
from beam_retrain.pipelines.jobs.runner import DONE, guarded, run_pipeline
from beam_retrain.pipelines.models.execution import Execution, choose_execution
from beam_retrain.pipelines.models.model_trunk import ModelTrunk
from beam_retrain.pipelines.models.trained import Model, check_labels, choose_splits, split_settings, which_images
from beam_retrain.pipelines.models.trunk_sources import BUNDLED
from beam_retrain.pipelines.options.arguments import (
  ArgumentParser,
  add_gate_flags,
  add_max_bad_fraction,
  add_model_flags,
  add_slice_flags,
  parse_job,
  refuse_unreachable,
  thresholds_of,
)
from beam_retrain.pipelines.options.precision import add_model_precision_flags, given_precision
from beam_retrain.pipelines.options.retrain_names import retrain_names_setting, tell_left_out
from beam_retrain.reporting.gates import gate_lines, verdict_line
from beam_retrain.reporting.text_tables import per_label_table
from beam_retrain.transforms.bottlenecks.model_handler import BATCH_SIZE
from beam_retrain.transforms.bottlenecks.store import STORES_FOLDER, find_stores
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics.figures import MODEL, Metrics, ModelMetrics
from beam_retrain.transforms.core.metrics.metrics_file import METRICS_FILE
from beam_retrain.transforms.core.records.schema import QUARANTINE_FILE
from beam_retrain.transforms.core.run.run_info import RunInfo, describe_run, find_info, read_info
from beam_retrain.transforms.evaluation.compare import SLICES_FILE, CompareNights
from beam_retrain.transforms.evaluation.evaluate import (
  CONFUSION_FILE,
  PARTS_FOLDER,
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
from beam_retrain.transforms.sources.base import Source
from beam_retrain.transforms.sources.find import find_source
from beam_retrain.transforms.sources.records import RecordsSource

STAGE = "evaluate"
_OWNED = (
  PARTS_FOLDER,
  STORES_FOLDER,
  PREDICTIONS_FILE,
  PER_LABEL_FILE,
  CONFUSION_FILE,
  SUSPICIOUS_FILE,
  SLICES_FILE,
  METRICS_FILE,
  REPORT_FILE,
)


def make_parser() -> argparse.ArgumentParser:
  parser = ArgumentParser(
    prog="beam-retrain evaluate",
    description=(
      "Says of every image what the model takes it for, and of every label how much of it was right.\n\n"
      f"writes   OUTPUT/{REPORT_FILE} (all there is to see, one file), {PREDICTIONS_FILE} (the article's columns\n"
      f"         first), {PER_LABEL_FILE}, {CONFUSION_FILE}, {SUSPICIOUS_FILE}, {METRICS_FILE},\n"
      f"         {QUARANTINE_FILE}, stats.json, info.json and, last, COMPLETED\n\n"
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
    help="images: any input of `bottlenecks`; or what `bottlenecks` wrote: then only the model's head runs (seconds)",
  )
  parser.add_argument(
    "--output", required=True, metavar="DIR", help="folder to write; new, empty, or of an earlier run"
  )
  parser.add_argument(
    "--split",
    choices=("auto", "testing", "all"),
    default="auto",
    help="auto (default): the testing images of an input that has splits of its own (IDX files, folders training/ and"
    " testing/, records, bottlenecks), all images of plain class folders. testing, of plain class folders: those that"
    " were set aside, by the hash of their names, when the model was made (in a manifest without splits: if it names"
    " the images as they were named then). all: the training images too",
  )
  parser.add_argument(
    "--reuse",
    action="append",
    default=[],
    metavar="DIR",
    help="take the bottlenecks of images that are in DIR already (what `bottlenecks` wrote, an evaluation with"
    " --reuse, or a night of `reevaluate`), run the trunk over the others only, and keep all in"
    f" OUTPUT/{STORES_FOLDER}; may be given more than once",
  )
  add_slice_flags(parser)
  add_gate_flags(parser)
  add_model_flags(parser, f"{BATCH_SIZE}; of stored bottlenecks {BOTTLENECKS_BATCH_SIZE}")
  add_model_precision_flags(parser)
  add_max_bad_fraction(parser)
  return parser


def run(argv: Sequence[str]) -> int:
  """Runs the stage; returns its exit code.

  Raises:
    InputError: something that the user gave cannot be used.
  """
  flags, options = parse_job(make_parser(), argv)
  read_paths(flags, "model", "input", "output", "reuse", "manifest")
  refuse_unreachable(options, flags.model, flags.input, flags.output, flags.reuse, flags.manifest)
  execution = choose_execution(flags.batch_size, flags.trunk_threads, options)
  refuse_more_jobs(options, flags.output)
  config, about, info, trunk = _claim(flags, argv, execution)
  ask_for_memory(options, flags.model)
  run_pipeline(lambda root: build(root, config), options, stage=STAGE, shards_folder=config.longest_work_folder)
  if built := what_was_built(options):
    print(built)
    return DONE
  checked = check_trunk(trunk, config, execution.threads.here, flags.max_pixels) if trunk else None
  about = dataclasses.replace(about, model=ModelMetrics(trunk_kind=checked.info if checked else None))
  figures = read_figures(config.output)
  limits = Limits(thresholds_of(flags), flags.max_bad_fraction)
  metrics = judge_figures(figures, about, limits, config.output)
  write_report(metrics, figures, info, f"Evaluation of {files.shown(flags.input)}", config.output)
  complete(config, flags.max_bad_fraction)
  _print_summary(metrics, config, f"{checked.told}; {execution.describe()}" if checked else "")
  return outcome(metrics, config.output, flags.max_bad_fraction)


def _claim(
  flags: argparse.Namespace, argv: Sequence[str], execution: Execution
) -> tuple[Config, Metrics, RunInfo, ModelTrunk | None]:
  """Checks everything that can be checked before the work, then makes the output folder this run's.

  Returns:
    What the job needs, what `metrics.json` says besides the figures, the contents of `info.json`, and the trunk, if the
    input is images.
  """
  execution_time = time.ctime()
  model = Model(flags.model)
  stored = _holds_bottlenecks(flags.input)
  if stored:
    for flag in [*(["--reuse"] if flags.reuse else []), *given_precision(flags)]:
      name = flag.split("=")[0]
      raise InputError(f"{name} is for images: --input holds bottlenecks already; leave {name} out.")
  source: Source
  if stored:
    source = _stored_bottlenecks(flags, model)
  else:
    source = find_source(flags.input, len(model.labels), min_classes=1, retrain_names=model.retrain_names)
    tell_left_out(source)
  check_labels(source, model)
  splits, percentages = choose_splits(source, flags.split, model.percentages, [model])
  source.plan(splits, percentages)  # finds what is missing before the old output is touched
  output_dir.validate_apart(flags.input, flags.output)
  batch_size = (flags.batch_size or BOTTLENECKS_BATCH_SIZE) if stored else execution.batch_size
  trunk = None if stored else ModelTrunk(model, flags.precision, flags.runtime)
  stores = find_stores(flags.reuse, trunk.fingerprint, model.preprocessing) if trunk else []
  head = HeadOf(model.head, 0, tuple(model.labels)) if flags.reuse else None
  compare = None
  if flags.manifest:
    compare = CompareNights(
      parts_folder=files.join(flags.output, PARTS_FOLDER),
      output=flags.output,
      models=[MODEL],
      manifest=flags.manifest,
      min_slice_size=flags.min_slice_size,
      slices_only=True,
    )
  about = Metrics(ModelMetrics(), splits=splits, trunk=model.info.trunk.handle, stored_bottlenecks=stored)
  settings = {
    "splits": list(splits),
    "trunk": about.trunk,
    "stored_bottlenecks": stored,
    "input": flags.input,
    "model_fingerprint": model.fingerprint,
    "labels": model.labels,
    **split_settings(percentages),
    **retrain_names_setting(model.retrain_names),
    "trunk_fingerprint": trunk.fingerprint if trunk else model.info.trunk.fingerprint,
    "batch_size": batch_size,
    "max_pixels": flags.max_pixels,
    "reuse": bool(flags.reuse),
    "preprocessing": model.preprocessing,
  }
  run_info = describe_run(
    STAGE,
    settings,
    argv,
    model=flags.model,
    trunk=(trunk.info if trunk else model.info.trunk),
    labels=model.labels,
    execution=execution.to_info() if trunk else {},
  )
  output_dir.claim(flags.output, run_info, owned=_OWNED, shards_folder=PARTS_FOLDER)
  scorer: Scorer
  trunks = []
  if trunk is None:
    scorer = ScoreBottlenecks(
      model.saved_model, model.labels, head=model.head if model.has_head else None, batch_size=batch_size
    )
  elif head:
    trunks = [claim_store(flags.output, trunk, stores, execution, flags.max_pixels)]
    scorer = ScoreWithHeads([head])
  else:
    scorer = ScoreImages(trunk.to_scores(**execution.of_handler, max_pixels=flags.max_pixels), model.labels)
  config = Config(
    source=source,
    splits=splits,
    percentages=percentages,
    scorer=scorer,
    models={MODEL: model.labels},
    output=flags.output,
    request=run_info.request,
    execution_time=execution_time,
    trunks=trunks,
    compare=compare,
  )
  return config, about, run_info, trunk


def _holds_bottlenecks(folder: str) -> bool:
  info = find_info(folder, files)
  return info is not None and info.stage == "bottlenecks"


def _stored_bottlenecks(flags: argparse.Namespace, model: Model) -> RecordsSource:
  info = read_info(flags.input, "bottlenecks", files)
  found, wanted = info.trunk, model.info.trunk
  if found.fingerprint != wanted.fingerprint:
    raise InputError(
      f"the bottlenecks in {flags.input} are of another trunk ({found.handle}, {found.fingerprint[:12]}) than the"
      f" model in {flags.model} ({wanted.handle}, {wanted.fingerprint[:12]}): evaluate images, or run"
      " `beam-retrain bottlenecks` with the model's trunk."
    )
  return RecordsSource(flags.input)


def _print_summary(metrics: Metrics, config: Config, of_trunk: str) -> None:
  kind = ", from stored bottlenecks" if metrics.stored_bottlenecks else ""
  print(verdict_line(metrics))
  print(f"{which_images(config.splits)} of {files.shown(config.source.path)}{kind}")
  if of_trunk:
    print(of_trunk)
  if metrics.trunk == BUNDLED:
    print("the trunk is the bundled stand-in: for real work train with --trunk inception_v3")
  print(f"\n{per_label_table(metrics.model)}\n")
  for line in gate_lines(metrics):
    print(line)
  for name in (
    REPORT_FILE,
    PREDICTIONS_FILE,
    PER_LABEL_FILE,
    CONFUSION_FILE,
    SUSPICIOUS_FILE,
    METRICS_FILE,
    QUARANTINE_FILE,
  ):
    print(files.shown(files.join(config.output, name)))


if __name__ == "__main__":
  sys.exit(guarded(run, sys.argv[1:]))
