"""Progress of a long loop: on a terminal one line that goes away, elsewhere a line now and then."""

from __future__ import annotations

import io

import pytest

from transforms.core.count_progress import CountProgress


class Terminal(io.StringIO):
  def isatty(self) -> bool:
    return True


class Clock:
  def __init__(self) -> None:
    self.now = 50.0

  def __call__(self) -> float:
    return self.now


@pytest.mark.parametrize(
  ("stream", "expected"),
  [
    (io.StringIO(), "verify: 1,600 of 4,000 images, 100/s\nverify: 3,200 of 4,000 images, 100/s\n"),
    (Terminal(), "".join(f"\r\033[Kverify: {n:,} of 4,000 images, 100/s" for n in range(200, 4001, 200)) + "\r\033[K"),
  ],
)
def test_told_now_and_then(stream, expected):
  clock = Clock()
  with CountProgress("verify", total=4000, stream=stream, clock=clock) as progress:
    for _ in range(20):
      clock.now += 2
      progress.add(200)
  assert stream.getvalue() == expected


def test_nothing_is_said_of_what_is_quick():
  stream = Terminal()
  with CountProgress("verify", stream=stream, clock=Clock()) as progress:
    progress.add(10_000)
  assert stream.getvalue() == ""
