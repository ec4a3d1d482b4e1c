"""The head in numpy gives what the exported model's head gives."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.head import Head, decode_head, encode_head


def _draw(dimensions: int = 5, classes: int = 3) -> Head:
  rng = np.random.default_rng(8)
  shapes = ((dimensions,), (dimensions,), (dimensions, classes), (classes,))
  return Head(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))


def test_scores_are_a_softmax_of_the_scaled_bottleneck() -> None:
  head = _draw()
  bottlenecks = np.random.default_rng(9).normal(size=(7, 5)).astype(np.float32)
  scores = head.score(bottlenecks)
  assert (scores.dtype, scores.shape) == (np.float32, (7, 3))
  for bottleneck, row in zip(bottlenecks, scores, strict=True):
    logits = (bottleneck * head.scale + head.offset) @ head.kernel + head.bias
    np.testing.assert_allclose(row, np.exp(logits) / np.exp(logits).sum(), rtol=1e-5)
  np.testing.assert_array_equal(head.score(bottlenecks[3:4])[0], scores[3])


def test_large_logits_do_not_overflow() -> None:
  head = _draw()
  assert np.isfinite(head.score(np.full((1, 5), 1e6, np.float32))).all()


def test_it_comes_back_as_it_was() -> None:
  head = _draw()
  for before, after in zip(head, decode_head(encode_head(head), "head.npz"), strict=True):
    np.testing.assert_array_equal(before, after)
  assert encode_head(head) == encode_head(_draw())


def _pickled() -> bytes:
  file = io.BytesIO()
  np.savez(file, **{**_draw()._asdict(), "bias": np.array([object()] * 3)})
  return file.getvalue()


@pytest.mark.parametrize(
  "data",
  [
    pytest.param(b"", id="empty"),
    pytest.param(encode_head(_draw())[:200], id="cut"),
    pytest.param(encode_head(_draw()._replace(bias=np.zeros(4, np.float32))), id="of another size"),
    pytest.param(_pickled(), id="something to unpickle"),
  ],
)
def test_a_damaged_file_is_told(data: bytes) -> None:
  with pytest.raises(InputError, match=r"m/head\.npz is damaged \(.+\): run `beam-retrain train` again"):
    decode_head(data, "m/head.npz")


def test_it_scores_as_the_exported_model_does(trained_model: Path, bottlenecks_folder: Path) -> None:
  import tensorflow as tf

  from beam_retrain.transforms.core.records.schema import decode_bottleneck
  from beam_retrain.transforms.core.records.tfrecord import read_records

  vectors = []
  for path in sorted((bottlenecks_folder / "records").glob("*.tfrecord")):
    with path.open("rb") as file:
      vectors += [decode_bottleneck(record).vector for record in read_records(file, str(path))]
  stacked = np.stack(vectors)
  expected = tf.saved_model.load(str(trained_model / "saved_model")).score_bottlenecks(tf.constant(stacked))["scores"]
  head = decode_head((trained_model / "head.npz").read_bytes(), "head.npz")
  np.testing.assert_allclose(head.score(stacked), expected.numpy(), atol=2e-6)
