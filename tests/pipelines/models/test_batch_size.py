"""Which batch is taken: the smallest of those that are fastest, within the time and the memory that there is."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from beam_retrain.pipelines.models.batch_size import CANDIDATES, find_batch, keep_batch, probe_batch

_PLENTY = 1 << 40


class Machine:
  """A clock, and a trunk that takes so much of its time.

  Attributes:
    image_secs: batch size -> seconds for each image.
    load_secs: seconds.
    most: batches above it do not fit in memory.
  """

  def __init__(self, image_secs, load_secs=0.0, most=10_000):
    self.now = 100.0
    self.tried = []
    self._lock = threading.Lock()  # two batches are in flight
    self._image_secs, self._load_secs, self._most = image_secs, load_secs, most

  def clock(self) -> float:
    return self.now

  def load(self, batch_size):
    self.tried.append(batch_size)
    self.now += self._load_secs

    def embed(pixels):
      assert pixels.shape == (batch_size, 5, 5, 3)
      assert pixels.dtype == np.float32
      if batch_size > self._most:
        raise MemoryError
      with self._lock:
        self.now += batch_size * self._image_secs(batch_size)

    return embed

  def probe(self, memory_bytes=_PLENTY, **more):
    return probe_batch(self.load, 5, memory_bytes=memory_bytes, clock=self.clock, **more)


def the_larger_the_faster(batch_size):
  return 1e-3 / batch_size**0.1


@pytest.mark.parametrize(
  ("fastest", "gain", "expected"), [(16, 2, 16), (64, 2, 64), (64, 1.02, 8), (64, 1.04, 64), (32, 2, 32)]
)
def test_takes_the_fastest_and_the_smallest_where_that_may_be_noise(fastest, gain, expected):
  machine = Machine(lambda batch_size: 1e-3 / (gain if batch_size == fastest else 1))
  assert machine.probe() == expected
  assert machine.tried == list(CANDIDATES)


@pytest.mark.parametrize(("image_secs", "tried"), [(5e-3, [8, 16, 32]), (1e-2, [8, 16]), (1.0, [8])])
def test_what_the_time_does_not_do_for_is_not_tried(image_secs, tried):
  machine = Machine(lambda _: image_secs)
  assert machine.probe() == (8 if len(tried) > 1 else 32)
  assert machine.tried == tried


def test_a_trunk_that_takes_long_to_load_is_not_run_at_all():
  machine = Machine(lambda _: 1e-4, load_secs=1.5)
  assert machine.probe() == 32
  assert (machine.tried, machine.now) == ([8], 101.5)


def test_a_batch_is_no_larger_than_memory_allows():
  pixels = 5 * 5 * 3 * 4 * 6  # of one image, as many times as it is there
  assert Machine(the_larger_the_faster).probe() == 64
  assert Machine(the_larger_the_faster).probe(memory_bytes=pixels * 16) == 16
  assert Machine(the_larger_the_faster).probe(memory_bytes=pixels * 16, processes=2) == 8
  assert Machine(lambda _: 1e-3).probe(memory_bytes=pixels * 16) == 8


@pytest.mark.parametrize(("most", "expected"), [(16, 16), (8, 8), (1, 1)])
def test_running_out_of_memory_ends_it(most, expected):
  assert Machine(the_larger_the_faster, most=most).probe() == expected


def test_another_fault_is_not_hidden():
  def load(batch_size):
    raise ValueError("damaged")

  with pytest.raises(ValueError, match="damaged"):
    probe_batch(load, 5)


def test_is_remembered_by_trunk_and_threads(monkeypatch, tmp_path):
  monkeypatch.setenv("BEAM_RETRAIN_CACHE_DIR", str(tmp_path))
  assert find_batch("a" * 64, 2) is None
  keep_batch("a" * 64, 2, 16)
  keep_batch("b" * 64, 2, 8, is_halved=True)
  assert find_batch("a" * 64, 2) == (16, False)
  assert find_batch("b" * 64, 2) == (8, True)
  assert find_batch("a" * 64, 1) is None
  code = "from beam_retrain.pipelines.models.batch_size import find_batch; print(find_batch('a' * 64, 2).batch_size)"
  found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ))
  assert found.stdout == "16\n"


def test_what_is_remembered_may_be_damaged(monkeypatch, tmp_path):
  monkeypatch.setenv("BEAM_RETRAIN_CACHE_DIR", str(tmp_path))
  keep_batch("a" * 64, 2, 16)
  (kept,) = tmp_path.glob("batches/*.json")
  kept.write_text("{")
  assert find_batch("a" * 64, 2) is None
