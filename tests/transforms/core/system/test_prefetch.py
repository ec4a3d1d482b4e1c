"""Work that is done ahead: the same items, the same errors, and no thread left behind."""

from __future__ import annotations

import threading
import time

import pytest

from beam_retrain.transforms.core.system.prefetch import map_ahead, prefetch


def _threads() -> list[threading.Thread]:
  return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


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
  deadline = time.monotonic() + 120
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
  assert started.wait(120)  # set although the second item has not been asked for
  assert list(ahead) == [2]


def _workers() -> list[threading.Thread]:
  return [thread for thread in threading.enumerate() if thread.name.startswith("map_ahead")]


def test_results_come_in_the_order_of_the_items():
  def slow_at_even(number: int) -> int:
    time.sleep(0.01 * (number % 2 == 0))
    return number * number

  assert list(map_ahead(slow_at_even, range(9))) == [number * number for number in range(9)]
  assert _workers() == []


def test_two_at_a_time():
  together = threading.Barrier(2, timeout=120)
  assert len(list(map_ahead(lambda _: together.wait(), range(4)))) == 4  # alone, each would wait for ever


def test_the_next_is_worked_at_while_the_taker_works():
  third = threading.Event()
  results = map_ahead(lambda number: third.set() if number == 2 else number, range(4))
  assert next(results) == 0
  assert third.wait(120)


def test_an_error_of_the_function_comes_in_its_place_and_ends_it():
  done = []

  def refuse_two(number: int) -> int:
    if number == 2:
      raise KeyError("two")
    return number

  with pytest.raises(KeyError, match="two"):  # noqa: PT012
    for result in map_ahead(refuse_two, prefetch(iter(range(100)))):
      done.append(result)
  assert done == [0, 1]
  assert _workers() == []
  assert _threads() == []


def test_an_error_of_the_items_comes_after_the_results_before_it():
  def items():
    yield from range(5)
    raise KeyError("sixth")

  done = []
  with pytest.raises(KeyError, match="sixth"):  # noqa: PT012
    for result in map_ahead(abs, items()):
      done.append(result)
  assert done == list(range(5))
  assert _workers() == []


def test_leaving_early_stops_the_workers_and_what_feeds_them():
  results = map_ahead(abs, prefetch(iter(int, 1)))
  next(results)
  results.close()
  assert _workers() == []
  del results
  assert _threads() == []
