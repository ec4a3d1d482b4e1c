"""A tiny job on the chosen engine, whose workers report on themselves.

The job runs in its own process, so that an engine that hangs does not hang the command. After a time limit its process
group, job server and workers included, is killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineResult

import beam_retrain
from beam_retrain.pipelines.doctor import worker_report
from beam_retrain.pipelines.engines.runners import choose_runner
from beam_retrain.transforms.core.run.cli import error_line
from beam_retrain.transforms.io import files

# The folder that holds the package, in a checkout and installed.
_ROOT = str(Path(beam_retrain.__file__).parents[1])
# Only the job's process finds the package this way: workers must find it as for any job.
_CHILD = """\
import sys
sys.path.insert(0, sys.argv[1])
from beam_retrain.pipelines.doctor import probe_job as probe
probe.main(sys.argv[2:])"""
_ELEMENTS = 16
_PAUSE_SECS = 0.1
_PATIENCE_SECS = 10.0
_KEPT_BYTES = 1_000_000
# Module of a result's class -> runner that DirectRunner has chosen.
_RUNNERS = {
  "portable_runner": "PrismRunner",
  "fn_runner": "FnApiRunner",
  "direct_runner": "BundleBasedDirectRunner",
}


@dataclasses.dataclass(frozen=True)
class ProbeResult:
  """Result of the job.

  Attributes:
    processes: of the workers, JSON values of `Process`.
    error: why it failed, or "".
    log: output of Beam, the engine and the workers.
    is_late: whether it was killed after the time limit.
    pid: of the job's own process, which may contain the workers.
  """

  processes: list[dict[str, Any]]
  runner: str
  secs: float
  error: str
  log: str
  is_late: bool
  pid: int


def run_probe(beam_flags: Sequence[str], request: dict[str, Any], timeout_secs: float) -> ProbeResult:
  """Runs the job in a process of its own.

  Args:
    request: `read` and `folder` of `worker_report.Report`.
  """
  with tempfile.TemporaryDirectory(prefix="beam-retrain-doctor-") as scratch:
    answer = Path(scratch, "answer.json")
    command = [sys.executable, "-P", "-c", _CHILD, _ROOT, str(answer), json.dumps(request), *beam_flags]
    started = time.monotonic()
    with open(Path(scratch, "log"), "w+b") as log:
      job = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
      is_late = False
      try:
        job.wait(timeout_secs)
      except subprocess.TimeoutExpired:
        is_late = True
      finally:
        if job.poll() is None:
          _end(job)
      secs = time.monotonic() - started
      log.seek(max(0, log.seek(0, os.SEEK_END) - _KEPT_BYTES))
      text = log.read().decode(errors="replace")
    found = json.loads(answer.read_text()) if answer.exists() else {}
  ended = "" if found or is_late else f"it ended with exit code {job.returncode}"
  return ProbeResult(
    processes=found.get("processes", []),
    runner=found.get("runner", ""),
    secs=found.get("secs", secs),
    error=found.get("error", ended),
    log=text,
    is_late=is_late,
    pid=job.pid,
  )


def _end(job: subprocess.Popen[bytes]) -> None:
  """Terminates the job's process, then kills the rest of its group."""
  job.terminate()  # alone: it still has to cancel the job at the job server
  with contextlib.suppress(subprocess.TimeoutExpired):
    job.wait(_PATIENCE_SECS)
  with contextlib.suppress(ProcessLookupError):
    os.killpg(job.pid, signal.SIGKILL)
  job.wait()


def build(root: beam.Pipeline, request: dict[str, Any]) -> None:
  """Spreads elements over the workers; each worker reports once."""
  request = {**request, "pause_secs": _PAUSE_SECS}
  _ = (
    root
    | "Start" >> beam.Impulse()
    # bytes
    | "Spread" >> beam.ParDo(worker_report.as_text(f"Spread({_ELEMENTS})")).with_output_types(tuple[int, int])
    # tuple[int, int]; not Reshuffle, whose own functions are pickled by code
    | "Group" >> beam.GroupByKey()
    # tuple[int, Iterable[int]]
    | "Report" >> beam.ParDo(worker_report.as_text(f"Report({request!r})"))
  )


def main(argv: Sequence[str]) -> None:
  """Runs the job in its own process, and writes the result.

  Args:
    argv: the file to write, the request in JSON, Beam's flags.
  """
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  logging.basicConfig(level=logging.INFO)  # a waiting engine logs what it waits for
  answer, request, *beam_flags = argv
  started = time.monotonic()
  try:
    result = _run_job(PipelineOptions(flags=beam_flags), json.loads(request))
  except Exception as error:
    files.write_text(answer, json.dumps({"error": error_line(error)}))
    raise
  found = {
    "processes": read_reports(result),
    "runner": _RUNNERS.get(type(result).__module__.rsplit(".", 1)[-1], ""),
    "secs": time.monotonic() - started,
  }
  files.write_text(answer, json.dumps(found))


def _run_job(options: PipelineOptions, request: dict[str, Any]) -> PipelineResult:
  choose_runner(options)
  pipeline = beam.Pipeline(options=options)
  build(pipeline, request)
  result = pipeline.run()
  try:
    result.wait_until_finish()
  except KeyboardInterrupt:
    with contextlib.suppress(Exception):  # each runner's own kind
      result.cancel()  # Flink's job server does not cancel it on the cluster
    raise
  return result


def read_reports(result: PipelineResult) -> list[dict[str, Any]]:
  """Returns the workers' reports from a metric, if the engine has metrics."""
  try:
    found = result.metrics().query(MetricsFilter().with_name(worker_report.REPORTS))["string_sets"]
  except Exception:  # each runner's own kind
    return []
  return [json.loads(report) for entry in found for report in sorted(entry.result or ())]
