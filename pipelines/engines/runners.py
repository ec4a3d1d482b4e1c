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
_LOCAL = ("fnapirunner", "directrunner", "bundlebaseddirectrunner", "switchingdirectrunner", PRISM)
_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")


def runner_of(options: PipelineOptions) -> str:
  """Returns the runner's name in lower case, without its module."""
  return (options.view_as(StandardOptions).runner or "FnApiRunner").rsplit(".", 1)[-1].lower()


def is_local(options: PipelineOptions) -> bool:
  """Whether Beam runs the job on this machine, without an engine."""
  return runner_of(options) in _LOCAL


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
  """Returns how Beam starts workers: LOOPBACK, DOCKER, PROCESS or EXTERNAL."""
  environment = options.view_as(PortableOptions).environment_type
  if not environment:
    return LOOPBACK if is_embedded(options) else DOCKER
  kind: str = environment.removeprefix("beam:env:").split(":")[0]  # beam:env:docker:v1
  return kind.upper()


def loopback_is_processes(options: PipelineOptions) -> bool:
  """Whether LOOPBACK workers are processes, not threads of the command."""
  return bool(options.view_as(DebugOptions).lookup_experiment("use_loopback_process_worker", False))
