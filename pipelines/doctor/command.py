"""`beam-retrain doctor`: checks an engine, its workers and this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions

import beam_retrain.transforms.core
from beam_retrain.pipelines.doctor.probe_job import FlinkJob, ProbeResult, run_probe
from beam_retrain.pipelines.doctor.worker_checks import (
  check_clocks,
  check_memory,
  check_paths,
  check_processors,
  check_scratch,
  compare_versions,
  count_processes,
)
from beam_retrain.pipelines.doctor.worker_report import Process, describe_process, read_start
from beam_retrain.pipelines.engines import runners
from beam_retrain.pipelines.engines.checks import check_engine
from beam_retrain.pipelines.engines.findings import Finding, explain, fine, problem, warning
from beam_retrain.pipelines.engines.runners import (
  JobOptions,
  is_by_default,
  is_embedded,
  is_local,
  runner_name,
  runner_of,
)
from beam_retrain.pipelines.models.trunk_sources import check_handle
from beam_retrain.pipelines.requests.doctor import DATAFLOW_SECS, SECS, DoctorRequest
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.printing import print, say
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from beam_retrain.transforms.core.runtimes.trunk_info import BUNDLED
from beam_retrain.transforms.core.system.machine import available_cores
from beam_retrain.transforms.io import files

_DRIVER_FILE = "driver"
_BUNDLED = str(Path(beam_retrain.transforms.core.__file__).parent / "bundled_trunk" / "weights.npz")

run = DoctorRequest.run


def execute(request: DoctorRequest) -> int:
  problems = 0
  for finding in examine(request, request.pipeline_options(check_engine=False)):
    (print if finding.is_problem else say)(finding)
    problems += finding.is_problem
  return ExitCode.FAILED if problems else ExitCode.DONE


def examine(request: DoctorRequest, options: PipelineOptions) -> Iterator[Finding]:
  """Yields findings; sends no job to an engine that cannot be used."""
  trunk_bytes = _trunk_bytes(request.trunk)
  driver = describe_process()
  yield fine("driver", ", ".join(f"{name} {version}" for name, version in driver.versions.items() if version))
  findings = list(check_engine(options))
  yield from findings
  if any(finding.is_problem for finding in findings):
    return
  # Workers also write a report: Beam's local runner returns the metrics of only one of its processes.
  here = files.join(tempfile.gettempdir(), "output") if is_local(options) or is_embedded(options) else ""
  paths: dict[str, str] = {}
  with contextlib.ExitStack() as stack:
    folder = ""
    try:
      folder = stack.enter_context(_folder_beside(request.output or here))
    except (OSError, InputError) as error:
      yield _unusable_here(f"--output {request.output}", "write next to it", error)
    starts = {}
    for given in request.input:
      thing, path = f"--input {given}", files.absolute(given)
      try:
        starts[path] = read_start(path)
        paths[path] = thing
      except (OSError, InputError) as error:
        yield _unusable_here(thing, "read it", error)
    output = f"--output {request.output}" if request.output and folder else ""
    ahead_secs = 0.0
    if folder:
      driver_file = files.join(folder, _DRIVER_FILE)
      ahead_secs = _write_driver_file(driver_file)
      if output:
        paths[driver_file], starts[driver_file] = output, read_start(driver_file)
    result = _probe(request, options, starts, folder)
    if isinstance(result, Finding):
      yield result
      return
    yield describe_success(result, options, _limit_secs(request, options))
    found = files.match_in(folder, "*.json") if folder else []
    written = {Process(**json.loads(files.read_bytes(each.path))): each.modified_secs for each in found}
  workers = sorted({Process(**json.loads(report)) for report in result.reports} | written.keys())
  if not workers:
    remedy = "give --output, a folder that the workers and this machine share"
    yield problem("workers", "they did the job, but this engine has no metrics to report with", remedy)
    return
  yield count_processes(dataclasses.replace(driver, pid=result.pid), workers, *_expected_processes(options))
  yield from compare_versions(driver, workers)
  yield from check_processors(driver, workers)
  unseen = [worker for worker in workers if folder and not worker.unwritten and worker not in written]
  yield from check_paths(workers, paths, output, unseen)
  yield from check_scratch(workers, trunk_bytes)
  # Both by the clock of what the folder is on.
  yield from check_clocks({worker: worker.clock_secs - at - ahead_secs for worker, at in written.items()})
  yield from check_memory(workers, trunk_bytes, request.trunk)


def _limit_secs(request: DoctorRequest, options: PipelineOptions) -> int:
  return request.timeout_secs or (DATAFLOW_SECS if runners.is_dataflow(options) else SECS)


def _probe(
  request: DoctorRequest, options: PipelineOptions, starts: Mapping[str, str], folder: str
) -> ProbeResult | Finding:
  """Runs the tiny job; returns a problem if it does not end."""
  name = options.view_as(JobOptions).job_name or f"beam-retrain-doctor-{os.urandom(8).hex()}"
  flags = request.beam_options if is_by_default(options) else [*request.beam_options, f"--job_name={name}"]
  on_flink, secs = _flink_job(options, name), _limit_secs(request, options)

  def is_slow() -> bool:
    reported = bool(folder and files.match_in(folder, "*.json"))
    return is_local(options) or reported or bool(on_flink and not on_flink.waits())

  try:
    return run_probe(flags, starts, folder, secs, is_slow)
  except (TimeoutError, RuntimeError) as error:
    return _describe_failure(error, options, secs, on_flink)


def _unusable_here(thing: str, what: str, error: Exception) -> Finding:
  if isinstance(error, InputError):
    cause, _, remedy = str(error).removesuffix(".").rpartition(": ")
    return problem(thing, cause, remedy)
  cause = f"this machine cannot {what} ({getattr(error, 'strerror', None) or error})"
  return problem(thing, cause, "give another path, or change its permissions")


def _trunk_bytes(handle: str) -> int | None:
  """Returns the size of a trunk; None if unknown."""
  if handle == BUNDLED:
    return os.path.getsize(_BUNDLED)
  if os.path.isdir(handle):
    return sum(file.size_bytes for file in files.match_in(files.absolute(handle), "**"))
  check_handle(handle)
  return None


@contextlib.contextmanager
def _folder_beside(output: str) -> Iterator[str]:
  """Makes a folder next to the output, or in its nearest parent."""
  if not output:
    yield ""
    return
  parent = files.split(files.absolute(output))[0]
  files.check_reachable([parent])
  while files.is_local(parent) and not os.path.isdir(parent):
    parent = os.path.dirname(parent)
  folder = files.join(parent, f".beam-retrain-doctor-{os.urandom(8).hex()}")
  files.make_folder(folder)  # with the permissions of the job's own folders
  try:
    yield folder
  finally:
    files.delete([folder] if files.is_local(folder) else files.find_in(folder, "*"))


def _write_driver_file(path: str) -> float:
  """Returns this machine's clock minus the file system's, in seconds."""
  now = time.time()
  files.write_bytes(path, os.urandom(16))
  written = files.stat(path)
  return now - written.modified_secs if written else 0.0


def _flink_job(pipeline_options: PipelineOptions, name: str) -> FlinkJob | None:
  """Returns the job's entry on a Flink cluster, whose master is known."""
  options = pipeline_options.view_as(JobOptions)
  if runner_of(options) != runners.FLINK or is_embedded(options) or options.job_endpoint:
    return None
  return FlinkJob(options.flink_master.strip(), name)


