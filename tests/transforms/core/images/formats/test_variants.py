"""Variants of each format: decoded rightly by the batch path and the exported graph, or refused by both."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image as Pillow

from beam_retrain.transforms.core.images.decode import decode_rgb
from beam_retrain.transforms.core.images.headers import Fault, ImageInfo, probe_image
from beam_retrain.transforms.core.records.quarantine import Reason
from tests.helpers import encode

_PIXELS = np.random.default_rng(4).integers(0, 256, (20, 32, 3), dtype=np.uint8)
_OTHER = Pillow.fromarray(_PIXELS[::-1].copy())
_RGBA = np.dstack([_PIXELS, np.tile(np.arange(32, dtype=np.uint8) * 8, (20, 1))])

_in_graph = tf.function(decode_rgb, input_signature=[tf.TensorSpec([], tf.string)])


def saved(kind: str, pixels: np.ndarray = _PIXELS, **options: object) -> bytes:
  file = io.BytesIO()
  Pillow.fromarray(pixels).save(file, kind, **options)
  return file.getvalue()


def bmp(order: str, masks: str = "", compression: int = 0, header: int = 40, bits: int = 32) -> bytes:
  """A BMP whose bytes lie in `order`, with the masks of that order or another one."""
  lying = np.dstack([_PIXELS, np.full(_PIXELS.shape[:2], 255, np.uint8)])[::-1]
  data = lying[..., ["RGBA".index(letter) for letter in order]].tobytes()
  fields = struct.pack("<IiiHHIIiiII", header, 32, 20, 1, bits, compression, len(data), 0, 0, 0, 0)
  masks_of = b"".join(struct.pack("<I", 0xFF << 8 * masks.index(letter)) for letter in ("RGBA" if masks else ""))
  head = (fields + masks_of).ljust(header, b"\0")
  return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(data), 0, 0, 14 + len(head)) + head + data


def with_palette(colours: int, blue: int) -> bytes:
  encoded = bytearray(saved("BMP", (_PIXELS[..., 0] % np.uint16(colours)).astype(np.uint8)))
  struct.pack_into("<I", encoded, 46, colours if colours < 256 else 0)
  encoded[54 + 4] = blue
  return bytes(encoded)


_RIGHT = {
  "no masks": bmp("BGRA"),
  "no masks, long header": bmp("BGRA", "BGRA", header=108),
  "masks as usual": bmp("BGRA", "BGRA", 3),
  "masks as usual, long header": bmp("BGRA", "BGRA", 3, 108),
  "24 bits": bmp("BGR", bits=24),
}
_WRONG = {
  "masks turned round": bmp("ABGR", "ABGR", 3, 108),
  "masks of red first": bmp("RGBA", "RGBA", 3),
  "24 bits, compressed": bmp("BGR", compression=1, bits=24),
  "PNG in a BMP": bmp("BGRA", compression=5),
  "header of OS/2": bmp("BGRA", header=12),
  "a palette of colours": with_palette(256, 7),
  "a short palette of colours": with_palette(16, 7),
}


@pytest.mark.parametrize("name", _RIGHT)
def test_a_bmp_without_colours_of_its_own_is_decoded(name):
  assert probe_image(_RIGHT[name]) == ImageInfo("bmp", 20, 32)
  np.testing.assert_array_equal(_in_graph(_RIGHT[name]).numpy(), _PIXELS)


@pytest.mark.parametrize("colours", [256, 16])
def test_a_bmp_with_a_grey_palette_is_decoded(colours):
  encoded = with_palette(colours, 1)
  assert probe_image(encoded) == ImageInfo("bmp", 20, 32)
  np.testing.assert_array_equal(_in_graph(encoded).numpy(), np.dstack([_PIXELS[..., 0] % np.uint16(colours)] * 3))


@pytest.mark.parametrize("name", _WRONG)
def test_a_bmp_with_colours_of_its_own_is_refused_by_batch_path_and_graph(name):
  assert probe_image(_WRONG[name]).reason == Reason.UNSUPPORTED
  with pytest.raises(tf.errors.InvalidArgumentError):
    _in_graph(_WRONG[name])


_ANIMATED = {"save_all": True, "append_images": [_OTHER], "lossless": True}
_ANIMATED_RGBA = {"save_all": True, "append_images": [_OTHER.convert("RGBA")], "lossless": True, "exact": True}


@pytest.mark.parametrize(
  ("encoded", "pixels"),
  [
    (saved("WEBP", lossless=True), _PIXELS),
    (saved("WEBP", _RGBA, lossless=True, exact=True), _PIXELS),
    (saved("WEBP", lossless=True, exif=b"Exif\0\0II*\0"), _PIXELS),
    (saved("WEBP", **_ANIMATED), _PIXELS),
    (saved("WEBP", _RGBA, **_ANIMATED_RGBA), _PIXELS * (_RGBA[..., 3:] > 0)),
  ],
  ids=["still", "alpha", "metadata", "animated", "animated, alpha"],
)
def test_a_webp_is_decoded(encoded, pixels):
  assert probe_image(encoded) == ImageInfo("webp", 20, 32)
  np.testing.assert_array_equal(_in_graph(encoded).numpy(), pixels)


def test_a_webp_that_was_cut_is_refused():
  cut = saved("WEBP", lossless=True)[:-200]
  assert isinstance(probe_image(cut), ImageInfo)
  with pytest.raises(tf.errors.InvalidArgumentError):
    _in_graph(cut)


@pytest.mark.parametrize(
  ("encoded", "name", "remedy"),
  [
    (encode(_PIXELS, "TIFF"), "a TIFF", "beam-retrain convert"),
    (encode(_PIXELS, "AVIF"), "an AVIF", "beam-retrain convert"),
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC", "beam-retrain convert"),
    (encode(_PIXELS, "JPEG2000"), "a JPEG 2000", "beam-retrain convert"),
    (encode(_PIXELS, "ICO"), "an ICO", "beam-retrain convert"),
    (b"8BPS\0\1", "a PSD", "beam-retrain convert"),
    (b"\xff\x0a\xfa", "a JPEG XL", "save it as PNG"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer", "git lfs pull"),
    (b"\xef\xbb\xbf\n<!DOCTYPE html><html>", "an HTML page", "download it again"),
    (b"\0\x05\x16\x07\0\2\0\0Mac OS X", "an AppleDouble file", "delete it"),
  ],
)
def test_what_is_not_decoded_is_named_with_a_remedy(encoded, name, remedy):
  fault = probe_image(encoded)
  assert isinstance(fault, Fault)
  assert fault.reason == Reason.UNSUPPORTED
  assert fault.detail.startswith(name)
  assert remedy in fault.detail


@pytest.mark.parametrize("depth", [b"\xff\xc3\0\x0b\x08", b"\xff\xc1\0\x0b\x0c"])
def test_a_lossless_or_12_bit_jpeg_is_unsupported(depth):
  encoded = b"\xff\xd8" + depth + b"\0\x10\0\x10\1\1\x11\0\xff\xda"
  assert probe_image(encoded).reason == Reason.UNSUPPORTED
