"""A finding is a line; known failures of engines and workers are explained."""

from __future__ import annotations

import pytest

from beam_retrain.pipelines.engines.findings import explain, fine, minor_version, problem


def test_a_finding_is_a_line():
  assert str(fine("driver", "Python 3.11.2")) == "ok: driver: Python 3.11.2"
  assert str(problem("Java", "it is not there", "install it")) == "problem: Java: it is not there: install it."


@pytest.mark.parametrize(
  ("said", "cause"),
  [
    (
      "x\nModuleNotFoundError: No module named 'beam_retrain.transforms.core'\ny",
      "the workers do not have beam-retrain",
    ),
    ("/usr/bin/python: No module named apache_beam.runners", "the workers' Python does not have Beam"),
    (
      "Unable to fetch remote job server jar at https://repo/beam-runners-flink-2.2.jar: HTTP Error 404",
      "the job server https://repo/beam-runners-flink-2.2.jar cannot be downloaded",
    ),
    (
      "java.lang.IllegalStateException: Process died with exit code 1",
      "the workers' command ended at once, with exit code 1",
    ),
    ('java.io.IOException: Cannot run program "/w": error=2', "the workers' machines cannot start /w"),
    ('java.io.IOException: Cannot run program "docker": error=2', "the workers should run in containers"),
    (
      "java.util.concurrent.TimeoutException: Heartbeat of TaskManager with id worker1 timed out.",
      "Flink's TaskManager worker1 has died or gone silent",
    ),
    ("org.apache.flink...NoResourceAvailableException: Could not", "the cluster has no free worker"),
    ("WARN TaskSchedulerImpl: Initial job has not accepted any resources; check", "Spark waited for an executor"),
  ],
)
def test_what_engines_say_is_explained(said, cause):
  found = explain(said)
  assert found is not None
  assert found[0].startswith(cause)
  assert found[1]


@pytest.mark.parametrize("said", ["", "ZeroDivisionError: division by zero", "No module named 'numpy'"])
def test_other_faults_are_not(said):
  assert explain(said) is None


def test_a_minor_version_is_two_numbers():
  assert [minor_version(version) for version in ("1.19.3", "2.0", "")] == ["1.19", "2.0", ""]
