"""How many images a trunk takes at a time: tried out on this machine, shortly, and remembered in the trunks' cache.

The numbers that come out are the same for any batch, so this is about speed and memory alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from beam_retrain.transforms.core.models.inference import BATCH_SIZE
from beam_retrain.transforms.core.system.memory import available_memory, is_out_of_memory, peak_memory
from beam_retrain.transforms.core.system.prefetch import map_ahead
from beam_retrain.transforms.io import cache, files

CANDIDATES = (8, 16, 32, 64)
SECS = 2.0
_LEAST_GAIN = 1.03
"""A larger batch has to be so many times as fast. Less is noise, or lost again at the end of each shard, where the last
batch is rarely full and one core waits for the other: half a batch of about 1,024 images each, on average."""

_LEAST_CALLS = 4  # of each candidate
_MAX_ROUNDS = 10
_MIN_SECS = 0.05

_IN_FLIGHT = 6
"""Batches of pixels that are there at a time: see transforms/core/models/inference.py."""

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
  """Returns the batch of `CANDIDATES` that runs fastest, the smallest of those that are as fast but for noise.

  Candidates that the time or the memory does not do for are left out. Where the time does not do for two of them, it is
  the default.

  Args:
    load: returns what runs a trunk over float32 [N, S, S, 3], for the N it is given.
    input_px: S.
    processes: that share the memory.
    secs: for all of it.
    memory_bytes: what all processes may take; None: half of what is given.
    clock: seconds.
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
        break  # what is slow to load is slow to run
      rates[batch_size] = _rate(embed, batch_size, input_px, clock)
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


def _rate(embed: Embed, batch_size: int, input_px: int, clock: Callable[[], float]) -> float:
  """Returns images per second: those of the best round, after one that nobody counts; two batches are a round, as two
  are in flight in a job."""
  pixels = np.zeros((batch_size, input_px, input_px, 3), np.float32)
  best, began = math.inf, clock()
  for number in range(_MAX_ROUNDS):
    started = clock()
    for _ in map_ahead(embed, [pixels, pixels]):
      pass
    if number:
      best = min(best, clock() - started)
    else:
      began = clock()
    if number and clock() - began > _MIN_SECS:
      break
  return 2 * batch_size / max(best, 1e-9)


class Remembered(NamedTuple):
  """A batch size; `is_halved`: because memory did not do for a larger one."""

  batch_size: int
  is_halved: bool


def find_batch(fingerprint: str, threads: int) -> Remembered | None:
  """Returns what is remembered for a trunk of a kind, on such a processor with so many threads; None: nothing."""
  with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
    found = json.loads(files.read_bytes(_path(fingerprint, threads)))
    return Remembered(max(1, int(found["batch_size"])), bool(found["is_halved"]))
  return None


def keep_batch(fingerprint: str, threads: int, batch_size: int, is_halved: bool = False) -> Remembered:
  """Remembers and returns it. A cache that cannot be written is no fault."""
  remembered = Remembered(batch_size, is_halved)
  path = _path(fingerprint, threads)
  with contextlib.suppress(OSError):
    files.make_folder(os.path.dirname(path))
    files.write_text(path, json.dumps({**remembered._asdict(), "processor": _processor(), "threads": threads}))
  return remembered


def _path(fingerprint: str, threads: int) -> str:
  digest = hashlib.sha256(json.dumps([fingerprint, _processor(), threads]).encode()).hexdigest()
  return os.path.join(cache.folder(), "batches", f"{digest}.json")


def _processor() -> str:
  with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
    for line in file:
      if line.startswith("model name"):
        return line.partition(":")[2].strip()
  return platform.machine()
