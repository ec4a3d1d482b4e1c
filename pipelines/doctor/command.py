"""`beam-retrain doctor`: checks an engine, its workers and this machine."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
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
)

import beam_retrain.transforms.core
from beam_retrain.pipelines.doctor.comparison import (
  Process,
  check_memory,
  check_paths,
  compare_versions,
  count_processes,
  describe_driver,
)
from beam_retrain.pipelines.doctor.probe_job import ProbeResult, run_probe
from beam_retrain.pipelines.doctor.worker_report import describe_process, read_start
from beam_retrain.pipelines.engines.checks import check_engine
from beam_retrain.pipelines.engines.findings import Finding, Severity, explain, fine, problem, warning
from beam_retrain.pipelines.engines.runners import (
  FLINK,
  LOOPBACK,
  SPARK,
  environment_of,
  is_dataflow,
  is_embedded,
  is_local,
  loopback_is_processes,
  runner_name,
  runner_of,
)
from beam_retrain.pipelines.models.trunk_sources import BUNDLED, INCEPTION_V3
from beam_retrain.pipelines.models.trunk_sources import HELP as TRUNK_HELP
from beam_retrain.pipelines.options.arguments import ArgumentParser, parse_with_beam_options, positive_int
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.cli import ExitCode
from beam_retrain.transforms.core.system.cpu import available_cores
from beam_retrain.transforms.io import files

_SECS, _DATAFLOW_SECS = 60, 900
_DRIVER_FILE = "driver"
_BUNDLED = str(Path(beam_retrain.transforms.core.__file__).parent / "bundled_trunk" / "weights.npz")

_DESCRIPTION = """\
Checks the engine that the flags name with a tiny job, whose workers report on themselves. Prints a line for each check:
`ok`, a `warning`, or a `problem` with its remedy. Give the same flags as for the real job.

It checks Java, the job server's jar and the master; which of Beam's local runners DirectRunner uses here; the number
and machines of the worker processes; their versions of Python, Beam, TensorFlow and beam-retrain; whether they read
and write the same paths as this machine; and whether they have memory for the trunk. It leaves no file behind."""

_EPILOG = """\
examples:
  beam-retrain doctor --output /shared/flowers/bottlenecks --runner=FlinkRunner --flink_master=localhost:8081 \\
    --environment_type=EXTERNAL --environment_config=localhost:50000
  beam-retrain doctor --direct_running_mode=multi_processing --direct_num_workers=2

The exit code is 0 without problems, else 2."""


def make_parser() -> argparse.ArgumentParser:
  parser = ArgumentParser(prog="beam-retrain doctor", description=_DESCRIPTION, epilog=_EPILOG)
  parser.add_argument("--trunk", default=BUNDLED, help=f"{TRUNK_HELP}; not downloaded (default: %(default)s)")
  parser.add_argument(
    "--output", metavar="DIR", help="the job's output folder; a file next to it is written and deleted"
  )
  parser.add_argument(
    "--timeout_secs",
    type=positive_int,
    metavar="N",
    help=f"time limit of the tiny job in seconds (default: {_SECS}, Dataflow {_DATAFLOW_SECS})",
  )
  return parser


def run(argv: Sequence[str]) -> int:
  parser = make_parser()
  flags, options = parse_with_beam_options(parser, argv)
  problems = 0
  for finding in examine(flags, options, parser.parse_known_args(argv)[1]):
    print(finding, flush=True)
    problems += finding.severity == Severity.PROBLEM
  return ExitCode.FAILED if problems else ExitCode.DONE


def examine(flags: argparse.Namespace, options: PipelineOptions, beam_flags: Sequence[str]) -> Iterator[Finding]:
  """Yields findings; sends no job to an engine that cannot be used."""
  trunk = _find_trunk(flags.trunk)
  driver = Process.from_json(describe_process())
  yield describe_driver(driver)
  findings = [*check_engine(options), *_check_cache(options)]
  yield from findings
  if any(finding.severity == Severity.PROBLEM for finding in findings):
    return
  # Workers also write a report: Beam's local runner returns the metrics of only one of its processes.
  here = files.join(tempfile.gettempdir(), "output") if is_local(options) or is_embedded(options) else ""
  with contextlib.ExitStack() as stack:
    folder = ""
    try:
      folder = stack.enter_context(_folder_beside(flags.output or here))
    except OSError as error:
      cause = f"this machine cannot write next to it ({error.strerror or error})"
      yield problem(f"--output {flags.output}", cause, "give another path, or change its permissions")
    yield from _send_probe(driver, trunk, folder, flags, options, beam_flags)


class _Trunk(NamedTuple):
  """A trunk that may not be downloaded yet.

  Attributes:
    file: a file that workers should be able to read, or "".
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
  raise InputError(f"--trunk {handle} is neither a folder nor a TF Hub handle: give one of {TRUNK_HELP}.")


