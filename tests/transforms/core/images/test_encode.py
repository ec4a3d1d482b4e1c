"""Encoded bytes equal what Pillow writes to a file."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest

from beam_retrain.transforms.core.images import encode
from beam_retrain.transforms.core.images.encode import encode_each, encode_pixels


def _pixels(seed: int, shape: tuple[int, int] = (28, 28)) -> np.ndarray:
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(("extension", "format"), [("jpg", "jpeg"), ("png", "png")])
@pytest.mark.parametrize("shape", [(28, 28), (1, 1), (33, 7), (200, 300)])
def test_bytes_are_those_of_a_default_save_to_a_file(tmp_path, extension, format, shape):
  pixels = _pixels(1, shape)
  path = tmp_path / f"image.{extension}"
  PIL.Image.fromarray(pixels).save(path)
  assert encode_pixels(pixels, format) == path.read_bytes()


def test_quality_is_pillows(tmp_path):
  pixels = _pixels(2)
  PIL.Image.fromarray(pixels).save(tmp_path / "image.jpg", quality=31)
  assert encode_pixels(pixels, "jpeg", 31) == (tmp_path / "image.jpg").read_bytes()
  assert encode_pixels(pixels, "jpeg", 31) != encode_pixels(pixels, "jpeg")


def test_png_is_lossless_and_rows_stay_rows():
  pixels = _pixels(3, (5, 9))
  image = PIL.Image.open(io.BytesIO(encode_pixels(pixels, "png")))
  assert (image.mode, image.size) == ("L", (9, 5))
  np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("format", ["jpeg", "png"])
@pytest.mark.parametrize("shape", [(28, 28), (1, 1), (8, 8), (17, 9), (64, 3), (3, 64)])
@pytest.mark.parametrize("quality", [1, 75, 100])
def test_images_encoded_together_have_the_bytes_of_each_alone(format, shape, quality):
  images = np.random.default_rng(4).integers(0, 256, (19, *shape), np.uint8)
  together = list(encode_each(images, format, quality))
  assert together == [encode_pixels(pixels, format, quality) for pixels in images]


@pytest.mark.parametrize("shape", [(2_100, 28, 28), (9, 1_000, 900), (2, 1_500, 1_500), (3, 40_000, 2), (0, 28, 28)])
def test_no_strip_is_longer_than_a_jpeg_can_be(shape):
  images = np.random.default_rng(5).integers(0, 256, shape, np.uint8)
  assert list(encode_each(images, "jpeg")) == [encode_pixels(pixels, "jpeg") for pixels in images]


def test_images_are_encoded_together_where_that_pays(monkeypatch):
  saved = []
  save = encode._save
  monkeypatch.setattr(encode, "_save", lambda pixels, *args, **kw: saved.append(1) or save(pixels, *args, **kw))
  list(encode_each(np.zeros((1_024, 28, 28), np.uint8), "jpeg"))
  assert len(saved) == 3  # all together, and the first and the last once more, for their bytes are compared


def test_a_libjpeg_that_knows_no_restart_markers_encodes_one_by_one(monkeypatch):
  images = np.random.default_rng(6).integers(0, 256, (5, 28, 28), np.uint8)
  expected = list(encode_each(images, "jpeg"))
  save = encode._save
  monkeypatch.setattr(encode, "_save", lambda pixels, format, quality, **_: save(pixels, format, quality=quality))
  assert list(encode_each(images, "jpeg")) == expected


def test_images_as_wide_as_a_jpeg_can_be_are_encoded_one_by_one():
  images = np.zeros((3, 1, 65_500), np.uint8)  # in whole blocks they would be wider
  assert list(encode_each(images, "jpeg")) == [encode_pixels(pixels, "jpeg") for pixels in images]
