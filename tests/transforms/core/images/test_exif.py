"""The EXIF orientation: read from bytes, never a fault, in time that is bounded."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image as Pillow

from beam_retrain.transforms.core.images.exif import is_oriented, orientation_of, tell_oriented

_KINDS = ("JPEG", "PNG", "WEBP")


def _encode(kind: str, orientation: int | None = None, **options) -> bytes:
  exif = Pillow.Exif()
  if orientation is not None:
    exif[0x0112] = orientation
    options["exif"] = exif
  file = io.BytesIO()
  Pillow.new("RGB", (12, 8), "teal").save(file, kind, **options)
  return file.getvalue()


@pytest.mark.parametrize("kind", _KINDS)
def test_it_is_what_was_written(kind):
  assert [orientation_of(_encode(kind, value)) for value in range(1, 9)] == list(range(1, 9))
  assert orientation_of(_encode(kind)) == 1
  assert [is_oriented(_encode(kind, value)) for value in (None, 1, 6)] == [False, False, True]


def test_a_value_that_is_none_is_upright():
  assert [orientation_of(_encode("JPEG", value)) for value in (0, 9, 65535)] == [1, 1, 1]


def test_both_byte_orders_and_what_stands_before():
  little = b"II*\0" + struct.pack("<IHHHIHH", 8, 1, 0x0112, 3, 1, 8, 0)
  big = b"MM\0*" + struct.pack(">IHHHIHH", 8, 1, 0x0112, 3, 1, 8, 0)
  xmp = b"\xff\xe1" + struct.pack(">H", 2 + 29 + 3) + b"http://ns.adobe.com/xap/1.0/\0<x>"
  plain = _encode("JPEG")
  for tiff in (little, big):
    app1 = b"\xff\xe1" + struct.pack(">H", 8 + len(tiff)) + b"Exif\0\0" + tiff
    assert orientation_of(plain[:20] + xmp + b"\xff" + app1 + plain[20:]) == 8
  # In the pixels' data the same bytes say nothing.
  assert orientation_of(plain[:-2] + app1 + plain[-2:]) == 1


def test_an_exif_chunk_after_the_pixels_counts():
  turned, plain = _encode("PNG", 6), _encode("PNG")
  start = turned.index(b"eXIf") - 4
  chunk = turned[start : start + 12 + int.from_bytes(turned[start : start + 4])]
  end = plain.index(b"IEND") - 4
  assert orientation_of(plain[:end] + chunk + plain[end:]) == 6


@pytest.mark.parametrize("kind", _KINDS)
def test_damaged_bytes_give_an_orientation_and_no_error(kind):
  random, whole = np.random.default_rng(1), _encode(kind, 6)
  for end in range(len(whole)):
    assert orientation_of(whole[:end]) in (1, 6)
  for _ in range(2000):
    data = bytearray(whole)
    for place in random.integers(0, len(data), 3):
      data[place] = random.integers(0, 256)
    assert 1 <= orientation_of(bytes(data)) <= 8


def test_a_file_of_the_smallest_parts_is_not_followed_for_ever():
  assert orientation_of(b"\x89PNG\r\n\x1a\n" + bytes(12_000_000)) == 1
  assert orientation_of(b"\xff\xd8" + b"\xff" * 1_000_000) == 1


def test_what_to_do_can_be_typed():
  assert tell_oriented(18, 60, "my photos/manifest.csv") == (
    "18 of 60 images have an EXIF orientation and were used as stored; to turn them upright:"
    " beam-retrain convert --input 'my photos/manifest.csv' --output 'my photos/manifest_upright'"
  )
  assert tell_oriented(1, 1, "") == (
    "1 of 1 image has an EXIF orientation and was used as stored, as in training; an image editor turns it upright"
  )
