"""Reading whatever Pillow reads: upright, in sRGB, opaque, 8 bits; and never more than it is asked for."""

from __future__ import annotations

import io
import struct
import sys

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageCms

from beam_retrain.transforms.core.images import upright
from beam_retrain.transforms.core.images.headers import Fault
from beam_retrain.transforms.core.images.upright import read_upright
from beam_retrain.transforms.core.records.quarantine import Reason
from beam_retrain.transforms.core.system.extras import install_command
from tests.helpers import bomb, encode

# Squares of 8 pixels: what a lossy format keeps of them is near.
_PIXELS = np.kron(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
_IMAGE = Pillow.fromarray(_PIXELS)


def _save(image: Pillow.Image, kind: str, **options) -> bytes:
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def _read(encoded: bytes, **options) -> np.ndarray:
  pixels = read_upright(encoded, **options)
  assert isinstance(pixels, np.ndarray), pixels
  return pixels


def _fault(encoded: bytes, **options) -> Fault:
  fault = read_upright(encoded, **options)
  assert isinstance(fault, Fault)
  return fault


@pytest.mark.parametrize(
  ("kind", "options"),
  [
    *(("TIFF", {"compression": name}) for name in ("raw", "tiff_lzw", "tiff_adobe_deflate")),
    *((kind, {}) for kind in ("BMP", "DDS", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA")),
    ("WEBP", {"lossless": True}),
    ("ICO", {"sizes": [(64, 48)]}),
  ],
)
def test_formats_without_loss_give_the_pixels_exactly(kind, options):
  np.testing.assert_array_equal(_read(_save(_IMAGE, kind, **options)), _PIXELS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(kind, orientation):
  # The inverse of what a reader is to do, from the table of Exif 3.0, 4.6.5.1.
  stored = {
    1: _PIXELS,
    2: _PIXELS[:, ::-1],
    3: _PIXELS[::-1, ::-1],
    4: _PIXELS[::-1],
    5: _PIXELS.transpose(1, 0, 2),
    6: np.rot90(_PIXELS, 1),
    7: np.rot90(_PIXELS, 2).transpose(1, 0, 2),
    8: np.rot90(_PIXELS, -1),
  }[orientation]
  exif = Pillow.Exif()
  exif[0x0112] = orientation
  options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}.get(kind, {})
  read = _read(_save(Pillow.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options))
  assert read.shape == _PIXELS.shape
  assert np.abs(read.astype(int) - _PIXELS).mean() < 12


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_grey_of_16_bits_keeps_the_upper_8(kind):
  ramp = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
  np.testing.assert_array_equal(_read(_save(Pillow.fromarray(ramp), kind)), ramp >> 8)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_grey_without_a_range_is_refused(dtype):
  fault = _fault(_save(Pillow.fromarray(np.ones((4, 4), dtype)), "TIFF"))
  assert (fault.reason, fault.detail.split(":")[0]) == (
    Reason.UNSUPPORTED,
    "grey values of 32 bits, whose range is not known",
  )


@pytest.mark.parametrize("alpha", ["white", "black"])
def test_transparent_pixels_show_what_is_behind(alpha):
  behind = {"white": 255, "black": 0}[alpha]
  opacity = Pillow.fromarray(np.where(np.arange(64) < 32, 0, 255).astype(np.uint8)[None].repeat(48, 0))
  for image in (_IMAGE, _IMAGE.convert("L")):
    pixels = np.asarray(image)
    clear = image.copy()
    clear.putalpha(opacity)
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
      read = _read(_save(clear, kind, **options), alpha=alpha)
      assert (read[:, :32] == behind).all()
      np.testing.assert_array_equal(read[:, 32:], _read(_save(image, kind, **options))[:, 32:])
  # One level or palette entry that stands for transparent.
  deep = Pillow.fromarray(np.array([[256, 300, 65535]], np.uint16))
  assert _read(_save(deep, "PNG", transparency=300), alpha=alpha).tolist() == [[1, behind, 255]]
  palette = Pillow.fromarray(pixels // 128)
  palette.putpalette([9, 8, 7, 30, 20, 10])
  first = _read(_save(palette, "GIF", transparency=0), alpha=alpha)
  assert {tuple(pixel) for pixel in first.reshape(-1, 3)} == {(behind,) * 3, (30, 20, 10)}


def test_another_colour_profile_is_brought_to_srgb():
  srgb = ImageCms.createProfile("sRGB")
  lab = ImageCms.buildTransform(srgb, ImageCms.createProfile("LAB"), "RGB", "LAB")
  stored = ImageCms.applyTransform(_IMAGE, lab)
  assert np.abs(_read(_save(stored, "TIFF")).astype(int) - _PIXELS).mean() < 3
  # A profile whose red and blue are exchanged: a wrong but valid one, told at a glance.
  data = bytearray(ImageCms.ImageCmsProfile(srgb).tobytes())
  red, blue = data.index(b"rXYZ"), data.index(b"bXYZ")
  data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
  exchanged = _read(_save(_IMAGE, "PNG", icc_profile=bytes(data)))
  assert np.abs(exchanged[..., ::-1].astype(int) - _PIXELS).max() <= 3


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_profile_of_srgb_or_of_no_use_changes_nothing(mode):
  image = _IMAGE.convert(mode)
  for profile in (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), b"no profile" * 20):
    np.testing.assert_array_equal(_read(_save(image, "PNG", icc_profile=profile)), np.asarray(image))


def test_cmyk_is_read_with_and_without_a_profile_of_its_own():
  cmyk = _IMAGE.convert("CMYK")
  np.testing.assert_array_equal(_read(_save(cmyk, "TIFF")), np.asarray(cmyk.convert("RGB")))
  assert np.abs(_read(_save(cmyk, "JPEG", quality=95)).astype(int) - _PIXELS).mean() < 4


def test_of_several_frames_or_pages_the_first_is_read():
  for kind in ("GIF", "TIFF", "WEBP"):
    frames = [Pillow.new("RGB", (5, 4), colour) for colour in ("blue", "red")]
    options = {"lossless": True} if kind == "WEBP" else {}
    read = _read(_save(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert read.reshape(-1, 3).tolist() == [[0, 0, 255]] * 20


def test_what_is_too_large_is_not_decoded():
  assert _fault(bomb(60_000, 60_000)).reason == Reason.TOO_LARGE
  for kind in ("TIFF", "WEBP", "JPEG2000", "ICO"):
    assert _fault(_save(_IMAGE, kind), max_pixels=200).reason == Reason.TOO_LARGE
  # A TIFF of few pixels in one huge tile, made of the tag for the rows of a strip.
  tiled = bytearray(_save(Pillow.new("L", (16, 16)), "TIFF"))
  entry = tiled.index((278).to_bytes(2, "little") + b"\x04\0\x01\0\0\0")
  tiled[entry : entry + 12] = struct.pack("<HHII", 322, 4, 1, 50_000)
  assert _fault(bytes(tiled), max_pixels=1000) == Fault(
    Reason.TOO_LARGE, "50000 x 1 pixels, more than the 1000 allowed"
  )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "JPEG2000", "ICO", "PPM", "TGA"])
def test_a_damaged_image_is_a_fault_or_pixels_and_never_an_error(kind):
  whole, random = _save(_IMAGE.resize((24, 16)), kind), np.random.default_rng(3)
  assert _fault(whole[: len(whole) // 2]).reason in (Reason.TRUNCATED, Reason.NOT_AN_IMAGE)
  for _ in range(60):
    data = bytearray(whole)
    for place in random.integers(0, len(data), 4):
      data[place] = random.integers(0, 256)
    assert isinstance(read_upright(bytes(data), max_pixels=10_000), np.ndarray | Fault)


def test_a_jpeg_whose_data_end_too_early_is_truncated():
  whole = encode(_PIXELS, "JPEG")
  assert _fault(whole[: len(whole) * 2 // 3] + b"\xff\xd9").reason == Reason.TRUNCATED


def test_what_is_no_image_is_named():
  assert _fault(b"").reason == Reason.EMPTY
  assert _fault(b"<!DOCTYPE html><html>not found</html>").reason in (Reason.NOT_AN_IMAGE, Reason.UNSUPPORTED)
  # A program that Pillow would start Ghostscript for.
  assert _fault(_save(_IMAGE, "EPS")).reason == Reason.UNSUPPORTED


def test_what_pillow_would_show_otherwise_is_refused():
  """A camera's raw file by its preview, a PNG of an iOS app with swapped colours, a text as a damaged BMP."""
  raw = [_save(_IMAGE, "TIFF", tiffinfo=tags) for tags in ({254: 1}, {50706: b"\1\4\0\0"})]
  assert {_fault(encoded).detail[:10] for encoded in raw} == {"a camera's"}
  whole = _save(_IMAGE, "PNG")
  assert _fault(whole[:8] + b"\0\0\0\4CgBI\x50\0\x20\6\x2b\xd5\xb3\x7f" + whole[8:]).reason == Reason.UNSUPPORTED
  assert _fault(b"BMW makes cars in Munich.").reason == Reason.NOT_AN_IMAGE


def test_heic_is_read_with_its_extra():
  pillow_heif = pytest.importorskip("pillow_heif", reason="the extra [heic] is not installed")
  file = io.BytesIO()
  pillow_heif.from_pillow(_IMAGE).save(file, quality=-1, chroma=444)
  assert np.abs(_read(file.getvalue()).astype(int) - _PIXELS).max() <= 2


def test_heic_without_its_extra_says_how(monkeypatch):
  monkeypatch.setitem(sys.modules, "pillow_heif", None)  # not installed
  monkeypatch.setattr(Pillow, "OPEN", {name: one for name, one in Pillow.OPEN.items() if name != "HEIF"})
  upright._formats.cache_clear()
  try:
    fault = _fault(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    assert "pillow_heif" not in upright.reader_versions()
  finally:
    upright._formats.cache_clear()
  assert fault == Fault(Reason.UNSUPPORTED, f"a HEIC: {install_command('heic')} and run the command again")
