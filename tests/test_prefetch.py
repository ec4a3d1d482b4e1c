"""One thread ahead: the same items, the same errors, and no thread left behind."""

from __future__ import annotations

import threading
import time

import pytest

from transforms.core.prefetch import prefetch


def _threads() -> list[threading.Thread]:
  return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_items_come_in_order():
  assert list(prefetch(range(1_000))) == list(range(1_000))
  assert _threads() == []


def test_none_is_an_item_and_nothing_is_nothing():
  assert list(prefetch([None, None])) == [None, None]
  assert list(prefetch([])) == []


def test_an_error_comes_after_the_items_before_it():
  def items():
    yield 1
    yield 2
    raise KeyError("third")

  seen = []
  with pytest.raises(KeyError, match="third"):  # noqa: PT012
    for item in prefetch(items()):
      seen.append(item)
  assert seen == [1, 2]
  assert _threads() == []


def test_leaving_early_stops_the_thread():
  endless = iter(int, 1)
  for _ in prefetch(endless):
    break
  items = prefetch(endless)
  next(items)
  assert len(_threads()) == 1
  items.close()
  assert _threads() == []


def test_it_is_ahead_by_no_more_than_it_was_told():
  made = []

  def items():
    for i in range(100):
      made.append(i)
      yield i

  ahead = prefetch(items(), depth=3)
  next(ahead)
  deadline = time.monotonic() + 10
  while len(made) < 5 and time.monotonic() < deadline:
    time.sleep(0.01)
  time.sleep(0.3)  # time enough to run further ahead, if it would
  assert len(made) == 1 + 3 + 1  # the one taken, those that wait, and the one that finds no room
  ahead.close()


def test_making_goes_on_while_the_taker_works():
  started = threading.Event()

  def items():
    yield 1
    started.set()
    yield 2

  ahead = prefetch(items())
  assert next(ahead) == 1
  assert started.wait(10)  # set although the second item has not been asked for
  assert list(ahead) == [2]
