"""What is decoded without TensorFlow has the very pixels of TensorFlow's decoder and resize."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image as Pillow

from beam_retrain.transforms.core.images.decode_plain import MISSING_PIXELS, decode_plain
from beam_retrain.transforms.core.images.formats.info import Fault
from beam_retrain.transforms.core.images.formats.png import START
from beam_retrain.transforms.core.images.headers import probe_image
from beam_retrain.transforms.core.models.inference import PLAIN_PIXELS, decoding_model, infer_images
from beam_retrain.transforms.core.records.schema import Image
from tools.zoo.formats.png import chunk
from tools.zoo.mutate import mutant
from tools.zoo.table import VARIANTS

_INPUT_PX = 75
_SIZES = [(28, 28), (1, 1), (7, 3), (75, 75), (150, 150), (299, 299), (90, 249), (600, 451), (17, 1000), (1024, 768)]


@pytest.fixture(scope="module")
def tensorflow():
  return decoding_model(_INPUT_PX, lambda pixels: {})


def encode(pixels, format, **options):
  file = io.BytesIO()
  Pillow.fromarray(pixels).save(file, format, **options)
  return file.getvalue()


@pytest.mark.parametrize(("height", "width"), _SIZES)
def test_any_size_is_resized_to_the_same_bits(height, width, tensorflow):
  rng = np.random.default_rng(height)
  small = Pillow.fromarray(rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8))
  colour = np.asarray(small.resize((width, height), Pillow.Resampling.BICUBIC))
  grey = colour[..., 0]
  images = [encode(grey, "JPEG"), encode(grey, "PNG"), encode(colour, "PNG")]
  images += [encode(colour, "JPEG", quality=quality, subsampling=kind) for quality, kind in ((75, 0), (90, 1), (50, 2))]
  images.append(encode(colour, "JPEG", progressive=True))
  np.testing.assert_array_equal(decode_plain(images, _INPUT_PX), tensorflow.preprocess(images))
  if max(height, width) <= _INPUT_PX:
    np.testing.assert_array_equal(decode_plain(images, _INPUT_PX), tensorflow.preprocess_alike(images))


def _png(data: bytes, width: int = 40, height: int = 30, before: bytes = b"", after: bytes = b"") -> bytes:
  header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
  return b"".join((START, header, before, chunk(b"IDAT", data), after, chunk(b"IEND", b"")))


def _in_small_window(rows: bytes) -> bytes:
  """Claims a window of 512 bytes for data that look further back."""
  data = zlib.compress(rows, 9)
  return bytes([0x18, 0x19]) + data[2:]


@pytest.mark.parametrize(
  "made",
  [
    _png(zlib.compress(bytes(30 * 41)), before=chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 30, 8, 0, 0, 0, 0))),
    _png(zlib.compress(bytes(30 * 41)), after=chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 30, 8, 0, 0, 0, 0))),
    _png(zlib.compress(bytes(1_000_002)), 1_000_001, 1),
    _png(_in_small_window((b"\0" + np.random.default_rng(1).bytes(999)) * 30), 999, 30),
  ],
  ids=["two headers", "a header behind", "a side above a million", "a small window"],
)
def test_what_libpng_refuses_is_left_to_tensorflow(made, tensorflow):
  with Pillow.open(io.BytesIO(made)) as image:
    image.load()  # Pillow takes it
  assert decode_plain([made], _INPUT_PX) is None
  with pytest.raises(Exception, match="PNG"):
    tensorflow.preprocess([made])


def test_every_variant_and_damaged_image_is_the_same_or_left_to_tensorflow(tensorflow):
  images = {variant.what: variant.made.data for variant in VARIANTS if len(variant.made.data) < 100_000}
  images |= {str(number): mutant(20, number)[1] for number in range(1_000)}
  # A cut PNG, and a JPEG without the last bits of its coefficients, which seeds before had found.
  images |= {str(number): mutant(*number)[1] for number in ((78, 115001), (78, 127144), (77, 1086), (77, 8484))}
  decoded, others = 0, []
  for name, data in images.items():
    probed = probe_image(data)
    if isinstance(probed, Fault) or (ours := decode_plain([probed.cut or data], _INPUT_PX)) is None:
      continue
    decoded += 1
    if not np.array_equal(ours, tensorflow.preprocess([probed.cut or data])):
      others.append(name)
  assert others == []
  assert decoded > 60
  assert np.isin(MISSING_PIXELS, tensorflow.missing_pixels).all()


def test_after_many_images_tensorflow_decodes_to_the_same_bits():
  rng = np.random.default_rng(3)
  made = [encode(rng.integers(0, 256, (28, 28), dtype=np.uint8), "JPEG") for _ in range(48)]
  found, one = [], 28**2
  for before in (0, PLAIN_PIXELS - 32 * one, PLAIN_PIXELS):
    model = decoding_model(_INPUT_PX, lambda pixels: {"pixels": np.array(pixels)})
    model.plain[0] = before
    images = [Image(str(number), "", encoded) for number, encoded in enumerate(made)]
    found.append([item.outputs["pixels"] for item in infer_images(images, model, batch_size=16)])
    assert model.plain[0] == max(48 * one, min(PLAIN_PIXELS, before + 48 * one))
  np.testing.assert_array_equal(found[0], found[1])
  np.testing.assert_array_equal(found[0], found[2])


def test_large_images_are_left_to_tensorflow_sooner():
  model = decoding_model(_INPUT_PX, lambda pixels: {"pixels": np.array(pixels)})
  large = encode(np.zeros((1500, 1500), np.uint8), "JPEG")
  images = [Image(str(number), "", large) for number in range(2)]
  assert len(list(infer_images(images, model, batch_size=2))) == 2
  assert model.plain[0] == 2 * (_INPUT_PX**2 + 2 * 299**2)


def test_large_images_are_decoded_by_several_threads_to_the_same_bits(tensorflow):
  rng = np.random.default_rng(4)
  sides = ((1100, 1200), (28, 28), (1300, 900), (1100, 1000), (75, 75))
  encoded = [encode(rng.integers(0, 256, (*side, 3), dtype=np.uint8), "JPEG") for side in sides]
  expected = tensorflow.preprocess(encoded)
  for threads in (1, 2, 8):
    np.testing.assert_array_equal(decode_plain(encoded, _INPUT_PX, threads), expected)
  assert decode_plain([*encoded, b"no image"], _INPUT_PX, 2) is None


def test_a_batch_is_filled_without_decoding_a_large_image_again():
  model = decoding_model(_INPUT_PX, lambda pixels: {"pixels": np.asarray(pixels)})
  large = Image("", "", encode(np.random.default_rng(2).integers(0, 256, (1100, 1200), np.uint8), "PNG"))
  (alone,) = infer_images([large], model, batch_size=1)
  decoded = model.plain[0]
  (one,) = infer_images([large], model, batch_size=32)
  np.testing.assert_array_equal(one.outputs["pixels"], alone.outputs["pixels"])
  assert model.plain[0] - decoded == decoded + 31  # of one pixel each
