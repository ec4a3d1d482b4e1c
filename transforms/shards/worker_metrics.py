"""Counters per worker process, which show how work was spread."""

from __future__ import annotations

import os
import socket
from typing import Any

from apache_beam.metrics import Metrics, MetricsFilter

from beam_retrain.transforms.shards.progress import METRICS_NAMESPACE

TRUNK_IMAGES = "trunk_pictures"
"""Images read, decoded, embedded and written."""
TRUNK_LOADS = "trunk_loads"
_OF = "_of:"


def count_here(name: str, number: int) -> None:
  """Adds to this process's counter; call it on the bundle's thread."""
  Metrics.counter(METRICS_NAMESPACE, f"{name}{_OF}{socket.gethostname()}/{os.getpid()}").inc(number)


def counts_by_worker(result: Any, name: str) -> dict[str, int]:
  """Returns `host/process id` -> count, sorted, from a finished job's result.

  Raises:
    Exception: the runner has no metrics; the type depends on the runner.
  """
  counts: dict[str, int] = {}
  for counter in result.metrics().query(MetricsFilter().with_namespace(METRICS_NAMESPACE))["counters"]:
    prefix, of, worker = counter.key.metric.name.partition(_OF)
    # Spark has no `committed` values.
    if of and prefix == name:
      counts[worker] = counts.get(worker, 0) + counter.result
  return dict(sorted(counts.items()))
