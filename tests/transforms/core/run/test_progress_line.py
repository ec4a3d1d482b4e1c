"""Progress of a long loop: on a terminal one line that goes away, elsewhere a line now and then."""

from __future__ import annotations

import io

import pytest

from beam_retrain.transforms.core.run.progress_line import ProgressLine, describe


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
    (
      io.StringIO(),
      "verify: 1,600 of 4,000 images, 100/s, 0:24 left\nverify: 3,200 of 4,000 images, 100/s, 0:08 left\n",
    ),
    (
      Terminal(),
      "".join(
        f"\r\033[Kverify: {n:,} of 4,000 images, 100/s, 0:{40 - n // 100:02d} left" for n in range(200, 4000, 200)
      )
      + "\r\033[Kverify: 4,000 of 4,000 images, 100/s\r\033[K",
    ),
  ],
)
def test_told_now_and_then(stream, expected):
  clock = Clock()
  with ProgressLine("verify", total=4000, stream=stream, clock=clock) as progress:
    for _ in range(20):
      clock.now += 2
      progress.add(200)
  assert stream.getvalue() == expected


def test_nothing_is_said_of_what_is_quick():
  stream = Terminal()
  with ProgressLine("verify", stream=stream, clock=Clock()) as progress:
    progress.add(10_000)
  assert stream.getvalue() == ""


@pytest.mark.parametrize(
  ("arguments", "expected"),
  [
    ((12_288, 60_000, "images", 167.6, 2), "12,288 of 60,000 images, 168/s, 4:45 left, 2 bad"),
    ((10, 100_000, "images", 9.0, 0), "10 of 100,000 images, 9.0/s, 3:05:10 left"),
    ((60_000, 60_000, "images", 168, 0), "60,000 of 60,000 images, 168/s"),
    ((60_000, None, "records", 168, 0), "60,000 records, 168/s"),
    ((0, 60_000, "images", 0.0, 0), "0 of 60,000 images"),
  ],
)
def test_described(arguments, expected):
  assert describe(*arguments) == expected


def test_the_rate_is_that_of_the_last_minute():
  clock, stream = Clock(), io.StringIO()
  line = ProgressLine("slow start", stream=stream, clock=clock)
  line.record(0)
  for second in range(1, 201):
    clock.now += 1
    line.record(max(0, second - 100) * 10)
  line.show(1000, total=1600)
  assert stream.getvalue() == "slow start: 1,000 of 1,600 images, 10/s, 1:00 left\n"
