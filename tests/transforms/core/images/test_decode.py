"""The one preprocessing function: formats agree, values are what the formula gives."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image as Pillow

from beam_retrain.transforms.core.images.decode import decode_and_resize, preprocess, preprocess_alike
from tests.helpers import encode

_PIXELS = np.random.default_rng(2).integers(0, 256, (13, 9, 3), dtype=np.uint8)


def bilinear(pixels: np.ndarray, size: int) -> np.ndarray:
  """Bilinear sampling at pixel centres, edges repeated, written out: float64 [size, size, C]."""
  height, width = pixels.shape[:2]

  def corners(length: int):
    at = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
    low = np.floor(at).astype(int)
    return low, np.minimum(low + 1, length - 1), at - low

  top, bottom, down = corners(height)
  left, right, across = corners(width)
  rows = pixels[top] * (1 - down)[:, None, None] + pixels[bottom] * down[:, None, None]
  return rows[:, left] * (1 - across)[None, :, None] + rows[:, right] * across[None, :, None]


@pytest.mark.parametrize("size", [5, 13, 75])
def test_gives_rgb_0_to_1_bilinear_without_antialiasing(size):
  result = decode_and_resize(tf.constant(encode(_PIXELS, "PNG")), size).numpy()
  assert result.dtype == np.float32
  np.testing.assert_allclose(result, bilinear(_PIXELS / 255.0, size), atol=1e-5)


@pytest.mark.parametrize(("kind", "mode"), [("BMP", "RGB"), ("BMP", "RGBA"), ("PNG", "RGBA")])
def test_lossless_formats_agree_to_the_last_bit(kind, mode):
  expected = decode_and_resize(tf.constant(encode(_PIXELS, "PNG")), 75).numpy()
  np.testing.assert_array_equal(decode_and_resize(tf.constant(encode(_PIXELS, kind, mode)), 75).numpy(), expected)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "JPEG", "GIF"])
def test_grey_becomes_three_equal_channels(kind):
  result = decode_and_resize(tf.constant(encode(_PIXELS, kind, "L")), 75).numpy()
  np.testing.assert_array_equal(result[..., 0], result[..., 1])
  np.testing.assert_array_equal(result[..., 0], result[..., 2])
  grey = np.asarray(Pillow.fromarray(_PIXELS).convert("L"))[..., None] / 255.0
  np.testing.assert_allclose(result[..., :1], bilinear(grey, 75), atol=0.3 if kind == "JPEG" else 1e-5)


def test_of_an_animation_the_first_frame():
  file = io.BytesIO()
  first = Pillow.fromarray(np.full((8, 8), 200, np.uint8))
  first.save(file, "GIF", save_all=True, append_images=[Pillow.fromarray(np.zeros((8, 8), np.uint8))])
  result = decode_and_resize(tf.constant(file.getvalue()), 10).numpy()
  np.testing.assert_allclose(result, 200 / 255, atol=1e-6)


def test_a_batch_is_its_images():
  images = [encode(_PIXELS, "PNG"), encode(_PIXELS, "JPEG", "L"), encode(_PIXELS, "BMP")]
  batch = preprocess(tf.constant(images), 75).numpy()
  assert batch.shape == (3, 75, 75, 3)
  for image, row in zip(images, batch, strict=True):
    np.testing.assert_array_equal(row, decode_and_resize(tf.constant(image), 75).numpy())


def test_damaged_bytes_are_refused():
  with pytest.raises(tf.errors.InvalidArgumentError):
    preprocess(tf.constant([encode(_PIXELS, "JPEG"), encode(_PIXELS, "JPEG")[:-100]]), 75)


@pytest.mark.parametrize("size", [13, 75])
@pytest.mark.parametrize(
  ("kind", "mode"), [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "L"), ("JPEG", "RGB"), ("GIF", "L")]
)
def test_a_batch_of_images_of_one_size_has_the_bits_that_any_batch_has(kind, mode, size):
  rng = np.random.default_rng(5)
  images = [encode(rng.integers(0, 256, (13, 9, 3), dtype=np.uint8), kind, mode) for _ in range(3)]
  found = tf.function(lambda batch: preprocess_alike(batch, size))(tf.constant(images)).numpy()
  expected = tf.function(lambda batch: preprocess(batch, size))(tf.constant(images)).numpy()
  np.testing.assert_array_equal(found, expected)


def test_damaged_bytes_are_refused_in_a_batch_of_one_size():
  with pytest.raises(tf.errors.InvalidArgumentError):
    preprocess_alike(tf.constant([encode(_PIXELS, "JPEG"), encode(_PIXELS, "JPEG")[:-100]]), 75)
