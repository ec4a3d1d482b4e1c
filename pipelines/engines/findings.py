"""Findings about an engine or a job, and known failures."""

from __future__ import annotations

import dataclasses
import enum
import re

_GIB = 1 << 30
_BASE_BYTES = 2 * _GIB
"""Python, Beam, TensorFlow and the batches: a process with the bundled trunk, 5 MB, takes 1.1 GB."""

_COPIES = 8
"""Copies of the trunk in memory: the file, the graph and the runtime's layout, with a margin."""


class Severity(enum.StrEnum):
  """Severity of a finding; only a problem prevents the job."""

  FINE = "ok"
  WARNING = "warning"
  PROBLEM = "problem"


@dataclasses.dataclass(frozen=True)
class Finding:
  """A line for the user.

  Attributes:
    thing: what it is about, such as a flag.
    remedy: what to do; empty if all is well.
  """

  severity: Severity
  thing: str
  cause: str
  remedy: str = ""

  @property
  def sentence(self) -> str:
    return f"{self.thing}: {self.cause}" + (f": {self.remedy}." if self.remedy else "")

  def __str__(self) -> str:
    return f"{self.severity}: {self.sentence}"


def fine(thing: str, fact: str) -> Finding:
  return Finding(Severity.FINE, thing, fact)


def warning(thing: str, cause: str, remedy: str) -> Finding:
  return Finding(Severity.WARNING, thing, cause, remedy)


def problem(thing: str, cause: str, remedy: str) -> Finding:
  return Finding(Severity.PROBLEM, thing, cause, remedy)


def worker_memory_bytes(model_bytes: int) -> int:
  """Estimates, generously, the memory of a process with a stored model."""
  return _BASE_BYTES + _COPIES * model_bytes


# Pattern in the error or log of an engine or worker, cause, remedy.
_KNOWN_FAILURES = (
  (
    r"No module named '?beam_retrain\b",
    "the workers do not have beam-retrain",
    "install the same version of the package in the workers' Python or image",
  ),
  (
    r"No module named '?apache_beam\b",
    "the workers' Python does not have Beam",
    "start them with the Python that beam-retrain is installed in; for workers of LOOPBACK, put it first on PATH",
  ),
  (
    r"Unable to fetch remote job server jar at (?P<what>[^\s:]+:[^\s:]+)",
    "the job server {what} cannot be downloaded",
    "download it elsewhere, and give its path with --flink_job_server_jar or --spark_job_server_jar",
  ),
  (
    r"Unable to fetch remote prism binary",
    "Prism cannot be downloaded",
    "build it with `go install`, and give its path with --prism_location; or use --runner=FnApiRunner",
  ),
  (
    r"Cannot connect to the Docker daemon|docker: not found|Cannot run program \"docker\"",
    "the workers should run in containers, but docker is not available",
    "use --environment_type=PROCESS with a command that starts a worker, or start docker",
  ),
  (
    r"Cannot run program \"(?P<what>[^\"]+)\"",
    "the workers' machines cannot start {what}",
    "give the command of --environment_config as an absolute path that is executable on each of them",
  ),
  (
    r"Process died with exit code (?P<code>\d+)",
    "the workers' command ended at once, with exit code {code}",
    "run it on a worker's machine; its Python needs beam-retrain",
  ),
  (
    r"NoResourceAvailableException|Initial job has not accepted any resources|Could not acquire the minimum required",
    "the cluster has no free worker",
    "start workers, or wait until its other jobs are done; --parallelism must not exceed its slots",
  ),
  (
    r"Downloading prism from",
    "Prism is still being downloaded",
    "use --runner=FnApiRunner, or give the path of prism with --prism_location",
  ),
)


def explain(text: str) -> tuple[str, str] | None:
  """Returns (cause, remedy) of a known failure, else None."""
  for pattern, cause, remedy in _KNOWN_FAILURES:
    if found := re.search(pattern, text):
      return cause.format(**found.groupdict()), remedy
  return None
