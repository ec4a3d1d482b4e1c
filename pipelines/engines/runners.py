"""The runner and the workers' location in Beam's options."""

from __future__ import annotations

import re

from apache_beam.options.pipeline_options import (
  DebugOptions,
  FlinkRunnerOptions,
  PipelineOptions,
  PortableOptions,
  SparkRunnerOptions,
  StandardOptions,
)

FLINK, SPARK, PORTABLE, PRISM = "flinkrunner", "sparkrunner", "portablerunner", "prismrunner"
LOOPBACK, DOCKER, PROCESS, EXTERNAL = "LOOPBACK", "DOCKER", "PROCESS", "EXTERNAL"
_DEFAULT = "FnApiRunner"
_IN_PROCESS = ("fnapirunner", "directrunner", "bundlebaseddirectrunner", "switchingdirectrunner")
_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")


def choose_runner(options: PipelineOptions) -> None:
  """Sets FnApiRunner if no runner is given.

  Not DirectRunner, which tries to download Prism and then silently takes another runner.
  """
  standard = options.view_as(StandardOptions)
  standard.runner = standard.runner or _DEFAULT


def runner_name(options: PipelineOptions) -> str:
  """Returns the runner's name as given, without its module."""
  return str(options.view_as(StandardOptions).runner or _DEFAULT).rsplit(".", 1)[-1]


def runner_of(options: PipelineOptions) -> str:
  """Returns the runner's name in lower case, without its module."""
  return runner_name(options).lower()


def is_in_process(options: PipelineOptions) -> bool:
  """Whether Beam runs the job within the command, without an engine."""
  return runner_of(options) in _IN_PROCESS


def is_local(options: PipelineOptions) -> bool:
  """Whether Beam runs the job on this machine, itself or in Prism."""
  return is_in_process(options) or runner_of(options) == PRISM


def is_dataflow(options: PipelineOptions) -> bool:
  return runner_of(options) == "dataflowrunner"


def is_embedded(options: PipelineOptions) -> bool:
  """Whether the engine runs within its job server, on this machine."""
  if options.view_as(PortableOptions).job_endpoint:
    return False
  runner = runner_of(options)
  if runner == FLINK:
    return options.view_as(FlinkRunnerOptions).flink_master.strip() in ("[local]", "[auto]")
  return runner == SPARK and bool(re.match(r"local(\[.+\])?$", options.view_as(SparkRunnerOptions).spark_master_url))


def remote_master(options: PipelineOptions) -> str:
  """Returns the address of an engine on another machine; else ""."""
  masters = (
    options.view_as(PortableOptions).job_endpoint,
    options.view_as(FlinkRunnerOptions).flink_master if runner_of(options) == FLINK else "",
    options.view_as(SparkRunnerOptions).spark_master_url if runner_of(options) == SPARK else "",
  )
  master = next((master for master in masters if master and master != "embed"), "")
  return "" if is_embedded(options) or any(host in master for host in _THIS_MACHINE) else master


def environment_of(options: PipelineOptions) -> str:
  environment = options.view_as(PortableOptions).environment_type
  if not environment:
    return LOOPBACK if is_embedded(options) else DOCKER
  kind: str = environment.removeprefix("beam:env:").split(":")[0]  # beam:env:docker:v1
  return kind.upper()


def loopback_is_processes(options: PipelineOptions) -> bool:
  """Whether LOOPBACK workers are processes, not threads of the command."""
  return bool(options.view_as(DebugOptions).lookup_experiment("use_loopback_process_worker", False))
