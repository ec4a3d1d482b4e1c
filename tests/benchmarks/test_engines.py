"""The benchmark of the engines: what it says of a run, from what the run has written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks.engines import Row, Way, rate_of, records_of, rows_table


@pytest.fixture
def output(tmp_path: Path) -> Path:
  """Three shards of 100, 300 and 300 images, the middle one finished six seconds before the last."""
  records = tmp_path / "records"
  records.mkdir()
  (tmp_path / "stats.json").write_text(json.dumps({"inputs": 700}))
  for name, size, finished in (("b", 100, 1000), ("a", 300, 1004), ("c", 300, 1010)):
    path = records / f"{name}.tfrecord"
    path.write_bytes(name.encode() * size)
    os.utime(path, (finished, finished))
  (records / "a.json").touch()
  return tmp_path


def test_the_rate_is_that_of_the_second_half_of_the_shards(output):
  assert rate_of(output) == pytest.approx(50)


def test_records_are_compared_by_name_and_bytes(output):
  assert records_of(output) == {"b.tfrecord": b"b" * 100, "a.tfrecord": b"a" * 300, "c.tfrecord": b"c" * 300}


def test_one_worker_is_held_to_one_core_and_two_are_not():
  assert [bool(Way("Flink", workers).held) for workers in (1, 2)] == [True, False]
  assert not Way("DirectRunner", 1, free=True).held


def test_a_line_of_the_table():
  row = Row(Way("Flink cluster", 1), 70_000, 100.0, 812.4, (400.4,), (800.0, 1066.0), False)
  expected = "| Flink cluster | 1, on one core | 70,000 | 100.0 | 700 | 812 | 800 + 1,066; Java 400 | NO |"
  assert rows_table([row]).splitlines()[-1] == expected
