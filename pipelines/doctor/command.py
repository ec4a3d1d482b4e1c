"""`beam-retrain doctor`: whether an engine, its workers and this machine fit together, before a long job finds out."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from apache_beam.options.pipeline_options import (
  DirectOptions,
  FlinkRunnerOptions,
  PipelineOptions,
  PortableOptions,
  SparkRunnerOptions,
  StandardOptions,
)

import beam_retrain.transforms.core
from beam_retrain.pipelines.doctor.probe_job import Probe, probe
from beam_retrain.pipelines.doctor.worker_report import describe_process, read_start
from beam_retrain.pipelines.engines.checks import look_at_engine
from beam_retrain.pipelines.engines.dataflow import is_dataflow
from beam_retrain.pipelines.engines.environment import (
  FLINK,
  LOOPBACK,
  SPARK,
  environment_of,
  is_embedded,
  loopback_is_processes,
  runner_of,
)
from beam_retrain.pipelines.engines.findings import (
  Finding,
  Process,
  Severity,
  compare_versions,
  count_processes,
  describe_driver,
  explain,
  fine,
  look_at_memory,
  look_at_paths,
  problem,
  warning,
)
from beam_retrain.pipelines.jobs.runner import DONE, FAILED, guarded
from beam_retrain.pipelines.models.execution import is_local
from beam_retrain.pipelines.models.trunk_sources import BUNDLED, INCEPTION_V3
from beam_retrain.pipelines.models.trunk_sources import HELP as TRUNK_HELP
from beam_retrain.pipelines.options.arguments import ArgumentParser, parse_with_beam_options, positive_int
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.system.cpu import cores_given
from beam_retrain.transforms.io import files

_SECS, _DATAFLOW_SECS = 60, 900
_DRIVER_FILE = "driver"
_BUNDLED = str(Path(beam_retrain.transforms.core.__file__).parent / "bundled_trunk" / "weights.npz")

_DESCRIPTION = """\
Sends a tiny job to the engine that the flags name, whose workers say what they are, and prints a line for whatever it
looked at: `ok`, a `warning`, or a `problem` with its remedy. Give the flags that you will give to the job.

It looks at: Java, the job server's jar, the master; which of Beam's local runners DirectRunner is here; how many worker
processes there are, and on which machines; the versions of Python, Beam, TensorFlow and beam-retrain; whether workers
read and write where this machine does; whether their memory does for the trunk. No file is left behind."""

_EPILOG = """\
examples:
  beam-retrain doctor --output /shared/flowers/bottlenecks --runner=FlinkRunner --flink_master=localhost:8081 \\
    --environment_type=EXTERNAL --environment_config=localhost:50000
  beam-retrain doctor --direct_running_mode=multi_processing --direct_num_workers=2

