"""Which images each training step sees: batches drawn from bottlenecks in memory, from (seed, block) alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterator

import numpy as np

from beam_retrain.trainer.fit.data import Bottlenecks
from beam_retrain.trainer.fit.schedule import Plan
from beam_retrain.transforms.core.system.prefetch import prefetch


def stream_batches(
  data: Bottlenecks, plan: Plan, seed: int, first_block: int
) -> Generator[tuple[np.ndarray, np.ndarray]]:
  """Yields (float32 [n, D], int32 [n]). One batch is gathered while another one is trained on."""

  def gather() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for block in range(first_block, math.ceil(plan.steps / plan.steps_per_block)):
      for rows in draw_rows(data, plan, np.random.default_rng([seed, block])):
        yield data.vectors[rows], data.classes[rows]

  yield from prefetch(gather())


def draw_rows(data: Bottlenecks, plan: Plan, rng: np.random.Generator) -> Iterator[np.ndarray]:
  """Yields the rows of a block's batches."""
  if plan.is_balanced:
    yield from itertools.islice(draw_balanced(data, data.learned_rows, plan.batch_size, rng), plan.steps_per_block)
    return
  rows = data.learned_rows
  for _ in range(plan.steps_per_block // math.ceil(len(rows) / plan.batch_size)):
    order = rng.permutation(rows)
    yield from (order[start : start + plan.batch_size] for start in range(0, len(order), plan.batch_size))


def draw_balanced(data: Bottlenecks, rows: np.ndarray, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
  """Yields `count` of `rows`, again and again: drawn uniformly over classes, then over the class's, and put back."""
  by_class = rows[np.argsort(data.classes[rows], kind="stable")]
  counts = np.bincount(data.classes[rows], minlength=len(data.labels))
  starts = np.cumsum(counts) - counts
  while True:
    drawn = rng.integers(len(counts), size=count)
    yield by_class[starts[drawn] + (rng.random(count) * counts[drawn]).astype(np.int64)]
