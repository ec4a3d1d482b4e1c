"""Files that are small on disk and cost much to decode; what decoders are given of them has the same pixels."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo

from beam_retrain.transforms.core.images.decode import decode_rgb
from beam_retrain.transforms.core.images.headers import Fault, ImageInfo, find_fault, probe_image
from beam_retrain.transforms.core.models.inference import infer_images, load_model
from beam_retrain.transforms.core.records.quarantine import Reason
from beam_retrain.transforms.core.records.schema import Image
from tests.helpers import encode

_PIXELS = np.random.default_rng(7).integers(0, 256, (20, 30, 3), dtype=np.uint8)
_SAVED = Pillow.fromarray(_PIXELS)


def saved(kind: str, picture: Pillow.Image = _SAVED, **options: object) -> bytes:
  file = io.BytesIO()
  picture.save(file, kind, **options)
  return file.getvalue()


def gif(*frames: tuple[int, int, int, int], comments: int = 0) -> bytes:
  """A GIF of one byte per code block and frame: left, top, width, height; the frames have no whole pixels."""
  control, comment = b"!\xf9\x04\0\0\0\0\0", b"!\xfe" + b"\1x" * comments + b"\0"
  images = [b"," + struct.pack("<HHHHB", *frame, 0) + b"\2\1\x2c\0" for frame in frames]
  return (
    b"GIF89a"
    + struct.pack("<HHBBB", 9, 9, 0x80, 0, 0)
    + b"\0\0\0\xff\xff\xff"
    + control
    + comment
    + b"".join(images)
    + b";"
  )


def animation(sides: list[int], **options: object) -> bytes:
  pictures = [Pillow.fromarray(np.roll(_PIXELS[:side, :side], n, 1)).quantize(16) for n, side in enumerate(sides)]
  return saved("GIF", pictures[0], save_all=True, append_images=pictures[1:], disposal=1, **options)


def decoded(encoded: bytes) -> np.ndarray:
  return decode_rgb(encoded).numpy()


def assert_cut(encoded: bytes, max_pixels: int, at_most: int) -> None:
  info = probe_image(encoded, max_pixels)
  assert isinstance(info, ImageInfo)
  assert 0 < len(info.cut) <= at_most
  np.testing.assert_array_equal(decoded(info.cut), decoded(encoded))


def test_of_a_gif_with_too_many_pixels_the_first_frame_is_decoded():
  many = animation([20] * 6)
  assert_cut(many, 500, len(many) // 3)
  assert probe_image(many) == ImageInfo("gif", 20, 20)


def test_of_a_gif_with_very_many_comments_the_first_frame_is_decoded():
  encoded = saved("GIF", _SAVED.quantize(16), comment=b"x")
  comment = b"!\xfe" + b"\1x" * 70_000 + b"\0"
  at = 13 + 3 * 16
  assert_cut(encoded[:at] + comment + encoded[at:], 600, 1_000)


@pytest.mark.parametrize(
  "frames",
  [[(0, 0, 9, 9), (0, 0, 12_000, 12_000)], [(0, 0, 9, 60_000), (0, 0, 60_000, 9)], [(50_000, 50_000, 1, 1)]],
)
def test_a_gif_whose_canvas_is_too_large_is_not_decoded(frames):
  assert probe_image(gif(*frames)).reason == Reason.TOO_LARGE


def test_a_gif_of_too_many_blocks_is_not_decoded():
  assert probe_image(gif((0, 0, 9, 9), comments=1_100_000)).reason == Reason.TOO_LARGE


def scans(jpeg: bytes, times: int, hidden: bytes = b"") -> bytes:
  last = jpeg.rindex(b"\xff\xda")
  return jpeg[:-2] + hidden + jpeg[last:-2] * times + b"\xff\xd9"


_PROGRESSIVE = saved("JPEG", Pillow.new("L", (2_000, 2_000)), progressive=True)
# Three layers in a baseline JPEG's frame, one in each scan.
_SEPARATE = (
  b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 17, 8, 2_000, 2_000, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
  b"\xff\xda\0\x08\1\1\0\0\x3f\0" + b"\0" * 4_000 + b"\xff\xd9"
)


@pytest.mark.parametrize("jpeg", [_PROGRESSIVE, _SEPARATE], ids=["progressive", "baseline"])
@pytest.mark.parametrize("hidden", [b"", b"\xff\x01"], ids=["", "hidden"])
def test_a_jpeg_of_very_many_scans_is_not_decoded(jpeg, hidden):
  assert isinstance(probe_image(scans(jpeg, 1)), ImageInfo)
  assert probe_image(scans(jpeg, 100, hidden)).reason == Reason.TOO_LARGE


def test_a_jpeg_of_very_many_segments_is_not_decoded():
  assert probe_image(scans(_PROGRESSIVE, 1, b"\xff\x01" * 70_000)).reason == Reason.TOO_LARGE
  whole = saved("JPEG")
  assert probe_image(whole[:20] + b"\xff\xfe\0\2" * 70_000 + whole[20:]).reason == Reason.TOO_LARGE


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 2}, {"quality": 30}])
@pytest.mark.parametrize("interval", [{"restart_marker_rows": 1}, {"restart_marker_blocks": 3}])
def test_a_jpeg_that_was_cut_at_a_restart_marker_and_closed_is_truncated(options, interval):
  whole = saved("JPEG", _SAVED.resize((61, 57)), **options, **interval)
  marks = [match.start() for match in re.finditer(rb"\xff[\xd0-\xd7]", whole)]
  assert isinstance(probe_image(whole), ImageInfo)
  for behind in (b"", whole):  # another JPEG, whose markers are not this one's
    assert isinstance(probe_image(whole + behind), ImageInfo)
    assert {probe_image(whole[:at] + b"\xff\xd9" + behind).reason for at in marks} == {Reason.TRUNCATED}


def chunk(kind: bytes, data: bytes) -> bytes:
  return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_long_texts_and_profiles_of_a_png_are_no_damage():
  text = PngInfo()
  text.add_text("Comment", "x" * 2_000_000, zip=True)
  profile = np.random.default_rng(1).integers(0, 3, 3_000_000, dtype=np.uint8).tobytes()
  for encoded in (saved("PNG", pnginfo=text), saved("PNG", icc_profile=profile)):
    info = probe_image(encoded)
    assert isinstance(info, ImageInfo)
    assert find_fault(encoded) is None
    np.testing.assert_array_equal(decoded(info.cut or encoded), _PIXELS)


@pytest.mark.parametrize("mode", ["RGB", "P", "1", "I;16", "LA"])
def test_a_png_without_what_lies_beside_its_pixels_has_the_same_ones(mode):
  pictures = {"I;16": Pillow.fromarray(_PIXELS[..., 0].astype(np.uint16) * 257)}
  picture = pictures.get(mode) or _SAVED.convert(mode)
  encoded = saved("PNG", picture, **({"transparency": 3} if mode == "P" else {}))
  assert_cut(encoded[:33] + chunk(b"teXt", b"x" * 70_000) + encoded[33:], 600, len(encoded))


def test_a_png_whose_data_go_on_behind_its_pixels_is_not_decoded():
  deflate = zlib.compressobj(9)
  first, more = (deflate.compress(bytes(1 << 24)) + deflate.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
  data = first + more * 200
  head = saved("PNG")[:33]
  bomb = head + chunk(b"IDAT", data) + chunk(b"IEND", b"")
  assert len(data) > 1 << 21
  assert probe_image(bomb).reason == Reason.TOO_LARGE
  large = np.random.default_rng(1).integers(0, 256, (1_000, 1_000, 3), dtype=np.uint8)
  assert probe_image(encode(large)) == ImageInfo("png", 1_000, 1_000)


def test_of_a_webp_with_very_many_frames_the_first_one_is_decoded():
  frames = [Pillow.fromarray(np.full((2, 2), shade, np.uint8)).convert("RGB") for shade in (9, 200)]
  encoded = saved("WEBP", frames[0], save_all=True, append_images=frames[1:], lossless=True)
  last = encoded.rindex(b"ANMF")
  encoded += encoded[last:] * 5_000
  encoded = encoded[:4] + struct.pack("<I", len(encoded) - 8) + encoded[8:]
  assert_cut(encoded, 8, 200)
  assert probe_image(encoded, 7).reason == Reason.TOO_LARGE  # two canvases in memory


def test_what_is_cut_for_the_decoder_is_whole_for_all_others(tiny_trunk):
  whole = Image("a.gif", "", animation([20] * 6))
  model = load_model(str(tiny_trunk))
  (item,) = infer_images([whole], model, max_pixels=500)
  assert (item.image.encoded, item.image.sha256) == (whole.encoded, whole.sha256)
  (alone,) = infer_images([whole], model)
  np.testing.assert_array_equal(item.outputs["bottleneck"], alone.outputs["bottleneck"])


_EACH = {
  "baseline": saved("JPEG", exif=Pillow.Exif()),
  "progressive": saved("JPEG", progressive=True),
  "png": saved("PNG", icc_profile=b"x" * 99),
  "palette": encode(_PIXELS, "PNG", "P"),
  "gif": animation([20, 12, 20]),
  "bmp": encode(_PIXELS, "BMP"),
  "grey bmp": encode(_PIXELS, "BMP", "L"),
  "webp": saved("WEBP"),
  "lossless": saved("WEBP", lossless=True),
  "animated": saved("WEBP", save_all=True, append_images=[_SAVED.rotate(9)]),
  "avif": b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif",
}


@pytest.mark.parametrize("name", _EACH)
def test_any_bytes_give_a_size_or_a_fault(name):
  whole, rng = _EACH[name], np.random.default_rng(3)
  for size in range(min(len(whole), 300)):
    assert isinstance(probe_image(whole[:size]), Fault | ImageInfo)
  for _ in range(1_500):
    changed = bytearray(whole)
    for at in rng.integers(2, min(len(whole), 200), rng.integers(1, 6)):
      changed[at] = rng.choice([0, 1, 2, 127, 128, 255, rng.integers(256)])
    assert isinstance(probe_image(bytes(changed), 5_000), Fault | ImageInfo)


@pytest.mark.parametrize("progressive", [False, True])
def test_no_decoder_is_given_a_jpeg_that_ends_before_its_pixels(progressive):
  whole = saved("JPEG", progressive=progressive)
  scan = whole.index(b"\xff\xda")
  for end in range(3, scan + 8):
    assert probe_image(whole[:end]).reason == Reason.TRUNCATED, end
  assert isinstance(probe_image(whole), ImageInfo)
