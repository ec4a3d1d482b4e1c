"""Draws the batches of each training step, from (seed, block) alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterator

import numpy as np

from beam_retrain.trainer.fit.data import Bottlenecks
from beam_retrain.trainer.fit.schedule import Schedule
from beam_retrain.transforms.core.system.prefetch import prefetch


def stream_batches(
  data: Bottlenecks, schedule: Schedule, seed: int, first_block: int
) -> Generator[tuple[np.ndarray, np.ndarray]]:
  """Yields (float32 [n, D], int32 [n]), gathered in the background."""

  def gather() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for block in range(first_block, math.ceil(schedule.steps / schedule.steps_per_block)):
      for rows in draw_rows(data, schedule, np.random.default_rng([seed, block])):
        yield data.vectors[rows], data.classes[rows]

  yield from prefetch(gather())


def draw_rows(data: Bottlenecks, schedule: Schedule, rng: np.random.Generator) -> Iterator[np.ndarray]:
  """Yields the rows of each batch of a block."""
  rows, size = data.learned_rows, schedule.batch_size
  if schedule.is_balanced:
    yield from itertools.islice(draw_balanced(data, rows, size, rng), schedule.steps_per_block)
    return
  for _ in range(schedule.steps_per_block // math.ceil(len(rows) / size)):
    order = rng.permutation(rows)
    yield from (order[start : start + size] for start in range(0, len(order), size))


def draw_balanced(data: Bottlenecks, rows: np.ndarray, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
  """Yields `count` of `rows`, endlessly, with replacement.

  Draws uniformly over classes, then within one.
  """
  by_class = rows[np.argsort(data.classes[rows], kind="stable")]
  counts = np.bincount(data.classes[rows], minlength=len(data.labels))
  starts = np.cumsum(counts) - counts
  while True:
    drawn = rng.integers(len(counts), size=count)
    yield by_class[starts[drawn] + (rng.random(count) * counts[drawn]).astype(np.int64)]
