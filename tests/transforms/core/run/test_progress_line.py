"""Progress of a long loop: on a terminal a bar that goes away, elsewhere a line now and then."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest

from beam_retrain.transforms.core.run.progress_line import ProgressLine, describe
from tests.helpers import run_in_terminal


class Clock:
  def __init__(self) -> None:
    self.now = 50.0

  def __call__(self) -> float:
    return self.now


def test_told_now_and_then():
  clock, stream = Clock(), io.StringIO()
  with ProgressLine("verify", total=4000, stream=stream, clock=clock) as progress:
    for _ in range(20):
      clock.now += 2
      progress.add(200)
  assert stream.getvalue() == (
    "verify: 1,600 of 4,000 images, 100/s, 0:24 left\nverify: 3,200 of 4,000 images, 100/s, 0:08 left\n"
  )


_VERIFY = """
import itertools
from beam_retrain.transforms.core.printing import print
from beam_retrain.transforms.core.run.progress_line import ProgressLine
line = ProgressLine("verify", total=4000, clock=itertools.count(step=20).__next__)
for count in (1000, 2000, 3000):
  line.show(count, 4000, bad=2)
print("FAILED: three labels differ")
line.show(4000, None)
line.__exit__()
"""


def test_a_bar_on_a_terminal():
  shown = run_in_terminal([sys.executable, "-c", _VERIFY], columns=60)
  *bars, told, last = shown.split("\r\033[K")
  assert [re.sub(r"\x1b\[[\d;]*m", "", bar) for bar in bars] == [
    "verify ━━━╸━━━━━━━━━━━ 1,000 of 4,000 images, 2 bad",
    "verify ━━━━━━━╸━━━━━━━ 2,000 of 4,000 images, 50/s, 0:40 l…",
    "verify ━━━━━━━━━━━╺━━━ 3,000 of 4,000 images, 50/s, 0:20 l…",
  ]
  assert all("\033[" in bar for bar in bars)
  assert told == "\033[1;31mFAILED\033[0m: three labels differ\r\nverify 4,000 images, 50/s"
  assert last == ""


@pytest.mark.parametrize(("env", "has_bar"), [({"NO_COLOR": "1"}, True), ({"TERM": "dumb"}, False)])
def test_no_colour_where_it_is_not_wanted(env, has_bar):
  shown = run_in_terminal([sys.executable, "-c", _VERIFY], **env)
  assert ("verify ━━━━━ " in shown, "verify: 2,000 of 4,000 images" in shown) == (has_bar, not has_bar)
  assert "\033[" not in shown.replace("\r\033[K", "" if has_bar else "\033[")
  assert "FAILED: three labels differ\r\n" in shown


def test_elsewhere_there_are_lines_alone():
  shown = subprocess.run([sys.executable, "-c", _VERIFY], capture_output=True, text=True, check=True)
  assert "\033" not in shown.stdout + shown.stderr
  assert shown.stderr.splitlines()[-1] == "verify: 4,000 images, 50/s"


def test_nothing_is_said_of_what_is_quick():
  stream = io.StringIO()
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
