"""Findings about an engine or a job, and known failures."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple


class Finding(NamedTuple):
  """A line for the user; only a problem prevents the job."""

  severity: str  # ok, warning or problem
  thing: str  # what it is about, such as a flag
  cause: str
  remedy: str = ""

  @property
  def is_problem(self) -> bool:
    return self.severity == "problem"

  @property
  def sentence(self) -> str:
    return f"{self.thing}: {self.cause}" + (f": {self.remedy}." if self.remedy else "")

  def __str__(self) -> str:
    return f"{self.severity}: {self.sentence}"


fine = functools.partial(Finding, "ok")
warning = functools.partial(Finding, "warning")
problem = functools.partial(Finding, "problem")

# Pattern in the error or log of an engine or worker -> cause, remedy.
_KNOWN_FAILURES = {
  r"No module named '?beam_retrain\b": (
    "the workers do not have beam-retrain",
    "install the same version of the package in the workers' Python or image",
  ),
  r"No module named '?apache_beam\b": (
    "the workers' Python does not have Beam",
    "start them with the Python that beam-retrain is installed in; for workers of LOOPBACK, put it first on PATH",
  ),
  r"Unable to fetch remote job server jar at ([^\s:]+:[^\s:]+)": (
    "the job server {} cannot be downloaded",
    "download it elsewhere, and give its path with --flink_job_server_jar or --spark_job_server_jar",
  ),
  r"Cannot connect to the Docker daemon|docker: not found|Cannot run program \"docker\"": (
    "the workers should run in containers, but docker is not available",
    "use --environment_type=PROCESS with a command that starts a worker, or start docker",
  ),
  r"Cannot run program \"([^\"]+)\"": (
    "the workers' machines cannot start {}",
    "give the command of --environment_config as an absolute path that is executable on each of them",
  ),
  r"Process died with exit code (\d+)": (
    "the workers' command ended at once, with exit code {}",
    "run it on a worker's machine; its Python needs beam-retrain",
  ),
  r"TaskManager with id (\S+) (?:timed out|is no longer reachable)": (
    "Flink's TaskManager {} has died or gone silent, and Flink gave the job up",
    "run the same command again, as finished shards are kept",
  ),
  # Spark says it while executors start, too, so that it need not be the cause.
  r"Initial job has not accepted any resources": (
    "Spark waited for an executor",
    "start workers, or wait until its other jobs are done; where machines are only busy, raise --timeout_secs",
  ),
  r"NoResourceAvailableException|Could not acquire the minimum required": (
    "the cluster has no free worker",
    "start workers, or wait until its other jobs are done; --parallelism must not exceed its slots",
  ),
  r"Unable to fetch remote prism binary|Downloading prism from": (
    "Prism has not been downloaded",
    "use --runner=FnApiRunner, or build prism with `go install`, and give its path with --prism_location",
  ),
}


def explain(text: str) -> tuple[str, str] | None:
  """Returns (cause, remedy) of a known failure, else None."""
  for pattern, (cause, remedy) in _KNOWN_FAILURES.items():
    if found := re.search(pattern, text):
      return cause.format(*found.groups()), remedy
  return None


def minor_version(version: str) -> str:
  """Returns `1.19` of `1.19.3`: Flink and Python are compatible within it."""
  return ".".join(version.split(".")[:2])
