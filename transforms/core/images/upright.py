"""Reads images of any format as they are meant to be seen.

That is upright by their EXIF orientation, in sRGB by their ICC profile, opaque, and with 8 bits: of 16-bit grey the
upper 8, as the trunk sees it. Of several pages or frames, the first.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import sys
import warnings

import numpy as np
from PIL import Image as Pillow
from PIL import ImageCms, UnidentifiedImageError

from beam_retrain.transforms.core.images.exif import ORIENTATION, UPRIGHT, orientation_of, png_profile
from beam_retrain.transforms.core.images.formats import bmp, others, png
from beam_retrain.transforms.core.images.headers import Fault, ImageInfo, check_size, find_missing_pixels, probe_image
from beam_retrain.transforms.core.records.quarantine import MAX_PIXELS, Reason
from beam_retrain.transforms.core.system.extras import install_command
from beam_retrain.transforms.core.system.machine import is_out_of_memory

# EPS and WMF are programs, which Pillow hands to others; it knows of the rest only that they are there.
_NOT_READ = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})
_PILLOWS = (Reason.NOT_AN_IMAGE, Reason.UNSUPPORTED)  # it may read what they stand for
_FIRST = ("JPEG", "PNG", "TIFF", "WEBP")
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF 6.0, section 15
_TURNED = {
  2: Pillow.Transpose.FLIP_LEFT_RIGHT,
  3: Pillow.Transpose.ROTATE_180,
  4: Pillow.Transpose.FLIP_TOP_BOTTOM,
  5: Pillow.Transpose.TRANSPOSE,
  6: Pillow.Transpose.ROTATE_270,
  7: Pillow.Transpose.TRANSVERSE,
  8: Pillow.Transpose.ROTATE_90,
}
_SAME_COLOUR = 2  # levels of 255: what rounding makes of sRGB under another name
_WITHOUT_RANGE = "grey values of 32 bits, whose range is not known: save it with 8 or 16 bits"


def read_upright(encoded: bytes, alpha: str = "white", max_pixels: int = MAX_PIXELS) -> np.ndarray | Fault:
  """Decodes an image: uint8 [height, width] if grey, else [height, width, 3].

  Args:
    alpha: one of `ALPHAS`.
    max_pixels: largest height x width that is decoded.
  """
  probed = probe_image(encoded, max_pixels)
  if isinstance(probed, Fault) and (probed.reason not in _PILLOWS or _misleads_pillow(encoded, probed)):
    return probed
  given = probed.cut if isinstance(probed, ImageInfo) else b""
  if encoded.startswith(png.START):  # Pillow refuses long text and profiles
    given = png.only_pixels(encoded)
  try:
    with (
      warnings.catch_warnings(action="ignore"),
      Pillow.open(io.BytesIO(given or encoded), formats=_formats()) as image,
    ):
      if image.format == "PNG":
        image.info["icc_profile"] = png_profile(encoded)
      if fault := _check_size(image, max_pixels):
        return fault
      image.load()
      fault = check_size(image.height, image.width, max_pixels) or _missing_pixels(image, encoded)
      # Of the formats that every command decodes, the orientation is what these count.
      orientation = _orientation(image) if isinstance(probed, Fault) else orientation_of(encoded)
      return fault or _as_seen(image, orientation, alpha)
  except Pillow.DecompressionBombError as error:
    return Fault(Reason.TOO_LARGE, str(error))
  except UnidentifiedImageError:
    return _unidentified(probed)
  except Exception as error:  # Pillow raises many types for damaged images
    if is_out_of_memory(error):
      raise
    return Fault(Reason.TRUNCATED, f"the file ends too early or is damaged: {error}")


def _misleads_pillow(encoded: bytes, fault: Fault) -> bool:
  """Whether Pillow would show something else.

  A raw file's preview, a PNG of an iOS app with other colours, a text as a damaged image.
  """
  is_text = encoded.startswith(bmp.START) and bmp.is_text(encoded)
  return is_text or others.is_raw(encoded) or (encoded.startswith(png.START) and fault.reason == Reason.UNSUPPORTED)


def reader_versions() -> dict[str, str]:
  """Returns the versions of Pillow and of its extra reader for HEIC."""
  _formats()
  return {name: sys.modules[name].__version__ for name in ("PIL", "pillow_heif") if sys.modules.get(name)}


@functools.cache
def _formats() -> tuple[str, ...]:
  with contextlib.suppress(ImportError):
    importlib.import_module("pillow_heif").register_heif_opener()  # an extra
  Pillow.init()
  return (*_FIRST, *sorted(Pillow.OPEN.keys() - {*_FIRST, *_NOT_READ}))


def _unidentified(probed: ImageInfo | Fault) -> Fault:
  """Returns the fault of what Pillow does not take for an image."""
  if isinstance(probed, ImageInfo):
    return Fault(Reason.TRUNCATED, "the header is damaged")
  what, _, remedy = probed.detail.partition(":")
  if what == "a HEIC" and "pillow_heif" not in reader_versions():
    return Fault(probed.reason, f"{what}: {install_command('heic')} and run the command again")
  if "beam-retrain convert" in remedy:  # what is running
    return Fault(probed.reason, f"{what} that is damaged, or of a variant that Pillow does not read: save it as PNG")
  return probed


def _check_size(image: Pillow.Image, max_pixels: int) -> Fault | None:
  tags = getattr(image, "tag_v2", {})
  tile = (tags.get(_TILE_LENGTH, 1), tags.get(_TILE_WIDTH, 1))
  return check_size(image.height, image.width, max_pixels) or check_size(*tile, max_pixels)


def _missing_pixels(image: Pillow.Image, encoded: bytes) -> Fault | None:
  """Returns the fault of a JPEG whose data end too early."""
  if image.format not in ("JPEG", "MPO"):
    return None
  last = image.crop((image.width - 1, image.height - 1, image.width, image.height)).tobytes()
  return find_missing_pixels(encoded) if set(last) <= {127, 128} else None


def _as_seen(image: Pillow.Image, orientation: int, alpha: str) -> np.ndarray | Fault:
  profile = image.info.get("icc_profile")
  if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
    return Fault(Reason.UNSUPPORTED, _WITHOUT_RANGE)
  if image.mode.startswith("I"):
    image = _upper_bits(image)
  opacity = None
  if image.has_transparency_data:
    image = image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA")
    opacity = image.getchannel("A")
    image = image.convert("L" if image.mode == "LA" else "RGB")
  image = _to_srgb(image, profile)
  if opacity:
    opaque = Pillow.new(image.mode, image.size, alpha)
    opaque.paste(image, mask=opacity)
    image = opaque
  return np.asarray(image.transpose(_TURNED[orientation]) if orientation in _TURNED else image)


def _orientation(image: Pillow.Image) -> int:
  """Returns the orientation; 1 if Pillow has turned it, as a TIFF."""
  try:
    return int(image.getexif().get(ORIENTATION, UPRIGHT))
  except Exception as error:  # damaged: viewers ignore it
    if is_out_of_memory(error):
      raise
    return UPRIGHT


def _upper_bits(image: Pillow.Image) -> Pillow.Image:
  """16-bit grey -> `L`, or `LA` with a transparent level."""
  levels = np.asarray(image)
  grey = Pillow.fromarray((levels >> 8).astype(np.uint8))
  transparent = image.info.get("transparency")
  if not isinstance(transparent, int):
    return grey
  return Pillow.merge("LA", (grey, Pillow.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8))))


def _to_srgb(image: Pillow.Image, profile: bytes | None) -> Pillow.Image:
  """Returns an image in `L` or `RGB`."""
  if image.mode not in ("L", "RGB", "CMYK", "LAB"):
    image = image.convert("L" if image.mode == "1" else "RGB")
  transform = _transform(profile or b"", image.mode)
  if transform is None:
    return image.convert("L" if image.mode == "L" else "RGB")
  in_srgb = ImageCms.applyTransform(image, transform)
  assert in_srgb is not None  # as it is if done in place
  return in_srgb.getchannel("G") if image.mode == "L" else in_srgb


@functools.lru_cache(maxsize=16)  # the images of one camera have one profile
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
  """Returns the transform of a profile's colours to sRGB, if needed.

  It is not if the profile is damaged, or of other colours than the image.
  """
  if not profile and mode != "LAB":
    return None
  try:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if mode != "LAB" else ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode != "RGB":
      return transform
    colours = Pillow.fromarray(np.mgrid[0:256:17, 0:256:17, 0:256:17].T.reshape(16, 256, 3).astype(np.uint8))
    change = np.asarray(ImageCms.applyTransform(colours, transform), np.int16) - np.asarray(colours, np.int16)
  except (ImageCms.PyCMSError, OSError):
    return None
  return transform if np.abs(change).max() > _SAME_COLOUR else None
