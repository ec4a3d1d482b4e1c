"""The digest of the training images: what it holds, its bytes, and its stated error."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records import trained_on
from beam_retrain.transforms.core.records.trained_on import TrainedOn, starts_of


def _digests(*numbers: int) -> list[str]:
  return [hashlib.sha256(b"%d" % number).hexdigest() for number in numbers]


def _made(*numbers: int) -> TrainedOn:
  return TrainedOn.make(starts_of(_digests(*numbers)))


@pytest.mark.parametrize("most_long", [100, 500])
def test_it_holds_what_was_trained_on_and_nothing_else(most_long, monkeypatch):
  monkeypatch.setattr(trained_on, "MOST_LONG", most_long)
  made = _made(*range(300))
  read = TrainedOn.decode(made.encode(), "trained_on.bin")
  assert made.width == read.width == (8 if most_long == 500 else 6)
  for digest in (made, read):
    assert all(one in digest for one in _digests(*range(300)))
    assert not any(one in digest for one in _digests(*range(300, 3_000)))


def test_the_bytes_are_those_of_the_format_and_depend_on_the_images_alone():
  starts = sorted(bytes.fromhex(digest)[:8] for digest in _digests(1, 2, 3))
  data = b"BRSEEN1\n" + bytes([8, *[0] * 7, 3, *[0] * 7]) + b"".join(starts)
  assert _made(3, 1, 2, 1, 3).encode() == data + hashlib.sha256(data).digest()


@pytest.mark.parametrize("width", [1, 2])
def test_another_image_is_taken_for_one_of_them_as_often_as_stated(width):
  starts = np.random.default_rng(width).integers(0, 256**width, 100 * width, dtype=np.uint64)
  made = TrainedOn(np.unique(starts), width)
  found = sum(one in made for one in _digests(*range(20_000)))
  expected = 20_000 * len(made.starts) / 256**width
  assert abs(found - expected) < 5 * expected**0.5


def test_many_images_take_six_bytes_each():
  starts = np.random.default_rng(1).integers(0, 1 << 64, 1 << 20, dtype=np.uint64)
  made = TrainedOn.make(starts)
  assert len(made.starts) / 256**made.width < 1e-8
  assert len(made.encode()) == 56 + 6 * (1 << 20)
  assert 10_000_000 / 256**made.width < 3.6e-8


@pytest.mark.parametrize("place", [0, 9, 20, 30, -1])
def test_one_wrong_byte_is_told(place):
  data = bytearray(_made(1, 2, 3).encode())
  data[place] ^= 1
  with pytest.raises(InputError, match=r"^m/trained_on\.bin is damaged: run `beam-retrain train` again\.$"):
    TrainedOn.decode(bytes(data), "m/trained_on.bin")


@pytest.mark.parametrize("length", [0, 7, 24, 40, -1])
def test_a_cut_file_is_told(length):
  with pytest.raises(InputError, match="is damaged"):
    TrainedOn.decode(_made(1, 2, 3).encode()[:length], "trained_on.bin")


def test_what_is_no_digest_is_told():
  with pytest.raises(ValueError, match="not a SHA-256"):
    starts_of([*_digests(1), ""])
