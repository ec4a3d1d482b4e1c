"""One thread ahead: reading and decoding go on while the graph computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Iterable[T], depth: int = 2) -> Iterator[T]:
  """Yields `items` in order, made by a thread that is at most `depth` of them ahead.

  An exception of `items` is raised here, after what came before it. Leaving the loop early stops the thread.
  """
  # Each entry is (item, None), or (None, exception) once, or (None, None) at the end.
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
    except BaseException as error:  # handed over, whatever it is
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
