"""Says what an image is and whether it can be used.

Time and memory are bounded whatever the file claims; extensions are not trusted. The parsers of `formats` look at every
image; Pillow decodes those that TensorFlow refused, and JPEGs that look as if pixels were missing.
"""

from __future__ import annotations

import functools
import io
import sys
import warnings
from collections.abc import Callable

from PIL import Image as Pillow
from PIL import ImageFile, UnidentifiedImageError

from beam_retrain.transforms.core.images.formats import bmp, gif, jpeg, others, png, webp
from beam_retrain.transforms.core.images.formats.info import Fault, ImageInfo, check_size
from beam_retrain.transforms.core.records.quarantine import MAX_PIXELS, Reason
from beam_retrain.transforms.core.system.machine import is_out_of_memory

__all__ = ["FORMATS", "MAX_PIXELS", "Fault", "ImageInfo", "check_size", "probe_image"]

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
"""What TensorFlow decodes, as Pillow calls them."""

_PARSERS: dict[bytes, Callable[[bytes, int], ImageInfo | Fault]] = {
  jpeg.START: jpeg.probe,
  png.START: png.probe,
  gif.START: gif.probe,
  bmp.START: bmp.probe,
}
_FILLERS = (b"\x00" * 64, b"\x55" * 64)  # as data of further blocks, they give two different images


def probe_image(encoded: bytes, max_pixels: int = MAX_PIXELS) -> ImageInfo | Fault:
  """Reads an image's header; `max_pixels` limits height x width.

  Decoders are given `cut` of the result where it is not empty, and cost about 2 s and 12 bytes per pixel then.
  """
  if not encoded:
    return Fault(Reason.EMPTY, "the file has 0 bytes")
  if plain := probe_plain(encoded):
    return check_size(plain.height, plain.width, max_pixels) or (
      jpeg.check_data(plain, encoded) if plain.format == "jpeg" else plain
    )
  for start, probe in _PARSERS.items():
    if encoded.startswith(start):
      info = probe(encoded, max_pixels)
      if isinstance(info, ImageInfo) and info.format == "jpeg" and jpeg.lacks_scans(encoded):
        return find_missing_pixels(encoded) or info
      return info
  if encoded.startswith(webp.START) and encoded[8:12] == webp.NAME:
    return webp.probe(encoded, max_pixels)
  return others.name(encoded)


def probe_plain(encoded: bytes) -> ImageInfo | None:
  """Reads the header of a plain grey or RGB image, else None."""
  if jpeg.is_plain(encoded):
    return jpeg.probe_plain(encoded)
  return png.probe_plain(encoded) if png.is_plain(encoded) else None


def find_damage(encoded: bytes) -> Fault | None:
  """Decodes a probed image with Pillow; returns what is wrong with it."""
  if encoded.startswith(png.START) and png.has_wrong_checksum(encoded):  # Pillow passes over some
    return Fault(Reason.TRUNCATED, "the file is damaged: a checksum is another")
  try:
    _decoded(encoded, as_bytes=False)
  except UnidentifiedImageError:  # whose text has a number that changes
    return Fault(Reason.TRUNCATED, "the file ends too early or is damaged: its header")
  except Pillow.DecompressionBombError as error:
    return Fault(Reason.TOO_LARGE, str(error))
  except Exception as error:
    if is_out_of_memory(error):
      raise
    return Fault(Reason.TRUNCATED, f"the file ends too early or is damaged: {error}")
  return None


def find_missing_pixels(encoded: bytes) -> Fault | None:
  """Returns the fault of a JPEG whose data end too early.

  Where they end with a marker, as if whole, every decoder built on libjpeg fills the rest with grey and only warns. So
  the image is decoded again with something else behind the data: that changes no pixel of a whole image. Of another
  one it may make an error.
  """
  end = jpeg.scans_end(encoded)
  if not end or find_damage(encoded):  # other damage is for the decoder to tell
    return None
  seen = {_decoded_if_whole(encoded[:end] + filler + encoded[end:]) for filler in (b"", *_FILLERS)}
  return Fault(Reason.TRUNCATED, "the data end before the last pixel") if len(seen) > 1 else None


@functools.cache
def jpegs_like_missing_pixels() -> list[bytes]:
  """Returns whole JPEGs, grey and CMYK, that look as missing pixels do.

  Decoding one without data would print libjpeg's warning.
  """
  jpegs = []
  for mode, middle in (("L", 128), ("CMYK", (127,) * 4)):  # Pillow inverts CMYK
    file = io.BytesIO()
    Pillow.new(mode, (8, 8), middle).save(file, "JPEG", quality=100)
    jpegs.append(file.getvalue())
  return jpegs


def _decoded_if_whole(encoded: bytes) -> bytes | None:
  try:
    return _decoded(encoded)
  except Exception as error:
    if is_out_of_memory(error):
      raise
    return None


def _decoded(encoded: bytes, as_bytes: bool = True) -> bytes:
  if encoded.startswith(png.START):  # Pillow refuses long text and profiles, which are no damage
    encoded = png.only_pixels(encoded)
  with warnings.catch_warnings(action="ignore"), Pillow.open(io.BytesIO(encoded), formats=FORMATS) as image:
    image.load()
    return image.tobytes() if as_bytes else b""


def find_fault(encoded: bytes) -> Fault | None:
  """Probes and decodes an image of any size; returns its fault."""
  probed = probe_image(encoded, sys.maxsize)
  return probed if isinstance(probed, Fault) else find_damage(probed.cut or encoded)


def explain(encoded: bytes) -> Fault:
  """Returns why TensorFlow could not decode a probed image."""
  unsupported = Fault(Reason.UNSUPPORTED, "TensorFlow cannot decode this variant: save it as PNG or JPEG")
  return find_damage(encoded) or unsupported


assert not ImageFile.LOAD_TRUNCATED_IMAGES, "a truncated image must not pass for a whole one"
