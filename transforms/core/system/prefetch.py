"""Batches of an iterator, and iterators computed ahead by threads."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
_END = object()


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
  """Yields lists of `size` items; the last may be shorter."""
  iterator = iter(items)
  while batch := list(itertools.islice(iterator, size)):
    yield batch


def prefetch(items: Iterable[T], depth: int = 2) -> Iterator[T]:
  """Yields `items` in order; while `depth` wait, a thread computes the next.

  An exception raised by `items` is raised here, after the items before it. Leaving the loop early stops the thread.
  """
  iterator, pool = iter(items), ThreadPoolExecutor(1, "prefetch")
  futures: Iterator[Future[Any]] = (pool.submit(next, iterator, _END) for _ in itertools.count())
  return _results(pool, futures, depth + 1)


def map_ahead(function: Callable[[T], R], items: Iterable[T], threads: int = 2) -> Iterator[R]:
  """Yields `function` of each item, in order, computed ahead by threads.

  They are at most `threads` items ahead. An exception of `items` or of `function` is raised here, after the results
  before it. Leaving the loop early stops the threads once they finish their current items.
  """
  pool = ThreadPoolExecutor(threads, "map_ahead")
  return _results(pool, _submit(pool, function, items), threads)


def _submit(pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T]) -> Iterator[Future[R]]:
  try:
    for item in items:
      yield pool.submit(function, item)
  except Exception as error:
    failed: Future[R] = Future()
    failed.set_exception(error)
    yield failed


def _results(pool: ThreadPoolExecutor, futures: Iterator[Future[R]], ahead: int) -> Iterator[R]:
  """Yields the futures' results, with `ahead` more of them submitted."""
  try:
    running = deque(itertools.islice(futures, ahead))
    while running:
      running.extend(itertools.islice(futures, 1))
      if (result := running.popleft().result()) is _END:
        return
      yield result
  finally:
    pool.shutdown(cancel_futures=True)
