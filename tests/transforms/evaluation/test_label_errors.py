"""Label errors in files of records: which of them are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from beam_retrain.transforms.core.records.schema import Bottleneck, encode_bottleneck
from beam_retrain.transforms.core.records.tfrecord import frame
from beam_retrain.transforms.evaluation.label_errors import RecordFile, read_table

LABELS = ("a", "b")


def _write(folder: Path, vectors: list[np.ndarray], label: str = "a", sha256: str = "") -> RecordFile:
  path = folder / "all-00000-of-00001.tfrecord"
  images = [
    Bottleneck(f"{number}.png", label, 0, vector, "png", 8, 8, sha256 or f"{number:064x}")
    for number, vector in enumerate(vectors)
  ]
  path.write_bytes(b"".join(bytes(frame(encode_bottleneck(image))) for image in images))
  return RecordFile(str(path), "all")


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
def test_vectors_that_cannot_be_squared_are_left_out(tmp_path: Path, bad: float) -> None:
  vectors = list(np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32))
  vectors[0] = np.array([1, 2, bad, 4], np.float32)
  table = read_table([_write(tmp_path, vectors)], LABELS)
  assert table is not None
  assert table.places[:, 1].tolist() == list(range(1, 40))
  assert np.isfinite(table.components).all()


def test_images_of_other_labels_and_too_few_give_none(tmp_path: Path) -> None:
  vectors = list(np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32))
  assert read_table([_write(tmp_path, vectors, label="c")], LABELS) is None
  assert read_table([_write(tmp_path, vectors[:1])], LABELS) is None
