"""The engine and its workers, as Beam's options name them."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence

from apache_beam.options import pipeline_options
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.engines.job_servers import ENGINE_OPTIONS
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.argparse_internals import flags_of
from beam_retrain.transforms.core.system.imports import OWN_JOB

FLINK, SPARK, PORTABLE, PRISM = "flinkrunner", "sparkrunner", "portablerunner", "prismrunner"
LOOPBACK, DOCKER, PROCESS, EXTERNAL = "LOOPBACK", "DOCKER", "PROCESS", "EXTERNAL"
_DEFAULT = "FnApiRunner"
_IN_PROCESS = ("fnapirunner", "directrunner", "bundlebaseddirectrunner", "switchingdirectrunner")
_KNOWN = {name.lower(): name for name in pipeline_options.StandardOptions.KNOWN_RUNNER_NAMES}
_CHOSEN_BY = ("runner", "direct_", "environment_")  # prefixes of options
_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")


class JobOptions(
  pipeline_options.DebugOptions,
  pipeline_options.DirectOptions,
  pipeline_options.FlinkRunnerOptions,
  pipeline_options.GoogleCloudOptions,
  pipeline_options.JobServerOptions,
  pipeline_options.PortableOptions,
  pipeline_options.PrismRunnerOptions,
  pipeline_options.SetupOptions,
  pipeline_options.SparkRunnerOptions,
  pipeline_options.StandardOptions,
  pipeline_options.TestOptions,
):
  """All of Beam's options about engines and workers, in one view."""


def add_engine_options(parser: argparse.ArgumentParser) -> None:
  """Adds the options of all job servers to a parser of Beam's."""
  for kind, action in enumerate(("store_true", "store")):
    names = {f"--{name}" for kinds in ENGINE_OPTIONS.values() for name in kinds[kind]}
    for flag in sorted(names - set(flags_of(parser))):
      parser.add_argument(flag, action=action, default=None)


def validate_engine_options(prog: str, runner: str, argv: Sequence[str]) -> None:
  """Checks that the runner has each given job server's option.

  Args:
    runner: its name, in any case; PortableRunner's job server may be any.
  """
  for flag in (argument.split("=")[0] for argument in argv):
    engines = [engine for engine, kinds in ENGINE_OPTIONS.items() if flag in map("--{}".format, sum(kinds, ()))]
    if engines and runner.lower() not in (PORTABLE, *map(str.lower, engines)):
      raise InputError(f"{prog}: {flag} is an option of {' and '.join(engines)}, not of {runner}: leave it out.")


def choose_runner(options: PipelineOptions) -> None:
  """Sets FnApiRunner if no runner is given.

  Not DirectRunner, which tries to download Prism and then silently takes another runner.
  """
  standard = options.view_as(JobOptions)
  standard.runner = standard.runner or _DEFAULT


def start_sooner(options: PipelineOptions) -> None:
  """Leaves out of a command's job what only programs' own pipelines need.

  Workers import less of Beam, and Beam does not ask pip what is installed here, for a list that nobody reads.
  """
  job = options.view_as(JobOptions)
  if runner_of(job) in (FLINK, SPARK, PORTABLE):
    job.add_experiment("disable_logging_submission_environment")
    if environment_of(job) == PROCESS and job.environment_config:
      config = json.loads(job.environment_config)
      job.environment_config = json.dumps({**config, "env": {OWN_JOB: "1", **config.get("env", {})}})


def is_by_default(options: PipelineOptions) -> bool:
  """Whether neither a runner nor its workers are chosen."""
  return not any(name.startswith(_CHOSEN_BY) for name in options.get_all_options(drop_default=True))


def runner_name(options: PipelineOptions) -> str:
  """Returns the runner's name as given, without its module.

  FlinkRunner for Flink, as in Beam.
  """
  # The smallest view that has it: Beam makes a parser of all flags of a view each time.
  name = str(options.view_as(pipeline_options.StandardOptions).runner or _DEFAULT).rsplit(".", 1)[-1]
  return _KNOWN.get(f"{name.lower()}runner", name)


def runner_of(options: PipelineOptions) -> str:
  """Returns the runner's name in lower case, without its module."""
  return runner_name(options).lower()


def is_in_process(options: PipelineOptions) -> bool:
  """Whether Beam runs the job within the command, without an engine."""
  return runner_of(options) in _IN_PROCESS


def is_local(options: PipelineOptions) -> bool:
  """Whether Beam runs the job on this machine, itself or in Prism."""
  return runner_of(options) in (*_IN_PROCESS, PRISM)


def is_dataflow(options: PipelineOptions) -> bool:
  return runner_of(options) == "dataflowrunner"


def is_embedded(options: PipelineOptions) -> bool:
  """Whether the engine runs within its job server, on this machine."""
  found = options.view_as(JobOptions)
  if found.job_endpoint:
    return False
  if runner_of(found) == FLINK:
    return found.flink_master.strip() in ("[local]", "[auto]")
  return runner_of(found) == SPARK and bool(re.match(r"local(\[.+\])?$", found.spark_master_url))


def remote_master(options: PipelineOptions) -> str:
  """Returns the address of an engine on another machine; else ""."""
  found = options.view_as(JobOptions)
  masters = {FLINK: found.flink_master, SPARK: found.spark_master_url}
  master: str = found.job_endpoint or masters.get(runner_of(found), "")
  is_here = master == "embed" or is_embedded(found) or any(host in master for host in _THIS_MACHINE)
  return "" if is_here else master


def environment_of(options: PipelineOptions) -> str:
  environment = options.view_as(JobOptions).environment_type
  if not environment:
    return LOOPBACK if is_embedded(options) else DOCKER
  kind: str = environment.removeprefix("beam:env:").split(":")[0]  # beam:env:docker:v1
  return kind.upper()


def loopback_is_processes(options: PipelineOptions) -> bool:
  """Whether LOOPBACK workers are processes, not threads of the command."""
  return bool(options.view_as(JobOptions).lookup_experiment("use_loopback_process_worker", False))
