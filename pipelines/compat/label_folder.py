"""`beam-retrain label_image --process_mode=2`: labels a folder by a frozen graph.

Without `--output` the files go into the current folder, as with the script, and the shards into a hidden one in it,
whose name depends on the request alone: a killed run finds its own, a finished one removes it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.compat.label_image import EXAMPLE_FOLDER, PROG, make_parser, open_graph
from beam_retrain.pipelines.jobs.locks import hold_output
from beam_retrain.pipelines.jobs.runner import claim_output, exit_code, run_pipeline
from beam_retrain.pipelines.options.request import parse_job
from beam_retrain.transforms.compat.frozen_graph import (
  ACCURATE,
  UNKNOWN_FOLDER,
  FrozenGraphHandler,
  LabelShard,
  join_parts,
  plan_image_tree,
)
from beam_retrain.transforms.core.compat.digit_file import FILE_NAME, QUARANTINE_NAME
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.printing import print, say
from beam_retrain.transforms.core.records.schema import QUARANTINE_FILE
from beam_retrain.transforms.core.run.flags import expand
from beam_retrain.transforms.core.run.output_folder import is_completed
from beam_retrain.transforms.core.run.run_info import RunInfo, describe_run, request_digest
from beam_retrain.transforms.core.run.stats import read_stats
from beam_retrain.transforms.core.system.local_files import LOCK_FILE
from beam_retrain.transforms.core.system.locks import claim_of
from beam_retrain.transforms.evaluation.evaluate import check_not_empty
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.ledger import CloseLedger, mark_completed
from beam_retrain.transforms.shards.work import WorkShards

STAGE = "label_image"
PARTS_FOLDER = ".parts"


@dataclasses.dataclass(frozen=True)
class Job:
  folder: str  # of the images, by the path that workers read
  shown_as: str  # how the user spelled it
  work: LabelShard
  work_folder: str  # the output, or the hidden folder
  digit_file: str
  quarantine_file: str
  info: RunInfo

  @property
  def parts_folder(self) -> str:
    return files.join(self.work_folder, PARTS_FOLDER)

  def build(self, root: beam.Pipeline) -> None:
    """Plan, work, close."""
    shards = plan_image_tree(root, self.folder, self.shown_as)
    checked = check_not_empty(shards, f"{self.shown_as} has no files: give a folder of images as --directory_name.")
    reports = shards | "Work" >> WorkShards(
      self.work, output=self.parts_folder, request=self.info.request, checked=checked
    )
    _ = (shards, reports) | "Close" >> CloseLedger(output=self.work_folder, shards_folder=self.parts_folder)


def run(argv: Sequence[str]) -> int:
  """Labels the folder; returns the exit code."""
  execution_time = time.ctime()
  flags, options = parse_job(make_parser(), argv)
  job = _plan(flags, expand(make_parser(), argv))
  if not files.is_local(job.work_folder):
    files.check_reachable([job.work_folder])
  try:
    with hold_output(job.work_folder, PROG):
      return _work(job, flags, options, execution_time)
  finally:
    if not flags.output:
      with contextlib.suppress(OSError):  # something is left to resume
        os.rmdir(job.work_folder)


def _work(job: Job, flags: argparse.Namespace, options: PipelineOptions, execution_time: str) -> int:
  claim_output(job.work_folder, job.info, owned=(PARTS_FOLDER, FILE_NAME), shards_folder=PARTS_FOLDER, has_labels=False)
  try:
    run_pipeline(job.build, options, stage=STAGE, shards_folder=job.parts_folder)
  except InputError:
    if not flags.output:
      _delete_work(job.work_folder)  # nothing to resume: the same request fails again
    raise
  stats = read_stats(job.work_folder, files)
  counts = join_parts(job.parts_folder, job.digit_file, execution_time)
  mark_completed(stats, claim_of(job.work_folder), flags.max_bad_fraction)
  listed = files.join(job.work_folder, QUARANTINE_FILE)
  if stats.quarantined and listed != job.quarantine_file:
    files.write_bytes(job.quarantine_file, files.read_bytes(listed))
  if is_completed(job.work_folder, files):
    # Without COMPLETED the next run resumes from them.
    if flags.output:
      files.delete([job.parts_folder])
    else:
      _delete_work(job.work_folder)
  print(f"results saved to {files.shown(job.digit_file)}")
  print(f"Total files tested: {stats.outputs}")
  print(f"Accurate predictions: {counts[ACCURATE]}")
  if stats.outputs:
    print(f"Accuracy rate {counts[ACCURATE] * 100 / stats.outputs}")
  if unknown := counts[UNKNOWN_FOLDER]:
    say(f"{PROG}: {unknown} of them count as wrong, as their folder's name is not a label.", file=sys.stderr)
  folder, name = files.split(job.quarantine_file)
  return exit_code(stats, folder, flags.max_bad_fraction, name)


def _delete_work(folder: str) -> None:
  files.delete(os.path.join(folder, name) for name in os.listdir(folder) if name != LOCK_FILE)


def _plan(flags: argparse.Namespace, argv: Sequence[str]) -> Job:
  """Checks the request and loads the graph; changes nothing."""
  start_secs = time.time()
  if flags.image:
    say(f"{PROG}: --image is for --process_mode=1 and is ignored.", file=sys.stderr)
  shown_as = flags.directory_name or EXAMPLE_FOLDER
  if files.is_local(shown_as):
    shown_as = str(Path(shown_as))  # without a trailing slash, as in the script
    if not os.path.isdir(shown_as):
      kind = "is not a folder" if os.path.exists(shown_as) else "does not exist"
      raise InputError(f"{shown_as} {kind}: give a folder of images as --directory_name.")
  folder = files.absolute(shown_as)
  target = files.absolute(flags.output or os.curdir)
  if files.is_local(target) and files.is_local(folder):
    # Or the CSV would be among the images of the next run.
    inner, outer = os.path.realpath(target), os.path.realpath(folder)
    if os.path.commonpath([inner, outer]) == outer:
      raise InputError(
        f"the CSV would be written into --directory_name {shown_as} itself: give another folder as --output."
      )
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
    work_folder, digit_name, quarantine_name = target, FILE_NAME, QUARANTINE_FILE
  else:
    work_folder = files.join(target, f".{STAGE}-{request_digest(STAGE, settings)[:16]}")
    digit_name, quarantine_name = f"{start_secs}{FILE_NAME}", f"{start_secs}{QUARANTINE_NAME}"
  info = describe_run(STAGE, settings, argv, labels=graph.labels, others={"graph": flags.graph})
  handler = FrozenGraphHandler(
    files.absolute(flags.graph),
    graph.call,
    batch_size=flags.batch_size,
    threads=flags.trunk_threads or 0,
    max_pixels=flags.max_pixels,
  )
  return Job(
    folder=folder,
    shown_as=shown_as,
    work=LabelShard(handler, graph.labels),
    work_folder=work_folder,
    digit_file=files.join(target, digit_name),
    quarantine_file=files.join(target, quarantine_name),
    info=info,
  )
