"""Counters of a job, one for each thing that is counted of."""

from __future__ import annotations

from collections import Counter
from typing import Any

from apache_beam.metrics import Metrics, MetricsFilter

METRICS_NAMESPACE = "beam_retrain"
LINKS_UP = "links_up"
"""Of links that lead up the tree, and are left out."""

_OF = "_of:"


def count_of(name: str, of: str, number: int = 1) -> None:
  """Adds to a counter; call it on the bundle's thread."""
  Metrics.counter(METRICS_NAMESPACE, f"{name}{_OF}{of}").inc(number)


def counts_of(result: Any, name: str) -> dict[str, int]:
  """Returns what it is of -> count, sorted; raises without metrics."""
  counts = Counter[str]()
  for counter in result.metrics().query(MetricsFilter().with_namespace(METRICS_NAMESPACE))["counters"]:
    prefix, found, of = counter.key.metric.name.partition(_OF)
    if found and prefix == name:
      counts[of] += counter.result  # Spark has no `committed` values
  return dict(sorted(counts.items()))
