"""`beam-retrain label_image --process_mode=2`: labels a folder by a frozen graph.

Without `--output` the files go into the current folder, as with the script, and the shards into a hidden one in it,
whose name depends on the request alone: a killed run finds its own, a finished one removes it.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import apache_beam as beam

from beam_retrain.pipelines.compat.label_image import EXAMPLE_FOLDER, PROG, make_parser, open_graph
from beam_retrain.pipelines.jobs.runner import claim_output, exit_code, run_pipeline
from beam_retrain.pipelines.options.request import parse_job
from beam_retrain.transforms.compat.frozen_graph import (
  ACCURATE,
  FIGURES_FILE,
  UNKNOWN_FOLDER,
  FrozenGraphHandler,
  LabelShard,
  PlanImageTree,
  WriteDigitFile,
)
from beam_retrain.transforms.core.compat.digit_file import FILE_NAME, QUARANTINE_NAME
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import QUARANTINE_FILE
from beam_retrain.transforms.core.run.run_info import describe_run, is_completed, request_digest
from beam_retrain.transforms.core.run.stats import Stats, read_stats
from beam_retrain.transforms.evaluation.evaluate import check_not_empty
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.ledger import CloseLedger, mark_completed
from beam_retrain.transforms.shards.work import WorkShards

STAGE = "label_image"
PARTS_FOLDER = ".parts"


@dataclasses.dataclass(frozen=True)
class Config:
  """What `build` needs.

  Attributes:
    folder: the images, by the path that workers read.
    shown_as: how the user spelled it.
    labels: class index -> label.
    work_folder: claimed by this run: the output, or the hidden folder.
    execution_time: the job's start, as `time.ctime()` writes it.
  """

  folder: str
  shown_as: str
  handler: FrozenGraphHandler
  labels: Sequence[str]
  work_folder: str
  digit_file: str
  quarantine_file: str
  request: str
  execution_time: str

  @property
  def parts_folder(self) -> str:
    return files.join(self.work_folder, PARTS_FOLDER)


def run(argv: Sequence[str]) -> int:
  """Labels the folder; returns the exit code."""
  flags, options = parse_job(make_parser(), argv)
  config = _claim(flags, argv)
  try:
    run_pipeline(lambda root: build(root, config), options, stage=STAGE, shards_folder=config.parts_folder)
  except InputError:
    if not flags.output:
      files.delete([config.work_folder])  # nothing to resume: the same request fails again
    raise
  stats = read_stats(config.work_folder, files)
  figures = json.loads(files.read_bytes(files.join(config.parts_folder, FIGURES_FILE)))
  mark_completed(stats, config.work_folder, flags.max_bad_fraction)
  listed = files.join(config.work_folder, QUARANTINE_FILE)
  if stats.quarantined and listed != config.quarantine_file:
    files.write_bytes(config.quarantine_file, files.read_bytes(listed))
  if is_completed(config.work_folder, files):
    # Without COMPLETED the next run resumes from them.
    files.delete([config.parts_folder if flags.output else config.work_folder])
  _print_summary(stats, figures, config)
  folder, name = files.split(config.quarantine_file)
  return exit_code(stats, folder, flags.max_bad_fraction, name)


def _claim(flags: argparse.Namespace, argv: Sequence[str]) -> Config:
  """Checks the request, then claims the folder to work in."""
  start_secs, execution_time = time.time(), time.ctime()
  if flags.image:
    print(f"{PROG}: --image is for --process_mode=1 and is ignored.", file=sys.stderr)
  shown_as = flags.directory_name or EXAMPLE_FOLDER
  if files.is_local(shown_as):
    shown_as = str(Path(shown_as))  # without a trailing slash, as in the script
    if not os.path.isdir(shown_as):
      kind = "is not a folder" if os.path.exists(shown_as) else "does not exist"
      raise InputError(f"{shown_as} {kind}: give a folder of images as --directory_name.")
  folder = files.absolute(shown_as)
  goes_to = files.absolute(flags.output or os.curdir)
  _refuse_inside(goes_to, folder, shown_as)
  graph = open_graph(flags)
  settings = {
    "directory_name": shown_as,
    "folder": folder,
    "graph_sha256": hashlib.sha256(graph.data).hexdigest(),
    "labels": graph.labels,
    "call": graph.call._asdict(),
    "batch_size": flags.batch_size,
    "max_pixels": flags.max_pixels,
  }
  if flags.output:
    work_folder, prefix = goes_to, ""
  else:
    work_folder, prefix = files.join(goes_to, f".{STAGE}-{request_digest(STAGE, settings)[:16]}"), str(start_secs)
  info = describe_run(STAGE, settings, argv, labels=graph.labels, others={"graph": flags.graph})
  claim_output(work_folder, info, owned=(PARTS_FOLDER, FILE_NAME), shards_folder=PARTS_FOLDER, has_labels=False)
  handler = FrozenGraphHandler(
    files.absolute(flags.graph),
    graph.call._asdict(),
    batch_size=flags.batch_size,
    threads=flags.trunk_threads or 0,
    max_pixels=flags.max_pixels,
  )
  return Config(
    folder=folder,
    shown_as=shown_as,
    handler=handler,
    labels=graph.labels,
    work_folder=work_folder,
    digit_file=files.join(goes_to, f"{prefix}{FILE_NAME}"),
    quarantine_file=files.join(goes_to, QUARANTINE_FILE if flags.output else f"{prefix}{QUARANTINE_NAME}"),
    request=info.request,
    execution_time=execution_time,
  )


def _refuse_inside(goes_to: str, folder: str, shown_as: str) -> None:
  """Checks that no output lies among the images of the next run."""
  if files.is_local(goes_to) and files.is_local(folder):
    inner, outer = os.path.realpath(goes_to), os.path.realpath(folder)
    if os.path.commonpath([inner, outer]) == outer:
      raise InputError(
        f"the CSV would be written into --directory_name {shown_as} itself: give another folder as --output."
      )


def build(root: beam.Pipeline, config: Config) -> None:
  """Plan, work, close."""
  shards = root | "Plan" >> PlanImageTree(config.folder, config.shown_as)
  checked = check_not_empty(shards, f"{config.shown_as} has no files: give a folder of images as --directory_name.")
  reports = shards | "Work" >> WorkShards(
    LabelShard(config.handler, config.labels), output=config.parts_folder, request=config.request, checked=checked
  )
  _ = reports | "WriteDigitFile" >> WriteDigitFile(
    parts_folder=config.parts_folder, path=config.digit_file, execution_time=config.execution_time
  )
  _ = (shards, reports) | "Close" >> CloseLedger(output=config.work_folder, shards_folder=config.parts_folder)


def _print_summary(stats: Stats, figures: Mapping[str, int], config: Config) -> None:
  total, accurate = stats.outputs, figures[ACCURATE]
  print(f"results saved to {files.shown(config.digit_file)}")
  print(f"Total files tested: {total}")
  print(f"Accurate predictions: {accurate}")
  if total:
    print(f"Accuracy rate {accurate * 100 / total}")
  if figures[UNKNOWN_FOLDER]:
    print(
      f"{PROG}: {figures[UNKNOWN_FOLDER]} of them count as wrong, as their folder's name is not a label.",
      file=sys.stderr,
    )
