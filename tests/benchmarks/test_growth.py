"""The growth benchmark: what it measures is what a process and its children took, what it writes can be read."""

from __future__ import annotations

import sys

import pytest

from beam_retrain.transforms.sources.idx import find_idx_splits
from benchmarks.growth import growth_table, write_idx
from benchmarks.process_tree import run_watched

_TAKE = "import time; block = b'1' * {} * (1 << 20); time.sleep(1.5)"


def test_the_peaks_of_a_process_and_of_its_child():
  child = _TAKE.format(150)
  parent = f"import subprocess, sys; run = subprocess.Popen([sys.executable, '-c', {child!r}]); {_TAKE.format(50)}"
  took = run_watched([sys.executable, "-c", f"{parent}; run.wait()"])
  of_parent, of_child = took.peaks_mb
  assert 50 < of_parent < 100
  assert 150 < of_child < 200
  assert took.seconds >= 1.5


def test_a_command_that_fails_ends_it():
  with pytest.raises(SystemExit, match="exit code 3"):
    run_watched([sys.executable, "-c", "raise SystemExit(3)"])


def test_the_images_are_as_many_as_asked_for(tmp_path):
  write_idx(tmp_path / "data", 1234)
  training, testing = find_idx_splits(str(tmp_path / "data"))
  assert (training.count, testing.count, training.rows, training.columns) == (1111, 123, 8, 8)


def test_each_kind_is_beside_its_own_fewest():
  rows = [
    {"stage": "bottlenecks", "images": images, "processes": processes, "seconds": seconds, "peaks_mb": [900.0, 800.4]}
    for images, processes, seconds in ((1000, 1, 5.0), (1000, 2, 8.0), (11_000, 1, 10.0), (11_000, 2, 10.0))
  ]
  assert growth_table(rows).splitlines()[4:] == [
    "| bottlenecks | 11,000 | 1 | 10.0 | 0.500 | 900 + 800 |",
    "| bottlenecks | 11,000 | 2 | 10.0 | 0.200 | 900 + 800 |",
  ]