def _describe_failure(error: Exception, options: PipelineOptions, timeout_secs: int, job: FlinkJob | None) -> Finding:
  cause, remedy = explain(str(error)) or ("", "")
  if isinstance(error, TimeoutError):
    late = f"{runner_name(options)} did not do a tiny job within {timeout_secs} seconds" + (
      f", as {cause}" if cause else ""
    )
    wait = "find out what it waits for, usually workers, and cancel the tiny job there; or raise --timeout_secs"
    if job:
      late = "; ".join(filter(None, [late, job.cancel()]))
      where = f"look at http://{job.master.split('://')[-1]}"
      wait = f"{where}: if slots are missing, start workers; else raise --timeout_secs"
    return problem("engine", late, remedy or wait)
  compare = "try the job on this machine, without --runner, to see whether the engine is the cause"
  return problem("engine", cause or f"a tiny job failed ({error})", remedy or compare)


def describe_success(result: ProbeResult, options: PipelineOptions, timeout_secs: int) -> Finding:
  if result.secs > timeout_secs:
    late = f"slow: {runner_name(options)} did a tiny job in {result.secs:.1f} s, not in {timeout_secs} s"
    return warning("engine", late, "wait until this machine and the engine have less to do, or expect slow jobs")
  if is_by_default(options):
    return fine("engine", f"a tiny job in this process, as jobs without --runner, took {result.secs:.1f} s")
  if runner_of(options) != "directrunner":
    return fine("engine", f"{runner_name(options)} did a tiny job in {result.secs:.1f} s")
  in_vain = ", after each job has looked for Prism without success" if result.runner != "PrismRunner" else ""
  remedy = f"use --runner={result.runner}, which is the same on every machine"
  return warning(f"--runner={runner_name(options)}", f"on this machine it is {result.runner}{in_vain}", remedy)


def _expected_processes(pipeline_options: PipelineOptions) -> tuple[int, str]:
  """Returns the expected number of worker processes, and how to get more."""
  options = pipeline_options.view_as(JobOptions)
  if is_local(options):
    expected = options.direct_num_workers or available_cores()
    return expected, "add --runner=FnApiRunner --direct_running_mode=multi_processing"
  expected = max(1, int(options.sdk_worker_parallelism))  # Beam parses it as text
  if runner_of(options) == runners.FLINK:
    expected = max(expected, options.parallelism)
  elif runner_of(options) == runners.SPARK and is_embedded(options):
    threads = re.search(r"\d+", options.spark_master_url)
    expected = max(expected, int(threads[0]) if threads else 1)
  as_processes = f"--sdk_worker_parallelism={expected}"
  if runners.environment_of(options) == runners.LOOPBACK and not runners.loopback_is_processes(options):
    return expected, f"add --experiments=use_loopback_process_worker=true {as_processes}"
  return expected, f"add {as_processes}, or start more workers"
