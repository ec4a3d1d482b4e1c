"""Encoded bytes equal what Pillow writes to a file."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest

from transforms.core.encode import encode_pixels


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
