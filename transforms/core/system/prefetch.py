"""Batches of an iterator, and iterators computed ahead by threads."""

from __future__ import annotations

import collections
import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
  """Yields lists of `size` items; the last may be shorter."""
  iterator = iter(items)
  while batch := list(itertools.islice(iterator, size)):
    yield batch


def prefetch(items: Iterable[T], depth: int = 2) -> Iterator[T]:
  """Yields `items` in order; a thread computes up to `depth` ahead.

  An exception raised by `items` is raised here, after the items before it. Leaving the loop early stops the thread.
  """
  # Entries: (item, None), and at the end (end, None) or (end, exception).
  ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=depth)
  stop = threading.Event()
  end = object()

  def put(entry: object) -> None:
    while not stop.is_set():
      try:
        ready.put(entry, timeout=0.1)  # type: ignore[arg-type]
        return
      except queue.Full:
        continue

  def make() -> None:
    try:
      for item in items:
        put((item, None))
        if stop.is_set():
          return
      put((end, None))
    except BaseException as error:  # raised again in the consumer
      put((end, error))

  thread = threading.Thread(target=make, name="prefetch", daemon=True)
  thread.start()
  try:
    while True:
      item, error = ready.get()
      if error is not None:
        raise error
      if item is end:
        return
      yield item  # type: ignore[misc]
  finally:
    stop.set()
    thread.join()


def map_ahead(function: Callable[[T], R], items: Iterable[T], threads: int = 2) -> Iterator[R]:
  """Yields `function` of each item, in order, computed ahead by threads.

  They are at most `threads` items ahead. An exception of `items` or of `function` is raised here, after the results
  before it. Leaving the loop early stops the threads once they finish their current items.
  """
  running: collections.deque[Future[R]] = collections.deque()
  with ThreadPoolExecutor(threads, "map_ahead") as pool:
    try:
      for future in _submit(pool, function, items):
        running.append(future)
        if len(running) > threads:
          yield running.popleft().result()
      while running:
        yield running.popleft().result()
    finally:
      pool.shutdown(cancel_futures=True)


def _submit(pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T]) -> Iterator[Future[R]]:
  try:
    for item in items:
      yield pool.submit(function, item)
  except Exception as error:
    failed: Future[R] = Future()
    failed.set_exception(error)
    yield failed