The exit code is 0 without a problem, 2 with one."""


def make_parser() -> argparse.ArgumentParser:
  parser = ArgumentParser(prog="beam-retrain doctor", description=_DESCRIPTION, epilog=_EPILOG)
  parser.add_argument("--trunk", default=BUNDLED, help=f"{TRUNK_HELP}; not fetched (default: %(default)s)")
  parser.add_argument(
    "--output", metavar="DIR", help="where the job will write; a file is written beside it, and removed again"
  )
  parser.add_argument(
    "--timeout_secs",
    type=positive_int,
    metavar="N",
    help=f"how long the engine may take for the tiny job (default: {_SECS}, Dataflow {_DATAFLOW_SECS})",
  )
  return parser


def run(argv: Sequence[str]) -> int:
  """Looks, and prints; returns the exit code.

  Raises:
    InputError: the command line itself is wrong.
  """
  parser = make_parser()
  flags, options = parse_with_beam_options(parser, argv)
  problems = 0
  for finding in examine(flags, options, parser.parse_known_args(argv)[1]):
    print(finding, flush=True)
    problems += finding.severity == Severity.PROBLEM
  return FAILED if problems else DONE


def examine(flags: argparse.Namespace, options: PipelineOptions, beam_flags: Sequence[str]) -> Iterator[Finding]:
  """Yields what there is to say, as it is found. No job is sent to an engine that cannot be had.

  Raises:
    InputError: there is no such trunk.
  """
  trunk = _find_trunk(flags.trunk)
  driver = Process.from_json(describe_process())
  yield describe_driver(driver)
  unfit = [*look_at_engine(options), *_look_at_cache(options)]
  yield from unfit
  if any(finding.severity == Severity.PROBLEM for finding in unfit):
    return
  with contextlib.ExitStack() as stack:
    folder = ""
    try:
      # Beam's local runner, for one, gives the metrics of one of its processes alone: they write, too.
      here = files.join(tempfile.gettempdir(), "output") if is_local(options) or is_embedded(options) else ""
      folder = stack.enter_context(_folder_beside(flags.output or here))
    except OSError as error:
      cause = f"this machine cannot write beside it ({error.strerror or error})"
      yield problem(f"--output {flags.output}", cause, "give another path, or change who may write there")
    yield from _send(driver, trunk, folder, flags, options, beam_flags)


class _Trunk(NamedTuple):
  """Attributes:
  handle: as the user gave it.
  file: one that workers should be able to read; empty: none is where they would read it.
  size_bytes: as it is stored; None: not known before it is had.
  """

  handle: str
  file: str
  size_bytes: int | None


def _find_trunk(handle: str) -> _Trunk:
  if handle == BUNDLED:
    return _Trunk(handle, "", os.path.getsize(_BUNDLED))
  if os.path.isdir(handle):
    found = files.match_in(files.absolute(handle), "**")
    return _Trunk(handle, found[0].path if found else "", sum(file.size_bytes for file in found))
  if handle == INCEPTION_V3 or ":" in handle:
    return _Trunk(handle, "", None)
  raise InputError(f"--trunk {handle} is no folder and no TF Hub handle: give one of {TRUNK_HELP}.")


@contextlib.contextmanager
def _folder_beside(output: str) -> Iterator[str]:
  """Gives a new folder beside the output, or, where that has no parent yet, in the nearest one; empty without one."""
  if not output:
    yield ""
    return
  parent = files.split(files.absolute(output))[0]
  while files.is_local(parent) and not os.path.isdir(parent):
    parent = os.path.dirname(parent)
  folder = files.join(parent, f".beam-retrain-doctor-{os.urandom(8).hex()}")
  files.make_folder(folder)  # with the permissions that the job's own folders get
  try:
    files.write_bytes(files.join(folder, _DRIVER_FILE), os.urandom(16))
    yield folder
  finally:
    files.delete([*(file.path for file in files.match_in(folder, "*")), *([folder] if files.is_local(folder) else [])])


def _send(
  driver: Process,
  trunk: _Trunk,
  folder: str,
  flags: argparse.Namespace,
  options: PipelineOptions,
  beam_flags: Sequence[str],
) -> Iterator[Finding]:
  """Sends the job, and yields what it brings."""
  output = f"--output {flags.output}" if flags.output and folder else ""
  named = {trunk.file: f"--trunk {trunk.handle}"} if trunk.file else {}
  if output:
    named[files.join(folder, _DRIVER_FILE)] = output
  timeout_secs = flags.timeout_secs or (_DATAFLOW_SECS if is_dataflow(options) else _SECS)
  read = {path: read_start(path).hex() for path in named}
  found = probe(beam_flags, {"read": read, "folder": folder}, timeout_secs)
  yield _describe_job(found, options, timeout_secs)
  if found.is_late or found.error:
    return
  said = {Process.from_json(report) for report in found.processes}
  written = set(_read_reports(folder))
  workers = sorted(said | written)
  if not workers:
    remedy = "give --output, a folder that they and this machine see"
    yield problem("workers", "they did the job, and this engine has no metrics by which they could say more", remedy)
    return
  yield count_processes(dataclasses.replace(driver, pid=found.pid), workers, *_processes_meant(options))
  yield from compare_versions(driver, workers)
  unseen = [worker for worker in workers if folder and not worker.unwritten and worker not in written]
  yield from look_at_paths(workers, named, output, unseen)
  yield from look_at_memory(workers, trunk.size_bytes, trunk.handle)


def _read_reports(folder: str) -> Iterator[Process]:
  if folder:
    for file in files.match_in(folder, "*.json"):
      yield Process.from_json(json.loads(files.read_bytes(file.path)))


def _describe_job(found: Probe, options: PipelineOptions, timeout_secs: int) -> Finding:
  runner = options.view_as(StandardOptions).runner or "FnApiRunner"
  if found.is_late or found.error:
    known = explain(found.error or found.said)
    if found.is_late:
      cause = f"{runner} did not do a tiny job within {timeout_secs} seconds" + (f", as {known[0]}" if known else "")
      remedy = "see what it waits for, workers as a rule, and end the tiny job there; --timeout_secs gives it longer"
    else:
      cause = known[0] if known else f"a tiny job failed ({found.error})"
      remedy = "try the job on this machine, without --runner, to see whether it is the engine"
    return problem("engine", cause, known[1] if known else remedy)
  if runner_of(options) == "directrunner":
    thing, remedy = f"--runner={runner}", f"name it, --runner={found.runner}, so that it is the same everywhere"
    in_vain = ", and each job first looks for Prism in vain" if found.runner != "PrismRunner" else ""
    return warning(thing, f"here it is {found.runner}{in_vain}", remedy)
  return fine("engine", f"{runner} did a tiny job in {found.secs:.1f} s")


def _processes_meant(options: PipelineOptions) -> tuple[int, str]:
  """Returns how many worker processes the flags speak of, and what gives as many."""
  if is_local(options):
    direct = options.view_as(DirectOptions)
    meant = direct.direct_num_workers or cores_given()
    return meant, "add --runner=FnApiRunner --direct_running_mode=multi_processing"
  portable = options.view_as(PortableOptions)
  meant = max(1, int(portable.sdk_worker_parallelism))  # given, it is a text
  if runner_of(options) == FLINK:
    meant = max(meant, options.view_as(FlinkRunnerOptions).parallelism)
  elif runner_of(options) == SPARK and is_embedded(options):
    threads = re.search(r"\d+", options.view_as(SparkRunnerOptions).spark_master_url)
    meant = max(meant, int(threads[0]) if threads else 1)
  as_processes = f"--sdk_worker_parallelism={meant}"
  if environment_of(options) == LOOPBACK and not loopback_is_processes(options):
    return meant, f"add --experiments=use_loopback_process_worker=true {as_processes}"
  return meant, f"add {as_processes}, or start more workers"


def _look_at_cache(options: PipelineOptions) -> Iterator[Finding]:
  millis = int(options.view_as(PortableOptions).environment_cache_millis)
  if millis > 0 and runner_of(options) == SPARK and not is_embedded(options):
    cause = "Spark tries a failed task again with the worker that is kept so, a dead one too"
    remedy = "leave it out where workers may die; each stage then loads the trunk anew"
    yield warning(f"--environment_cache_millis={millis}", cause, remedy)


if __name__ == "__main__":
  sys.exit(guarded(run, sys.argv[1:]))
