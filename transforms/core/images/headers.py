"""Looking at a image's bytes before they are decoded: what it is, how large, and whether it can be used.

Only the header is read, by Pillow where it is not the plainest, so this is cheap and bounded whatever the file claims.
The extension of a file is not trusted.
"""

from __future__ import annotations

import io
import warnings
from typing import NamedTuple

from PIL import Image as Pillow
from PIL import ImageFile, UnidentifiedImageError

from beam_retrain.transforms.core.images.plain_headers import Looked, look_at_plain
from beam_retrain.transforms.core.records.quarantine import MAX_PIXELS, Reason
from beam_retrain.transforms.core.system.memory import is_out_of_memory

FORMATS = ("JPEG", "PNG", "BMP", "GIF")

_PILLOWS_BOUND = 1 << 26  # pixels; well below the number above which it refuses a image, whatever ours is


class Fault(NamedTuple):
  """A image that cannot be used, and why."""

  reason: Reason
  detail: str


def look(encoded: bytes, max_pixels: int = MAX_PIXELS) -> Looked | Fault:
  """Reads the header of a image.

  Args:
    encoded: the file's bytes.
    max_pixels: largest height x width allowed.
  """
  if not encoded:
    return Fault(Reason.EMPTY, "the file has 0 bytes")
  plain = look_at_plain(encoded)
  if plain and plain.height * plain.width <= min(max_pixels, _PILLOWS_BOUND):
    return plain
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # Pillow warns of large images; the bound below decides
      image = Pillow.open(io.BytesIO(encoded), formats=FORMATS)
  except Pillow.DecompressionBombError as error:
    return Fault(Reason.TOO_LARGE, str(error))
  except UnidentifiedImageError:
    return Fault(Reason.NOT_AN_IMAGE, "neither JPEG, PNG, BMP nor GIF")
  except Exception as error:  # Pillow's parsers raise many kinds on damaged headers
    if is_out_of_memory(error):
      raise
    return Fault(Reason.TRUNCATED, f"the header is damaged: {error}")
  with image:
    width, height = image.size
    if too_large := check_size(height, width, max_pixels):
      return too_large
    if image.format == "BMP" and image.mode in ("P", "1"):
      # TensorFlow takes the palette's indices for grey values; the exported model would be wrong without a word.
      return Fault(Reason.UNSUPPORTED, "a BMP with a colour palette: save it as PNG")
    return Looked(str(image.format).lower(), height, width)


def check_size(height: int, width: int, max_pixels: int) -> Fault | None:
  if height * width <= max_pixels:
    return None
  return Fault(Reason.TOO_LARGE, f"{width} x {height} pixels, more than the {max_pixels} allowed")


def find_damage(encoded: bytes) -> Fault | None:
  """Says what is wrong with the pixels of a image that passed `look`: decodes it whole with Pillow."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      with Pillow.open(io.BytesIO(encoded), formats=FORMATS) as image:
        image.load()
  except Exception as error:
    if is_out_of_memory(error):
      raise
    return Fault(Reason.TRUNCATED, f"the file ends too early or is damaged: {error}")
  return None


def explain(encoded: bytes) -> Fault:
  """Says why a image that passed `look` could not be decoded by TensorFlow."""
  unsupported = Fault(Reason.UNSUPPORTED, "TensorFlow cannot decode this variant: save it as PNG or JPEG")
  return find_damage(encoded) or unsupported


assert not ImageFile.LOAD_TRUNCATED_IMAGES, "a truncated image must not pass for a whole one"
