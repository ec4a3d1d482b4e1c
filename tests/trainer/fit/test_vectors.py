"""Vectors in a temporary file, as those in memory."""

import dataclasses
import gc
import os
from pathlib import Path

import numpy as np
import pytest

from beam_retrain.trainer.fit import training
from beam_retrain.trainer.fit.vectors import StoredVectors, make_vectors
from beam_retrain.transforms.core.errors import InputError
from tests.trainer.fit.test_training import RETRAIN, WHOLE, clusters, weight_bytes

ROWS = np.random.default_rng(3).normal(size=(5000, 7)).astype(np.float32)  # no row begins where a page does


@pytest.fixture(scope="module")
def stored() -> StoredVectors:
  stored = make_vectors(ROWS.shape, 4 * ROWS.size - 1)
  assert isinstance(stored, StoredVectors)
  for start in range(0, len(ROWS), 999):
    stored[start : start + 999] = ROWS[start : start + 999]
  return stored


@pytest.mark.parametrize("rows", [slice(0, 1024), slice(1023, 3000), slice(4900, 6000), slice(7, 7), slice(None)])
def test_a_range_of_rows(stored, rows):
  np.testing.assert_array_equal(stored[rows], ROWS[rows])


@pytest.mark.parametrize("rows", [[], [4999], [3, 3, 0, 2048]])
def test_rows_by_number(stored, rows):
  np.testing.assert_array_equal(stored[np.array(rows, np.int64)], ROWS[np.array(rows, np.int64)])


def test_the_limit_decides(tmp_path, monkeypatch):
  monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
  assert isinstance(make_vectors((10, 10), 400), np.ndarray)
  assert isinstance(make_vectors((10, 10), None), np.ndarray)
  assert isinstance(make_vectors((10, 10), 399), StoredVectors)
  assert not list(tmp_path.iterdir())  # the file has no name that a killed process could leave


def test_no_room_is_found_before_anything_is_read():
  with pytest.raises(InputError, match=r"take 8192000\.0 GB, more than --memory_limit .* has no room .*: set TMPDIR"):
    make_vectors((10**12, 2048), None)


def test_ranges_are_not_kept_in_this_process(stored):
  def mapped() -> int:
    return Path("/proc/self/maps").read_text().count(f"/{os.path.basename(os.readlink(name))}")

  name = f"/proc/self/fd/{stored._file.fileno()}"
  held = stored[1000:2024]
  assert mapped() == 1
  del held
  gc.collect()
  assert mapped() == 0


@pytest.mark.parametrize("schedule", [WHOLE, RETRAIN], ids=["lbfgs", "retrain"])
def test_the_weights_are_those_of_vectors_in_memory(tmp_path, schedule):
  data = clusters(noise=100)
  vectors = StoredVectors(data.vectors.shape)
  vectors[0 : len(vectors)] = data.vectors
  ended = [
    training.train(of, schedule, seed=0, checkpoint=str(tmp_path / name))
    for name, of in (("memory", data), ("file", dataclasses.replace(data, vectors=vectors)))
  ]
  assert weight_bytes(ended[0][0]) == weight_bytes(ended[1][0])
  assert ended[0][1] == ended[1][1]
