"""Jobs on Google Cloud Dataflow: checks before the job, and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlparse

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners import create_runner

from beam_retrain.pipelines.engines.runners import JobOptions, is_dataflow
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.output_folder import is_completed
from beam_retrain.transforms.io import files

ONE_CONTAINER = "no_use_multiple_sdk_containers"
_THREADS = 2
"""Shards that a worker processes at once: one is read and decoded while the trunk computes the other on all cores.
Dataflow's default grows with the cores, and each shard holds its own batches in memory."""

_PATHS = ("input", "output", "model", "history", "manifest", "reuse", "retry_from", "bottleneck_dir")
_DRY = ("beam-retrain convert", "beam-retrain bottlenecks", "beam-retrain evaluate")
_GIB = 1 << 30
_BASE_BYTES = 2 * _GIB  # Python, Beam, TensorFlow and the batches: a process that decodes by TensorFlow takes 1.1 GB

_COPIES = 8  # copies of the trunk in memory: the file, the graph and the runtime's layout, with a margin


def configure_dataflow(prog: str, flags: object, pipeline_options: PipelineOptions) -> None:
  """Checks options for Dataflow and sets its defaults; ignores other runners.

  - One SDK process per worker, not one per core: the trunk is in memory once, and uses all cores itself.
  - The main session is not pickled: workers have the package, and need nothing of the command's own module.

  Raises:
    InputError: a flag that Dataflow needs is missing, or this command cannot run on it.
  """
  if not is_dataflow(pipeline_options):
    return
  options = pipeline_options.view_as(JobOptions)
  try:
    from apache_beam.runners.dataflow.internal import apiclient  # noqa: F401
  except ImportError as error:
    raise InputError(
      f"{prog}: DataflowRunner needs packages that are not installed ({error}): pip install 'apache-beam[gcp]'."
    ) from error
  region = options.region or create_runner("DataflowRunner").get_default_gcp_region()
  for flag, value, remedy in (
    ("project", options.project, "give the id of your Google Cloud project"),
    ("region", region, "give one, for example europe-west1"),
    ("temp_location", options.temp_location, "give a folder in a bucket, gs://BUCKET/temp"),
  ):
    if not value:
      raise InputError(f"{prog}: DataflowRunner needs --{flag}: {remedy}.")
  # In a dry run, or at a local endpoint, no worker reads the paths.
  if not options.dry_run and urlparse(options.dataflow_endpoint or "").hostname != "localhost":
    paths = {"temp_location": options.temp_location, **{name: getattr(flags, name, None) for name in _PATHS}}
    for name, found in paths.items():
      for path in [found] if isinstance(found, str) else found or []:
        if not path.startswith("gs://"):
          raise InputError(f"{prog}: --{name} {path}: Dataflow's workers cannot read it: give a path on gs://.")
  for flag, value, able in (
    ("--template_location", options.template_location, _DRY[:2]),
    ("--dry_run", options.dry_run, _DRY),
  ):
    if value and prog not in able:
      raise InputError(
        f"{prog}: {flag} works only with commands of a single job, and this one continues after it: leave {flag} out,"
        f" or use {' or '.join(able)}."
      )
  if not {ONE_CONTAINER, "use_multiple_sdk_containers"} & set(options.experiments or []):
    options.add_experiment(ONE_CONTAINER)
  if options.number_of_worker_harness_threads is None and ONE_CONTAINER in options.experiments:
    options.number_of_worker_harness_threads = _THREADS
  options.save_main_session = False


def validate_single_job(options: PipelineOptions, output: str, jobs_before: Mapping[str, object] | None = None) -> None:
  """Checks that a job to be built is the command's only one.

  `jobs_before`: flag -> whether its value needs a job of its own first.
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
  if template := options.view_as(JobOptions).template_location:
    return f"the job is written to {template}: run it on Dataflow; it writes COMPLETED at the end"
  return "dry run: the job was built but not sent" if options.view_as(JobOptions).dry_run else ""


def request_memory(options: PipelineOptions, model_folder: str) -> None:
  """Requests memory for a stored trunk or model, unless the user did."""
  # The hint is the whole job's: one step's would move it into a process of its own.
  hints = options.view_as(JobOptions)
  if is_dataflow(options) and not any(hint.replace(" ", "").startswith("min_ram=") for hint in hints.resource_hints):
    size_bytes = sum(found.size_bytes for found in files.match_in(model_folder, "**"))
    hints.resource_hints = [*hints.resource_hints, f"min_ram={-(-worker_memory_bytes(size_bytes) // _GIB)}GiB"]


def worker_memory_bytes(model_bytes: int) -> int:
  """Estimates, generously, the memory of a process with a stored model."""
  return _BASE_BYTES + _COPIES * model_bytes
