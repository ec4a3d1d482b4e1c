"""What an image's header says, and every way of being no image."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image as Pillow

from beam_retrain.transforms.core.images import headers
from beam_retrain.transforms.core.images.formats import jpeg
from beam_retrain.transforms.core.images.headers import Fault, ImageInfo, explain, probe_image, probe_plain
from beam_retrain.transforms.core.records.quarantine import Reason
from tests.helpers import bomb, encode

_PIXELS = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_looks_at_each_format(kind, mode):
  assert probe_image(encode(_PIXELS, kind, mode)) == ImageInfo(kind.lower(), 20, 30)


@pytest.mark.parametrize(
  ("data", "reason"),
  [
    (b"", Reason.EMPTY),
    (b"these are not the pixels you are looking for", Reason.NOT_AN_IMAGE),
    (encode(_PIXELS, "TIFF"), Reason.UNSUPPORTED),
    (encode(_PIXELS, "PNG")[:20], Reason.TRUNCATED),
    (bomb(60_000, 60_000), Reason.TOO_LARGE),
    (bomb(8_000, 8_000), Reason.TOO_LARGE),
    (encode(_PIXELS, "BMP", "P"), Reason.UNSUPPORTED),
  ],
)
def test_each_fault_has_its_reason(data, reason):
  looked = probe_image(data)
  assert isinstance(looked, Fault)
  assert looked.reason == reason
  assert looked.detail


def test_the_bound_is_exact():
  assert isinstance(probe_image(encode(_PIXELS, "PNG"), max_pixels=600), ImageInfo)
  assert probe_image(encode(_PIXELS, "PNG"), max_pixels=599).reason == Reason.TOO_LARGE


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
def test_a_truncated_image_passes_the_look_and_is_explained(kind):
  cut = encode(_PIXELS, kind)[:-200]
  assert isinstance(probe_image(cut), ImageInfo)
  assert explain(cut).reason == Reason.TRUNCATED


def test_a_whole_image_that_was_refused_all_the_same_is_called_unsupported():
  assert explain(encode(_PIXELS, "PNG")).reason == Reason.UNSUPPORTED


def damaged(data: bytes, seed: int) -> bytes:
  """Changes one to three of the first bytes, where the header is, and cuts some short there."""
  rng = np.random.default_rng(seed)
  changed = bytearray(data)
  for _ in range(rng.integers(1, 4)):
    changed[rng.integers(0, min(len(data), 700))] = rng.choice([0, 1, 3, 4, 8, 255, rng.integers(0, 256)])
  return bytes(changed[: rng.integers(1, 700)] if seed % 4 == 0 else changed)


@pytest.mark.parametrize(
  ("kind", "mode"),
  [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "L"), ("PNG", "P"), ("PNG", "RGBA")],
)
def test_what_a_plain_header_says_is_what_the_whole_parser_says(kind, mode, monkeypatch):
  whole = encode(_PIXELS, kind, mode)
  assert (probe_plain(whole) is not None) == (mode in ("RGB", "L"))
  variants = [whole, *(whole[:cut] for cut in range(len(whole))), *(damaged(whole, seed) for seed in range(1_500))]
  said = [probe_plain(data) for data in variants]
  monkeypatch.setattr(headers, "probe_plain", lambda encoded: None)
  for data, plain in zip(variants, said, strict=True):
    if plain:
      assert probe_image(data) == (plain if plain.format == "png" else jpeg.check_data(plain, data))


_WITH_LITTLE_MEMORY = """
import resource, sys
from beam_retrain.transforms.core.images.headers import find_damage
encoded = sys.stdin.buffer.read()
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (16 << 20),) * 2)
try:
  print(find_damage(encoded))
except MemoryError:
  print("MemoryError")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="how much a process has is read in /proc")
def test_an_image_that_memory_does_not_do_for_is_not_damaged():
  file = io.BytesIO()
  Pillow.new("L", (7_000, 7_000)).save(file, "PNG")
  command = [sys.executable, "-c", _WITH_LITTLE_MEMORY]
  done = subprocess.run(command, input=file.getvalue(), capture_output=True, check=True)
  assert done.stdout.decode().strip() == "MemoryError"
