"""Where an engine's workers come from, and whether they can: what the flags of their environment say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

from apache_beam.options.pipeline_options import (
  DebugOptions,
  FlinkRunnerOptions,
  PipelineOptions,
  PortableOptions,
  SetupOptions,
  SparkRunnerOptions,
  StandardOptions,
)

from beam_retrain.pipelines.engines.findings import Finding, problem, warning

FLINK, SPARK, PORTABLE, PRISM = "flinkrunner", "sparkrunner", "portablerunner", "prismrunner"
LOOPBACK, DOCKER, PROCESS, EXTERNAL = "LOOPBACK", "DOCKER", "PROCESS", "EXTERNAL"
_IMPORT_SECS = 60.0
_HERE = ("localhost", "127.0.0.1", "[::1]")


def runner_of(options: PipelineOptions) -> str:
  """Returns the runner's name in small letters, without its module."""
  return (options.view_as(StandardOptions).runner or "FnApiRunner").rsplit(".", 1)[-1].lower()


def is_embedded(options: PipelineOptions) -> bool:
  """Says whether the engine works within its job server, on this machine."""
  if options.view_as(PortableOptions).job_endpoint:
    return False
  runner = runner_of(options)
  if runner == FLINK:
    return options.view_as(FlinkRunnerOptions).flink_master.strip() in ("[local]", "[auto]")
  return runner == SPARK and bool(re.match(r"local(\[.+\])?$", options.view_as(SparkRunnerOptions).spark_master_url))


def environment_of(options: PipelineOptions) -> str:
  """Returns the kind of environment that Beam starts workers in: LOOPBACK, DOCKER, PROCESS or EXTERNAL."""
  given = options.view_as(PortableOptions).environment_type
  if not given:
    return LOOPBACK if is_embedded(options) else DOCKER
  kind: str = given.removeprefix("beam:env:").split(":")[0]  # beam:env:docker:v1
  return kind.upper()


def loopback_is_processes(options: PipelineOptions) -> bool:
  """Says whether workers of LOOPBACK are processes of their own, not threads of the command's."""
  return bool(options.view_as(DebugOptions).lookup_experiment("use_loopback_process_worker", False))


def look_at_environment(options: PipelineOptions) -> Iterator[Finding]:
  kind = environment_of(options)
  if kind == LOOPBACK:
    yield from _look_at_loopback(options)
  elif kind == DOCKER:
    yield from _look_at_docker(options)
  elif kind == PROCESS:
    yield from _look_at_command(options)
  elif kind == EXTERNAL and not (_configured(options) or _environment_option(options, "external_service_address")):
    remedy = "give the HOST:PORT of a worker pool with --environment_config"
    yield problem("--environment_type=EXTERNAL", "nothing says where workers are", remedy)


def elsewhere(options: PipelineOptions) -> str:
  """Returns the address of the engine where that is on another machine, and so its workers may be; else empty."""
  masters = (
    options.view_as(PortableOptions).job_endpoint,
    options.view_as(FlinkRunnerOptions).flink_master if runner_of(options) == FLINK else "",
    options.view_as(SparkRunnerOptions).spark_master_url if runner_of(options) == SPARK else "",
  )
  master = next((master for master in masters if master and master != "embed"), "")
  is_here = is_embedded(options) or any(here in master for here in _HERE)
  return "" if is_here else master


def _look_at_loopback(options: PipelineOptions) -> Iterator[Finding]:
  if elsewhere(options):
    remedy = "use --environment_type=PROCESS, EXTERNAL or DOCKER"
    yield warning("--environment_type=LOOPBACK", "workers on other machines do not reach this process", remedy)
  if not loopback_is_processes(options):
    return
  python = shutil.which("python")
  code = "from importlib.util import find_spec as f; import sys; sys.exit(not (f('apache_beam') and f('beam_retrain')))"
  if python is None or subprocess.run([python, "-c", code], timeout=_IMPORT_SECS, check=False).returncode:
    lacks = "has not both Beam and beam-retrain" if python else "is not on PATH"
    cause = f"workers are started with {python or 'python'}, which {lacks}"
    remedy = f"put {os.path.dirname(sys.executable)} first on PATH"
    yield problem("--experiments=use_loopback_process_worker", cause, remedy)


def _look_at_docker(options: PipelineOptions) -> Iterator[Finding]:
  setup = options.view_as(SetupOptions)
  image = _configured(options) or _environment_option(options, "docker_container_image")
  if not (image or setup.setup_file or setup.extra_packages or setup.requirements_file):
    cause = "Beam's own image, which the workers would be, has no beam-retrain"
    remedy = "name an image that has it with --environment_config, or add --setup_file=./setup.py"
    yield problem("--environment_type=DOCKER", cause, remedy)
  elif is_embedded(options) and shutil.which("docker") is None:
    yield problem("--environment_type=DOCKER", "there is no docker here", "leave it out: workers need no container")


def _look_at_command(options: PipelineOptions) -> Iterator[Finding]:
  thing, remedy = "--environment_type=PROCESS", """give --environment_config='{"command": "/path/of/it"}'"""
  command = _environment_option(options, "process_command")
  if config := _configured(options):
    try:
      command = json.loads(config).get("command")
    except (ValueError, AttributeError) as error:
      yield problem("--environment_config", f"{config} is no JSON object ({error})", remedy)
      return
  if not command:
    yield problem(thing, "nothing says what starts a worker", remedy)
  elif elsewhere(options):
    return  # this machine may have another one there
  elif shutil.which(command) is None:
    yield problem(thing, f"{command} is not there, or not executable", remedy)
  elif lacks := _lacking_module(command):
    remedy = "install beam-retrain in the Python that it starts"
    yield problem(thing, f"{command} does not start a worker ({lacks})", remedy)


def _lacking_module(command: str) -> str:
  """Returns what Python cannot import, in its own words, when a command is asked for its help; empty: it says nothing.

  Not in the current folder, which may happen to be a checkout: the engine starts it elsewhere.
  """
  try:
    asked = subprocess.run(
      [command, "--help"], cwd=os.sep, stdin=subprocess.DEVNULL, capture_output=True, timeout=_IMPORT_SECS, check=False
    )
  except (OSError, subprocess.TimeoutExpired):
    return ""
  said = re.search(rb"No module named '[^']*'|cannot import name .*", asked.stderr)
  return said[0].decode(errors="replace").strip() if said and asked.returncode else ""


def _configured(options: PipelineOptions) -> str:
  return options.view_as(PortableOptions).environment_config or ""


def _environment_option(options: PipelineOptions, name: str) -> str:
  return options.view_as(PortableOptions).lookup_environment_option(name) or ""
