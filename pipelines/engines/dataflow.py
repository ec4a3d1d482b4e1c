"""Jobs on Google Cloud Dataflow: checks before the job, and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlparse

from apache_beam.options.pipeline_options import (
  DebugOptions,
  GoogleCloudOptions,
  PipelineOptions,
  SetupOptions,
  StandardOptions,
  TestOptions,
)
from apache_beam.runners import create_runner

from beam_retrain.pipelines.engines.findings import worker_memory_bytes
from beam_retrain.pipelines.engines.runners import is_dataflow
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.run_info import is_completed
from beam_retrain.transforms.io import files

ONE_CONTAINER = "no_use_multiple_sdk_containers"
_CONTAINERS = (ONE_CONTAINER, "use_multiple_sdk_containers")
_THREADS = 2
"""Shards that a worker processes at once: one is read and decoded while the trunk computes the other on all cores.
Dataflow's default grows with the cores, and each shard holds its own batches in memory."""

_PATHS = ("input", "output", "model", "history", "manifest", "reuse", "retry_from", "bottleneck_dir")
_DRY = ("beam-retrain convert", "beam-retrain bottlenecks", "beam-retrain evaluate")
_TEMPLATES = _DRY[:2]
_GIB = 1 << 30


def configure_dataflow(prog: str, flags: object, options: PipelineOptions) -> None:
  """Checks options for Dataflow and sets its defaults; ignores other runners.

  - One SDK process per worker, not one per core: the trunk is in memory once, and uses all cores itself.
  - The main session is not pickled: workers have the package, and need nothing of the command's own module.

  Raises:
    InputError: a flag that Dataflow needs is missing, or this command cannot run on it.
  """
  if not is_dataflow(options):
    return
  try:
    from apache_beam.runners.dataflow.internal import apiclient  # noqa: F401
  except ImportError as error:
    raise InputError(
      f"{prog}: DataflowRunner needs packages that are not installed ({error}): pip install 'apache-beam[gcp]'."
    ) from error
  cloud = options.view_as(GoogleCloudOptions)
  if not cloud.project:
    raise InputError(f"{prog}: DataflowRunner needs --project: give the id of your Google Cloud project.")
  if not (cloud.region or create_runner("DataflowRunner").get_default_gcp_region()):
    raise InputError(f"{prog}: DataflowRunner needs --region: give one, for example europe-west1.")
  if not cloud.temp_location:
    raise InputError(f"{prog}: DataflowRunner needs --temp_location: give a folder in a bucket, gs://BUCKET/temp.")
  if not _is_offline(options):
    _validate_path(prog, "temp_location", cloud.temp_location)
    for name in _PATHS:
      found = getattr(flags, name, None)
      for path in [found] if isinstance(found, str) else found or []:
        _validate_path(prog, name, path)
  _validate_dry_run(prog, options)
  debug = options.view_as(DebugOptions)
  if not set(_CONTAINERS) & set(debug.experiments or []):
    debug.add_experiment(ONE_CONTAINER)
  if debug.number_of_worker_harness_threads is None and ONE_CONTAINER in debug.experiments:
    debug.number_of_worker_harness_threads = _THREADS
  options.view_as(SetupOptions).save_main_session = False


def _is_offline(options: PipelineOptions) -> bool:
  """Whether no worker will read the paths: dry runs, local endpoints."""
  endpoint = options.view_as(GoogleCloudOptions).dataflow_endpoint or ""
  return bool(options.view_as(TestOptions).dry_run) or urlparse(endpoint).hostname == "localhost"


def _validate_path(prog: str, name: str, path: str) -> None:
  if files.is_local(path) or not path.startswith("gs://"):
    raise InputError(f"{prog}: --{name} {path}: Dataflow's workers cannot read it: give a path on gs://.")


def _validate_dry_run(prog: str, options: PipelineOptions) -> None:
  for flag, value, able in (
    ("--template_location", options.view_as(GoogleCloudOptions).template_location, _TEMPLATES),
    ("--dry_run", options.view_as(TestOptions).dry_run, _DRY),
  ):
    if value and prog not in able:
      raise InputError(
        f"{prog}: {flag} works only with commands of a single job, and this one continues after it: leave {flag} out,"
        f" or use {' or '.join(able)}."
      )


def validate_single_job(options: PipelineOptions, output: str, jobs_before: Mapping[str, object] | None = None) -> None:
  """Checks that a job to be built is the command's only one.

  Args:
    jobs_before: flag -> whether its value needs a job of its own first.
  """
  if not describe_built_job(options):
    return
  for flag, value in (jobs_before or {}).items():
    if value:
      raise InputError(f"{flag} needs another job before the one to build: leave it out, or let the command run both.")
  if is_completed(output, files):
    raise InputError(f"{output} is finished, and building a job would delete it: give a new folder as --output.")


def describe_built_job(options: PipelineOptions) -> str:
  """Returns a message if a job is only built; else empty."""
  if not is_dataflow(options):
    return ""
  if template := options.view_as(GoogleCloudOptions).template_location:
    return f"the job is written to {template}: run it on Dataflow; it writes COMPLETED at the end"
  return "dry run: the job was built but not sent" if options.view_as(TestOptions).dry_run else ""


def request_memory(options: PipelineOptions, model_folder: str) -> None:
  """Requests workers with memory for the trunk, unless the user did.

  Args:
    options: Beam's. The hint is the whole job's: one step's would move it into a process of its own.
    model_folder: of a stored trunk or an exported model.
  """
  hints = options.view_as(StandardOptions)
  if is_dataflow(options) and not any(hint.replace(" ", "").startswith("min_ram=") for hint in hints.resource_hints):
    size_bytes = sum(found.size_bytes for found in files.match_in(model_folder, "**"))
    hints.resource_hints = [*hints.resource_hints, f"min_ram={memory_gib(size_bytes)}GiB"]


def memory_gib(model_bytes: int) -> int:
  """Estimates the memory of a worker with a stored model, in GiB."""
  return -(-worker_memory_bytes(model_bytes) // _GIB)
