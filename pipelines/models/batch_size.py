"""Finds and caches the fastest batch size of a trunk.

Results are the same for any batch (see `prepared.py`): this is about speed and memory alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from beam_retrain.transforms.core.runtimes.trunk_info import BATCH_SIZE
from beam_retrain.transforms.core.runtimes.variant import processor_name
from beam_retrain.transforms.core.system.machine import available_memory, is_out_of_memory, peak_memory
from beam_retrain.transforms.core.system.prefetch import map_ahead
from beam_retrain.transforms.io import cache

CANDIDATES = (8, 16, 32, 64)
SECS = 2.0
_LEAST_GAIN = 1.03
"""Speed-up that a larger batch must bring. Less is noise, or is lost in the last batch of a shard, rarely full."""

_LEAST_CALLS = 4  # of each candidate
_MAX_ROUNDS = 10
_MIN_SECS = 0.05

_IN_FLIGHT = 6  # batches of pixels in memory at a time: see transforms/core/models/inference.py

_BATCHES = "batches"  # in the cache

Embed = Callable[[np.ndarray], Any]


def probe_batch(
  load: Callable[[int], Embed],
  input_px: int,
  *,
  processes: int = 1,
  secs: float = SECS,
  memory_bytes: int | None = None,
  clock: Callable[[], float] = time.perf_counter,
) -> int:
  """Returns the fastest of `CANDIDATES`; of equally fast ones, the smallest.

  Skips candidates that would take too much time, or more than `memory_bytes` for all processes, by default half of what
  is available. Without time for two, returns the default. `load`: N -> what runs the trunk over float32 [N, S, S, 3].
  """
  memory_bytes = (available_memory() // 2 if memory_bytes is None else memory_bytes) // processes
  began = clock()
  rates: dict[int, float] = {}
  grown = 0
  for batch_size in CANDIDATES:
    expected_secs = _LEAST_CALLS * batch_size / max(rates.values(), default=math.inf)
    if clock() - began + expected_secs > secs:
      break
    if rates and 2 * grown + _IN_FLIGHT * batch_size * input_px * input_px * 3 * 4 > memory_bytes:
      return _smallest_of_fastest(rates)
    before = peak_memory()
    try:
      embed = load(batch_size)
      if clock() - began > secs / 2:
        break  # a trunk that is slow to load is slow to run
      rates[batch_size] = trunk_rate(embed, batch_size, input_px, clock)
    except Exception as error:
      if not is_out_of_memory(error):
        raise
      return _smallest_of_fastest(rates) if rates else 1
    grown = max(grown, peak_memory() - before)
  return _smallest_of_fastest(rates) if len(rates) > 1 else BATCH_SIZE


def _smallest_of_fastest(rates: dict[int, float]) -> int:
  chosen = min(rates)
  for batch_size in sorted(rates):
    if rates[batch_size] > _LEAST_GAIN * rates[chosen]:
      chosen = batch_size
  return chosen


def trunk_rate(embed: Embed, batch_size: int, input_px: int, clock: Callable[[], float] = time.perf_counter) -> float:
  """Returns images per second of the best round of two batches."""
  pixels = np.zeros((batch_size, input_px, input_px, 3), np.float32)

  def run_round() -> float:
    started = clock()
    for _ in map_ahead(embed, [pixels, pixels]):
      pass
    return clock() - started

  run_round()  # slower than the next
  best, began = math.inf, clock()
  for _ in range(_MAX_ROUNDS - 1):
    best = min(best, run_round())
    if clock() - began > _MIN_SECS:
      break
  return 2 * batch_size / max(best, 1e-9)


class Remembered(NamedTuple):
  """A cached batch size; `is_halved`: a larger one exceeded the memory."""

  batch_size: int
  is_halved: bool


def find_batch(fingerprint: str, threads: int) -> Remembered | None:
  """Returns the cached batch size for a trunk, this processor and threads."""
  with contextlib.suppress(ValueError, KeyError, TypeError):
    entries = cache.read_source(_digest(fingerprint, threads), _BATCHES)
    return Remembered(max(1, int(entries["batch_size"])), bool(entries["is_halved"]))
  return None


def keep_batch(fingerprint: str, threads: int, batch_size: int, is_halved: bool = False) -> Remembered:
  """Caches and returns a batch size."""
  remembered = Remembered(batch_size, is_halved)
  entries = {**remembered._asdict(), "processor": processor_name(), "threads": threads}
  cache.write_source(_digest(fingerprint, threads), entries, _BATCHES)
  return remembered


def _digest(fingerprint: str, threads: int) -> str:
  return hashlib.sha256(json.dumps([fingerprint, processor_name(), threads]).encode()).hexdigest()
