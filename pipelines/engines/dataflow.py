"""Jobs on Google Cloud Dataflow: what is refused before the work, and what Dataflow would choose wrongly for ours."""

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
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.run_info import is_completed
from beam_retrain.transforms.io import files

ONE_CONTAINER = "no_use_multiple_sdk_containers"
_CONTAINERS = (ONE_CONTAINER, "use_multiple_sdk_containers")
_THREADS = 2
"""Shards that a worker has in work at once: while one is in the trunk, which keeps all cores busy, the other is read
and decoded. By itself Dataflow takes more the more cores there are, each with batches of its own in memory."""

_PATHS = ("input", "output", "model", "history", "manifest", "reuse", "retry_from", "bottleneck_dir")
_DRY = ("beam-retrain convert", "beam-retrain bottlenecks", "beam-retrain evaluate")
_TEMPLATES = _DRY[:2]
_GIB = 1 << 30


def is_dataflow(options: PipelineOptions) -> bool:
  runner = options.view_as(StandardOptions).runner or ""
  return runner.rsplit(".", 1)[-1].lower() == "dataflowrunner"


def settle(prog: str, flags: object, options: PipelineOptions) -> None:
  """Checks a command line for Dataflow, and sets what the user left open; does nothing for another runner.

  - One SDK process on each worker, where Dataflow would start one for each core: the trunk is in memory once, and uses
    all cores itself.
  - The main session is not sent: workers have the package, and unpickle nothing of the command's own module.

  Raises:
    InputError: Dataflow cannot be reached so, or not by this command.
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
    raise InputError(f"{prog}: DataflowRunner needs --region: give the one to run in, for example europe-west1.")
  if not cloud.temp_location:
    raise InputError(f"{prog}: DataflowRunner needs --temp_location: give a folder in a bucket, gs://BUCKET/temp.")
  if not _is_tried_here(options):
    _refuse_local(prog, "temp_location", cloud.temp_location)
    for name in _PATHS:
      found = getattr(flags, name, None)
      for path in [found] if isinstance(found, str) else found or []:
        _refuse_local(prog, name, path)
  _refuse_not_run(prog, options)
  debug = options.view_as(DebugOptions)
  if not set(_CONTAINERS) & set(debug.experiments or []):
    debug.add_experiment(ONE_CONTAINER)
  if debug.number_of_worker_harness_threads is None and ONE_CONTAINER in debug.experiments:
    debug.number_of_worker_harness_threads = _THREADS
  options.view_as(SetupOptions).save_main_session = False


def _is_tried_here(options: PipelineOptions) -> bool:
  """Says whether no worker will see the paths: a dry run, or an endpoint on this machine, for which Beam, too, lets
  other paths than gs:// pass."""
  endpoint = options.view_as(GoogleCloudOptions).dataflow_endpoint or ""
  return bool(options.view_as(TestOptions).dry_run) or urlparse(endpoint).hostname == "localhost"


def _refuse_local(prog: str, name: str, path: str) -> None:
  if files.is_local(path) or not path.startswith("gs://"):
    raise InputError(f"{prog}: --{name} {path}: Dataflow's workers cannot read it: give a path on gs://.")


def _refuse_not_run(prog: str, options: PipelineOptions) -> None:
  for flag, given, able in (
    ("--template_location", options.view_as(GoogleCloudOptions).template_location, _TEMPLATES),
    ("--dry_run", options.view_as(TestOptions).dry_run, _DRY),
  ):
    if given and prog not in able:
      raise InputError(
        f"{prog}: {flag} is for a command that is done with one job, and this one goes on after it: leave {flag} out,"
        f" or use {' or '.join(able)}."
      )


def refuse_more_jobs(options: PipelineOptions, output: str, jobs_before: Mapping[str, object] | None = None) -> None:
  """Checks that a job which is only built, not run, is the command's only one, and takes no earlier output away.

  Args:
    options: Beam's.
    output: the command's.
    jobs_before: flag -> whether it is given in a way that needs a job of its own first.

  Raises:
    InputError: so it is not.
  """
  if not what_was_built(options):
    return
  for flag, given in (jobs_before or {}).items():
    if given:
      raise InputError(f"{flag} needs a job before the one to be built: leave it out, or let the command run its jobs.")
  if is_completed(output, files):
    raise InputError(f"{output} is finished, and building a job would empty it: give a new folder as --output.")


def what_was_built(options: PipelineOptions) -> str:
  """Returns what a user is told where a job is built but not run by this command; empty: it is run."""
  if not is_dataflow(options):
    return ""
  if template := options.view_as(GoogleCloudOptions).template_location:
    return f"the job is written to {template}: it is for Dataflow to run, and writes COMPLETED when it is done"
  return "dry run: the job could be built, and was not sent" if options.view_as(TestOptions).dry_run else ""


def ask_for_memory(options: PipelineOptions, model_folder: str) -> None:
  """Asks Dataflow for workers that hold a trunk, unless the user says what memory they have.

  Args:
    options: Beam's; of the whole job, as a hint for one step would put that into an environment of its own, and so into
      another process.
    model_folder: of a trunk or an exported model, as it is stored.
  """
  hints = options.view_as(StandardOptions)
  if is_dataflow(options) and not any(hint.replace(" ", "").startswith("min_ram=") for hint in hints.resource_hints):
    size_bytes = sum(found.size_bytes for found in files.match_in(model_folder, "**"))
    hints.resource_hints = [*hints.resource_hints, f"min_ram={memory_gib(size_bytes)}GiB"]


def memory_gib(model_bytes: int) -> int:
  """Returns the GiB of memory that a worker needs for a stored model of so many bytes: an estimate, rounded up."""
  return -(-worker_memory_bytes(model_bytes) // _GIB)
