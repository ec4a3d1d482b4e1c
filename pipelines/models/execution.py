"""Chooses, reports and records threads, processes and batch size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import DebugOptions, DirectOptions, PipelineOptions, PortableOptions
from apache_beam.runners.runner import PipelineResult

from beam_retrain.pipelines.engines.dataflow import ONE_CONTAINER
from beam_retrain.pipelines.engines.runners import is_dataflow, is_local
from beam_retrain.pipelines.models.batch_size import find_batch, keep_batch, probe_batch
from beam_retrain.pipelines.models.trunk_sources import Trunk
from beam_retrain.transforms.bottlenecks.model_handler import BATCH_METRIC, ImageModelHandler
from beam_retrain.transforms.core.run.output_folder import find_info, update_info
from beam_retrain.transforms.core.run.run_info import RunInfo
from beam_retrain.transforms.core.runtimes.prepared import load_prepared
from beam_retrain.transforms.core.runtimes.trunk_info import BATCH_SIZE, default_batch
from beam_retrain.transforms.core.runtimes.variant import TENSORFLOW
from beam_retrain.transforms.core.system import imports
from beam_retrain.transforms.core.system.machine import Threads, available_cores
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.counters import counts_of
from beam_retrain.transforms.shards.progress import TRUNK_IMAGES, TRUNK_LOADS

_LOOPBACK_PROCESSES = "use_loopback_process_worker=true"


@dataclasses.dataclass(frozen=True)
class Execution:
  """How a trunk is run; `reason`: why this batch size."""

  batch_size: int = BATCH_SIZE
  reason: str = "the default"
  threads: Threads = dataclasses.field(default_factory=Threads)
  is_local: bool = True

  def handler(self, path: str, max_pixels: int, *, trunk_only: bool = False, head: str = "") -> ImageModelHandler:
    """Returns a handler of a model that runs like this; see `ImageModelHandler`."""
    return ImageModelHandler(
      path,
      batch_size=self.batch_size,
      threads=self.threads.given,
      processes=self.threads.processes,
      max_pixels=max_pixels,
      trunk_only=trunk_only,
      head=head,
      exact=True,
    )

  def describe(self) -> str:
    given, processes = self.threads.given, self.threads.processes
    if self.is_local or given:
      count = processes or (available_cores() if self.is_local else 0)
      split = f"{_count(count, 'process', 'processes')} of {_count(self.threads.here, 'thread', 'threads')}"
    elif processes:
      split = f"a worker's cores shared by its {_count(processes, 'process', 'processes')}"
    else:
      split = "a process of one thread for each core of a worker"
    return f"{self.batch_size} images at a time ({self.reason}), {split}"

  def to_info(self) -> dict[str, int | str]:
    return {
      "batch_size": self.batch_size,
      "batch_size_reason": self.reason,
      "threads_per_process": self.threads.here if self.is_local or self.threads.given else "cores / processes",
      "processes_per_machine": self.threads.processes or "cores",
    }


def _count(number: int, one: str, more: str) -> str:
  return f"{number or 'all'} {one if number == 1 else more}"


def worker_processes(options: PipelineOptions) -> int:
  """Returns the number of trunk processes per machine; 0: one per core.

  `--direct_num_workers` counts processes in one of its modes only. `--sdk_worker_parallelism` counts the processes of a
  TaskManager or executor, unless the driver itself is the worker. Dataflow starts one per core by default.
  """
  experiments = [experiment.lower() for experiment in options.view_as(DebugOptions).experiments or []]
  if is_local(options):
    direct = options.view_as(DirectOptions)
    return int(direct.direct_num_workers) if direct.direct_running_mode == "multi_processing" else 1
  if is_dataflow(options):
    return 1 if ONE_CONTAINER in experiments else 0
  portable = options.view_as(PortableOptions)
  if portable.environment_type == "LOOPBACK" and _LOOPBACK_PROCESSES not in experiments:
    return 1
  return int(portable.sdk_worker_parallelism)


def limit_tensorflow(threads: int | None, options: PipelineOptions) -> None:
  """Tells TensorFlow the job's threads, fixed once it has begun."""
  imports.limit_tensorflow(Threads(threads or 0, worker_processes(options)).here)


