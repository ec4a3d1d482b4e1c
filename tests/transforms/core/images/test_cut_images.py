"""Images whose data are shorter than their header says; whole ones, however odd, are none."""

import io
import struct

import numpy as np
import pytest
from PIL import Image as Pillow

from beam_retrain.transforms.core.images.headers import ImageInfo, find_missing_pixels, probe_image
from beam_retrain.transforms.core.models.inference import Inferred, LoadedModel, infer_images, load_model
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import Image

_END = b"\xff\xd9"
_STEPS = np.random.default_rng(0).normal(size=(128, 160, 3))
_PIXELS = np.clip(np.cumsum(np.cumsum(_STEPS, 0), 1) + 100, 0, 255).astype(np.uint8)


def picture(kind: str = "JPEG", mode: str = "RGB", pixels: np.ndarray = _PIXELS, **options: object) -> bytes:
  file = io.BytesIO()
  Pillow.fromarray(pixels).convert(mode).save(file, kind, **options)
  return file.getvalue()


_GREY = np.full((64, 64, 3), 128, np.uint8)
_ENDS_GREY = np.concatenate([_PIXELS, np.full((40, 160, 3), 128, np.uint8)])
_EXIF = Pillow.Exif()
_EXIF[0x0112] = 6
_WHOLE = {
  "plain": picture(),
  "grey": picture(mode="L"),
  "CMYK": picture(mode="CMYK"),
  "in RGB": picture(keep_rgb=True),
  "4:4:4": picture(subsampling=0),
  "4:2:2": picture(subsampling=1),
  "worst": picture(quality=1),
  "best": picture(quality=100),
  "progressive": picture(progressive=True),
  "progressive grey": picture(mode="L", progressive=True, optimize=True),
  "progressive CMYK": picture(mode="CMYK", progressive=True),
  "restart markers": picture(restart_marker_blocks=3),
  "EXIF": picture(exif=_EXIF),
  "16-bit tables": picture(qtables=[[300] * 64, [300] * 64]),
  "trailing garbage": picture() + b"garbage" * 9,
  "a second JPEG behind it": picture() + picture(pixels=_GREY),
  "one grey": picture(pixels=_GREY),
  "one grey, progressive": picture(pixels=_GREY, progressive=True, optimize=True),
  "ends grey": picture(pixels=_ENDS_GREY),
  "ends grey, restart markers": picture(pixels=_ENDS_GREY, restart_marker_rows=1),
  "a large one of one colour": picture(mode="L", pixels=np.full((3000, 3000, 3), 255, np.uint8), optimize=True),
  "as large, progressive": picture(pixels=np.zeros((3000, 3000, 3), np.uint8), optimize=True, progressive=True),
}


# 4 x 4 pixels, of which there are two (GIF89a, appendix F: clear, 0, 0, end, in codes of three bits).
_SHORT_GIF = (
  b"GIF89a"
  + struct.pack("<HHBBB", 4, 4, 0x80, 0, 0)
  + b"\0\0\0\xff\xff\xff"
  + b","
  + struct.pack("<HHHHB", 0, 0, 4, 4, 0)
  + b"\x02\x02"
  + bytes((0b00000100, 0b00001010))
  + b"\0;"
)


@pytest.fixture(scope="module")
def model(tiny_trunk) -> LoadedModel:
  return load_model(str(tiny_trunk))


def used(model: LoadedModel, *encoded: bytes) -> list[Inferred | Quarantined]:
  return list(infer_images([Image(str(n), "", one) for n, one in enumerate(encoded)], model, batch_size=4))


def claiming(jpeg: bytes, side: int) -> bytes:
  at = max(jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2")) + 5
  return jpeg[:at] + struct.pack(">HH", side, side) + jpeg[at + 4 :]


def test_whole_images_are_used(model):
  found = used(model, *_WHOLE.values())
  assert [name for name, item in zip(_WHOLE, found, strict=True) if not isinstance(item, Inferred)] == []


def cut(jpeg: bytes, part: float) -> bytes:
  """Keeps a part of the last scan's data, and closes the file as if it were whole."""
  data = jpeg.rindex(b"\xff\xda") + 14
  return jpeg[: data + int((len(jpeg) - data - 2) * part)].rstrip(b"\xff") + _END


@pytest.mark.parametrize("part", [0.5, 0.95])
def test_a_jpeg_that_was_cut_and_closed_is_told_from_its_neighbours(part, model):
  names = [name for name in _WHOLE if not any(word in name for word in ("progressive", "behind", "large", "one grey"))]
  encoded = [one for name in names for one in (cut(_WHOLE[name].removesuffix(b"garbage" * 9), part), _WHOLE[name])]
  found = used(model, *encoded)
  assert [name for name, item in zip(names, found[::2], strict=True) if not isinstance(item, Quarantined)] == []
  assert {item.reason for item in found[::2]} == {Reason.TRUNCATED}
  assert all(isinstance(item, Inferred) for item in found[1::2])


@pytest.mark.parametrize("name", ["plain", "grey", "CMYK", "progressive", "progressive grey", "restart markers"])
@pytest.mark.parametrize("side", [200, 7000])
def test_a_header_that_claims_more_pixels_than_there_are(name, side, model):
  (item,) = used(model, claiming(cut(_WHOLE[name], 0.1), side))
  assert item.reason == Reason.TRUNCATED


def test_a_progressive_jpeg_that_has_lost_its_last_scans(model):
  whole = _WHOLE["progressive"]
  half = whole[: len(whole) // 2].rstrip(b"\xff") + _END
  assert probe_image(half).reason == Reason.TRUNCATED
  assert isinstance(probe_image(whole), ImageInfo)


def test_a_gif_whose_pixels_end_early(model):
  """Its blocks are all there, and the code that ends the pixels comes too soon."""
  (item,) = used(model, _SHORT_GIF)
  assert item.reason == Reason.TRUNCATED


def test_a_whole_image_is_used_without_a_warning_of_the_decoder(tiny_trunk, capfd):
  (item,) = used(load_model(str(tiny_trunk)), _WHOLE["plain"])
  assert isinstance(item, Inferred)
  assert "JPEG" not in capfd.readouterr().err


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_a_jpeg_that_ends_anywhere_with_an_end_marker_is_no_crash(options):
  whole = picture(pixels=_PIXELS[:20, :24], quality=50, **options)
  start = whole.index(b"\xff\xda") + 12
  faults = [find_missing_pixels(whole[:end] + _END) for end in range(start, len(whole) - 40)]
  assert {fault.reason for fault in faults if fault} == {Reason.TRUNCATED}
