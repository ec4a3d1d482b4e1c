"""A tiny job on the chosen engine, whose workers report on themselves.

The job runs in its own process, so that an engine that hangs does not hang the command. After a time limit it is
cancelled, and its process group, job server and workers included, is killed. A job that waits for nobody is only slow,
and gets more time.
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
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.doctor.worker_report import REPORTS, Report, Spread
from beam_retrain.pipelines.engines.checks import WITHOUT_PROXY
from beam_retrain.pipelines.jobs.runner import runner_for
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
_SLOW = 4  # times the limit that a slow job gets
_PAUSE_SECS = 0.5
_KEPT_BYTES = 1_000_000
_ENDED = ("FINISHED", "CANCELED", "FAILED")  # states of a job of Flink
# Module of a result's class -> runner that DirectRunner has chosen.
_RUNNERS = {"portable_runner": "PrismRunner", "fn_runner": "FnApiRunner", "direct_runner": "BundleBasedDirectRunner"}


class ProbeResult(NamedTuple):
  reports: list[str]  # of the workers: JSON of `worker_report.Process`; empty if the engine has no metrics
  runner: str  # that DirectRunner has chosen
  secs: float
  pid: int  # of the job's own process, which may contain the workers


def run_probe(
  beam_flags: Sequence[str], read: Mapping[str, str], folder: str, timeout_secs: float, is_slow: Callable[[], bool]
) -> ProbeResult:
  """Runs the job in its own process; other arguments: see `report`.

  From the time limit on `is_slow` tells whether the job is at work, and waits for nobody. Raises TimeoutError, with
  the log of Beam, the engine and the workers, if the job was killed, and RuntimeError if it failed.
  """
  with tempfile.TemporaryDirectory(prefix="beam-retrain-doctor-") as scratch:
    answer, log = Path(scratch, "answer.json"), Path(scratch, "log")
    command = [sys.executable, "-P", "-c", _CHILD.format(sys.path), str(answer), json.dumps(read), folder, *beam_flags]
    with log.open("wb") as output:
      job = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    try:
      is_late = not _ends_within(job, timeout_secs)
      until = time.monotonic() + (_SLOW - 1) * timeout_secs
      while is_late and time.monotonic() < until and is_slow():
        is_late = not _ends_within(job, _PAUSE_SECS)
    finally:
      _end(job)
    failure, *result = json.loads(answer.read_text()) if answer.exists() else [f"exit code {job.returncode}"]
    if failure and is_late:  # without a failure it has ended at the last moment
      raise TimeoutError(log.read_bytes()[-_KEPT_BYTES:].decode(errors="replace"))
    if failure:
      raise RuntimeError(failure)
    return ProbeResult(*result)


def _ends_within(job: subprocess.Popen[bytes], secs: float) -> bool:
  with contextlib.suppress(subprocess.TimeoutExpired):
    job.wait(secs)
  return job.poll() is not None


def _end(job: subprocess.Popen[bytes]) -> None:
  """Terminates the job's process, then kills the rest of its group."""
  if job.poll() is None:
    job.terminate()  # alone: it still has to cancel the job at the job server
    with contextlib.suppress(subprocess.TimeoutExpired):
      job.wait(_PATIENCE_SECS)
    with contextlib.suppress(ProcessLookupError):
      os.killpg(job.pid, signal.SIGKILL)
    job.wait()


class FlinkJob(NamedTuple):
  """A job on the Flink cluster of `--flink_master`, by its name."""

  master: str
  name: str

  def waits(self) -> bool:
    """Whether the cluster has it, and has no slots for it."""
    try:
      return any(
        job["duration"] > 1000 * _PATIENCE_SECS and 0 < job["tasks"]["scheduled"] == job["tasks"]["total"]
        for job in self._unended()
      )
    except (OSError, ValueError, LookupError):
      return True

  def cancel(self) -> str:
    """Cancels it; returns what became of it.

    It is "" if the job is not there. Flink's own job server leaves it there.
    """
    told, deadline = "", time.monotonic() + _PATIENCE_SECS
    try:
      while (jobs := self._unended()) and time.monotonic() < deadline:
        told = "it was cancelled there"
        for job in jobs:
          request = urllib.request.Request(f"{self._url}/{job['jid']}?mode=cancel", method="PATCH")
          WITHOUT_PROXY.open(request, timeout=_PATIENCE_SECS).close()
        time.sleep(_PAUSE_SECS)
      return f"cancel {self.name} there" if jobs else told
    except (OSError, ValueError, LookupError):
      return f"cancel {self.name} there"

  @property
  def _url(self) -> str:
    return f"{self.master if '://' in self.master else f'http://{self.master}'}/jobs"

  def _unended(self) -> list[Any]:
    with WITHOUT_PROXY.open(f"{self._url}/overview", timeout=_PATIENCE_SECS) as answer:
      jobs = json.load(answer)["jobs"]
    return [job for job in jobs if job["name"] == self.name and job["state"] not in _ENDED]


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
    pipeline = beam.Pipeline(runner_for(options), options=options)
    build(pipeline, json.loads(read), folder)
    result = pipeline.run()
    try:
      result.wait_until_finish()
    except KeyboardInterrupt:
      with contextlib.suppress(Exception):  # each runner's own kind
        result.cancel()  # Flink's job server does not cancel it on the cluster: see `cancel_on_flink`
      raise
  except Exception as error:
    _write_whole(answer, [error_line(error)])
    raise
  secs = time.monotonic() - started
  reports: list[str] = []
  with contextlib.suppress(Exception):  # each runner's own kind
    for found in result.metrics().query(MetricsFilter().with_name(REPORTS))["string_sets"]:
      reports += sorted(found.result or ())
  runner = _RUNNERS.get(type(result).__module__.rsplit(".", 1)[-1], "")
  _write_whole(answer, ["", reports, runner, secs, os.getpid()])


def _write_whole(answer: str, content: list[object]) -> None:
  Path(f"{answer}.tmp").write_text(json.dumps(content))
  os.replace(f"{answer}.tmp", answer)