def choose_execution(
  batch_size: int | None,
  threads: int | None,
  options: PipelineOptions,
  trunk: Trunk | None = None,
  *,
  earlier: RunInfo | None = None,
  is_large: Callable[[], bool] = lambda: False,
) -> Execution:
  """Chooses how a trunk is run; tries a prepared one's batch sizes.

  Args:
    earlier: `info.json` of an earlier run into the same folder: its batch size is kept, so that shards stay valid.
    is_large: whether the job has at least `LEAST_IMAGES`.
  """
  chosen = Threads(threads or 0, worker_processes(options))
  local = is_local(options)
  if batch_size:
    return Execution(batch_size, "as given", chosen, local)
  if kept := _batch_of(earlier, trunk):
    return Execution(kept, "as in the run before", chosen, local)
  if not (trunk and trunk.prepared_folder):
    return Execution(threads=chosen, is_local=local)
  # On engines, too: the settings, and so `info.json`, are then those of a job on this machine.
  untried = Execution(default_batch(trunk.info.variant.runtime, trunk.info.input_px), threads=chosen, is_local=local)
  if not local:
    return untried
  cached = find_batch(trunk.info.fingerprint, chosen.here)
  if cached and cached.is_halved and cached.batch_size < BATCH_SIZE:
    return Execution(cached.batch_size, "as memory allows", chosen, local)
  if not is_large():
    return untried
  if not cached:
    cached = keep_batch(trunk.info.fingerprint, chosen.here, _probe(trunk, chosen))
  return Execution(cached.batch_size, "the fastest of those tried here", chosen, local)


def _probe(trunk: Trunk, threads: Threads) -> int:
  loaded: list[Callable[[Any], Any]] = []

  def load(batch_size: int) -> Callable[[Any], Any]:
    # One load is enough: TensorFlow's graph takes any batch.
    if not (loaded and trunk.info.variant.runtime == TENSORFLOW):
      loaded[:] = [load_prepared(trunk.prepared_folder, threads.here, batch_size).embed]
    return loaded[0]

  return probe_batch(load, trunk.info.input_px, processes=threads.processes or available_cores())


def _batch_of(earlier: RunInfo | None, trunk: Trunk | None) -> int:
  """Returns the batch size that an earlier run chose; else 0.

  Version 0.3 did not record whether the user gave it.
  """
  if earlier is None or trunk is None or earlier.settings.get("trunk_fingerprint") != trunk.info.fingerprint:
    return 0
  return int(earlier.settings["batch_size"]) if earlier.execution.get("batch_size_reason") != "as given" else 0


def report_halved_batch(result: PipelineResult, execution: Execution, trunk: Trunk, output: str) -> str:
  """Returns a message if a worker halved its batch, else "".

  Caches the batch for the next run and records it in `info.json`.
  """
  try:
    batches = result.metrics().query(MetricsFilter().with_name(BATCH_METRIC))["distributions"]
    least = min((int(entry.result.min) for entry in batches if entry.result.count), default=execution.batch_size)
  except Exception:  # without metrics; each runner raises its own kind, and the job is done anyway
    return ""
  if least >= execution.batch_size:
    return ""
  if execution.is_local:
    keep_batch(trunk.info.fingerprint, execution.threads.here, least, is_halved=True)
  _keep(output, "batch_size_halved_to", least)
  return f"not enough memory for {execution.batch_size} images at a time: the trunk ran over {least}"


def report_workers(result: PipelineResult, output: str) -> str:
  """Returns a sentence on the processes that ran the trunk, if several.

  Records the images and trunk loads of each in `info.json`.
  """
  try:
    images, loads = counts_of(result, TRUNK_IMAGES), counts_of(result, TRUNK_LOADS)
  except Exception:  # without metrics
    return ""
  if not images:
    return ""
  _keep(output, "workers", {worker: {"pictures": images[worker], "loads": loads.get(worker, 0)} for worker in images})
  return describe_workers(images, loads)


def describe_workers(images: Mapping[str, int], loads: Mapping[str, int]) -> str:
  """Describes how the work was spread over processes; "" for one.

  `images` and `loads` of the trunk are by process.
  """
  if len(images) == 1:
    return ""
  least, most = min(images.values()), max(images.values())
  loaded = "each loaded it once" if set(loads.values()) == {1} else f"they loaded it {sum(loads.values()):,} times"
  return f"{len(images):,} workers ran the trunk over {least:,} to {most:,} images each; {loaded}"


def _keep(output: str, name: str, value: Any) -> None:
  if info := find_info(output, files):
    update_info(output, dataclasses.replace(info, execution={**info.execution, name: value}), files)
