"""A tiny job on the chosen engine, whose workers report on themselves.

The job runs in its own process, so that an engine that hangs does not hang the command. After a time limit its process
group, job server and workers included, is killed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.doctor.worker_report import REPORTS, Report, Spread
from beam_retrain.pipelines.engines.runners import choose_runner
from beam_retrain.transforms.core.run.exit_codes import error_line

# Only the job's process finds the package this way: workers must find it as for any job.
_CHILD = """\
import gc, sys
gc.disable()
sys.path[:] = {}
from beam_retrain.pipelines.doctor.probe_job import main
gc.freeze()
gc.enable()
main(*sys.argv[1:])"""
_ELEMENTS = 16
_PATIENCE_SECS = 10.0
_KEPT_BYTES = 1_000_000
# Module of a result's class -> runner that DirectRunner has chosen.
_RUNNERS = {"portable_runner": "PrismRunner", "fn_runner": "FnApiRunner", "direct_runner": "BundleBasedDirectRunner"}


class ProbeResult(NamedTuple):
  """Result of the job.

  Attributes:
    reports: of the workers: JSON of `worker_report.Process`; empty if the engine has no metrics.
    runner: that DirectRunner has chosen.
    pid: of the job's own process, which may contain the workers.
  """

  reports: list[str]
  runner: str
  secs: float
  pid: int


def run_probe(beam_flags: Sequence[str], read: Mapping[str, str], folder: str, timeout_secs: float) -> ProbeResult:
  """Runs the job in its own process; arguments: see `report`.

  Raises:
    TimeoutError: the job was killed after the time limit; the message is the log of Beam, the engine and the workers.
    RuntimeError: it failed.
  """
  with tempfile.TemporaryDirectory(prefix="beam-retrain-doctor-") as scratch:
    answer, log = Path(scratch, "answer.json"), Path(scratch, "log")
    command = [sys.executable, "-P", "-c", _CHILD.format(sys.path), str(answer), json.dumps(read), folder, *beam_flags]
    with log.open("wb") as output:
      job = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    try:
      job.wait(timeout_secs)
    except subprocess.TimeoutExpired as error:
      _end(job)
      raise TimeoutError(log.read_bytes()[-_KEPT_BYTES:].decode(errors="replace")) from error
    finally:
      _end(job)
    if not answer.exists():
      raise RuntimeError(f"it ended with exit code {job.returncode}")
    failure, *result = json.loads(answer.read_text())
    if failure:
      raise RuntimeError(failure)
    return ProbeResult(*result)


def _end(job: subprocess.Popen[bytes]) -> None:
  """Terminates the job's process, then kills the rest of its group."""
  if job.poll() is None:
    job.terminate()  # alone: it still has to cancel the job at the job server
    with contextlib.suppress(subprocess.TimeoutExpired):
      job.wait(_PATIENCE_SECS)
    with contextlib.suppress(ProcessLookupError):
      os.killpg(job.pid, signal.SIGKILL)
    job.wait()


def build(root: beam.Pipeline, read: Mapping[str, str], folder: str) -> None:
  """Spreads elements over the workers; each worker reports once."""
  _ = (
    root
    | "Start" >> beam.Impulse()
    # bytes
    | "Spread" >> beam.ParDo(Spread(_ELEMENTS)).with_output_types(tuple[int, int])
    # tuple[int, int]; not Reshuffle, whose own functions are pickled by code
    | "Group" >> beam.GroupByKey()
    # tuple[int, Iterable[int]]
    | "Report" >> beam.ParDo(Report(read, folder))
  )


def main(answer: str, read: str, folder: str, *beam_flags: str) -> None:
  """Runs the job here; writes [error] or ["", *result] to `answer`."""
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  logging.basicConfig(level=logging.INFO)  # a waiting engine logs what it waits for
  started = time.monotonic()
  try:
    options = PipelineOptions(flags=list(beam_flags))
    choose_runner(options)
    pipeline = beam.Pipeline(options=options)
    build(pipeline, json.loads(read), folder)
    result = pipeline.run()
    try:
      result.wait_until_finish()
    except KeyboardInterrupt:
      with contextlib.suppress(Exception):  # each runner's own kind
        result.cancel()  # Flink's job server does not cancel it on the cluster
      raise
  except Exception as error:
    Path(answer).write_text(json.dumps([error_line(error)]))
    raise
  secs = time.monotonic() - started
  reports: list[str] = []
  with contextlib.suppress(Exception):  # each runner's own kind
    for found in result.metrics().query(MetricsFilter().with_name(REPORTS))["string_sets"]:
      reports += sorted(found.result or ())
  runner = _RUNNERS.get(type(result).__module__.rsplit(".", 1)[-1], "")
  Path(answer).write_text(json.dumps(["", reports, runner, secs, os.getpid()]))