@contextlib.contextmanager
def _folder_beside(output: str) -> Iterator[str]:
  """Makes a folder next to the output, or in its nearest parent."""
  if not output:
    yield ""
    return
  parent = files.split(files.absolute(output))[0]
  while files.is_local(parent) and not os.path.isdir(parent):
    parent = os.path.dirname(parent)
  folder = files.join(parent, f".beam-retrain-doctor-{os.urandom(8).hex()}")
  files.make_folder(folder)  # with the permissions of the job's own folders
  try:
    files.write_bytes(files.join(folder, _DRIVER_FILE), os.urandom(16))
    yield folder
  finally:
    files.delete([*(file.path for file in files.match_in(folder, "*")), *([folder] if files.is_local(folder) else [])])


def _send_probe(
  driver: Process,
  trunk: _Trunk,
  folder: str,
  flags: argparse.Namespace,
  options: PipelineOptions,
  beam_flags: Sequence[str],
) -> Iterator[Finding]:
  """Runs the tiny job; yields what its workers report."""
  output = f"--output {flags.output}" if flags.output and folder else ""
  paths = {trunk.file: f"--trunk {trunk.handle}"} if trunk.file else {}
  if output:
    paths[files.join(folder, _DRIVER_FILE)] = output
  timeout_secs = flags.timeout_secs or (_DATAFLOW_SECS if is_dataflow(options) else _SECS)
  starts = {path: read_start(path).hex() for path in paths}
  result = run_probe(beam_flags, {"read": starts, "folder": folder}, timeout_secs)
  yield _describe_job(result, options, timeout_secs)
  if result.is_late or result.error:
    return
  written = {Process.from_json(json.loads(files.read_bytes(path))) for path in _reports_in(folder)}
  workers = sorted({Process.from_json(report) for report in result.processes} | written)
  if not workers:
    remedy = "give --output, a folder that the workers and this machine share"
    yield problem("workers", "they did the job, but this engine has no metrics to report with", remedy)
    return
  yield count_processes(dataclasses.replace(driver, pid=result.pid), workers, *_expected_processes(options))
  yield from compare_versions(driver, workers)
  unseen = [worker for worker in workers if folder and not worker.unwritten and worker not in written]
  yield from check_paths(workers, paths, output, unseen)
  yield from check_memory(workers, trunk.size_bytes, trunk.handle)


def _reports_in(folder: str) -> list[str]:
  return [file.path for file in files.match_in(folder, "*.json")] if folder else []


def _describe_job(result: ProbeResult, options: PipelineOptions, timeout_secs: int) -> Finding:
  runner = runner_name(options)
  if result.is_late or result.error:
    known = explain(result.error or result.log)
    if result.is_late:
      cause = f"{runner} did not do a tiny job within {timeout_secs} seconds" + (f", as {known[0]}" if known else "")
      remedy = "find out what it waits for, usually workers, and cancel the tiny job there; or raise --timeout_secs"
    else:
      cause = known[0] if known else f"a tiny job failed ({result.error})"
      remedy = "try the job on this machine, without --runner, to see whether the engine is the cause"
    return problem("engine", cause, known[1] if known else remedy)
  if runner_of(options) == "directrunner":
    thing, remedy = f"--runner={runner}", f"use --runner={result.runner}, which is the same on every machine"
    in_vain = ", after each job has looked for Prism in vain" if result.runner != "PrismRunner" else ""
    return warning(thing, f"on this machine it is {result.runner}{in_vain}", remedy)
  return fine("engine", f"{runner} did a tiny job in {result.secs:.1f} s")


def _expected_processes(options: PipelineOptions) -> tuple[int, str]:
  """Returns the expected number of worker processes, and how to get more."""
  if is_local(options):
    expected = options.view_as(DirectOptions).direct_num_workers or available_cores()
    return expected, "add --runner=FnApiRunner --direct_running_mode=multi_processing"
  expected = max(1, int(options.view_as(PortableOptions).sdk_worker_parallelism))  # Beam parses it as text
  if runner_of(options) == FLINK:
    expected = max(expected, options.view_as(FlinkRunnerOptions).parallelism)
  elif runner_of(options) == SPARK and is_embedded(options):
    threads = re.search(r"\d+", options.view_as(SparkRunnerOptions).spark_master_url)
    expected = max(expected, int(threads[0]) if threads else 1)
  as_processes = f"--sdk_worker_parallelism={expected}"
  if environment_of(options) == LOOPBACK and not loopback_is_processes(options):
    return expected, f"add --experiments=use_loopback_process_worker=true {as_processes}"
  return expected, f"add {as_processes}, or start more workers"


def _check_cache(options: PipelineOptions) -> Iterator[Finding]:
  millis = int(options.view_as(PortableOptions).environment_cache_millis)
  if millis > 0 and runner_of(options) == SPARK and not is_embedded(options):
    cause = "Spark retries a failed task with the cached worker, even a dead one"
    remedy = "leave it out if workers may die; each stage then loads the trunk again"
    yield warning(f"--environment_cache_millis={millis}", cause, remedy)
