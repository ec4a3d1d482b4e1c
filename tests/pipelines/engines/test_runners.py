"""Where a runner works."""

import json

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.engines.runners import (
  JobOptions,
  choose_runner,
  is_in_process,
  is_local,
  runner_name,
  start_sooner,
)
from beam_retrain.transforms.core.system.imports import OWN_JOB


@pytest.mark.parametrize(
  ("runner", "in_process", "local"),
  [
    (None, True, True),
    ("FnApiRunner", True, True),
    ("DirectRunner", True, True),
    ("directrunner", True, True),
    ("BundleBasedDirectRunner", True, True),
    ("apache_beam.runners.direct.direct_runner.SwitchingDirectRunner", True, True),
    ("PrismRunner", False, True),
    ("PortableRunner", False, False),
    ("FlinkRunner", False, False),
    ("SparkRunner", False, False),
    ("DataflowRunner", False, False),
    ("Direct", True, True),
    ("prism", False, True),
  ],
)
def test_where_a_runner_works(runner, in_process, local):
  options = PipelineOptions(flags=[f"--runner={runner}"] if runner else [])
  assert (is_in_process(options), is_local(options)) == (in_process, local)


@pytest.mark.parametrize(
  ("given", "name"), [("Flink", "FlinkRunner"), ("dataflow", "DataflowRunner"), ("sparkrunner", "sparkrunner")]
)
def test_the_end_of_a_runner_s_name_may_be_left_out_as_in_beam(given, name):
  assert runner_name(PipelineOptions(flags=[f"--runner={given}"])) == name


def test_without_a_runner_it_is_fnapirunner():
  options = PipelineOptions(flags=[])
  assert runner_name(options) == "FnApiRunner"
  choose_runner(options)
  assert options.get_all_options()["runner"] == "FnApiRunner"


def test_an_engine_s_workers_are_told_that_the_job_is_a_command_s():
  config = '{"command": "/worker", "env": {"A": "b"}}'
  flags = ["--runner=FlinkRunner", "--environment_type=PROCESS", f"--environment_config={config}", "--experiments=x"]
  options = PipelineOptions(flags=flags)
  for _ in range(2):  # as for a command with two jobs
    start_sooner(options)
  found = options.view_as(JobOptions)
  assert json.loads(found.environment_config) == {"command": "/worker", "env": {OWN_JOB: "1", "A": "b"}}
  assert found.experiments == ["x", "disable_logging_submission_environment"]


@pytest.mark.parametrize(
  ("runner", "kind", "config"),
  [("SparkRunner", "EXTERNAL", "localhost:50000"), ("FlinkRunner", "PROCESS", None), ("FnApiRunner", None, None)],
)
def test_other_workers_are_left_as_they_are(runner, kind, config):
  given = {"runner": runner, "environment_type": kind, "environment_config": config}
  options = PipelineOptions(flags=[f"--{name}={value}" for name, value in given.items() if value])
  start_sooner(options)
  assert options.view_as(JobOptions).environment_config == config
