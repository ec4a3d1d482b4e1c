"""Thumbnails, small enough for hundreds in one report."""

from __future__ import annotations

import base64
import io
import warnings

from PIL import Image as Pillow

from beam_retrain.transforms.core.images.headers import FORMATS, MAX_PIXELS, Fault, probe_image

SIDE_PX = 72
_JPEG_FROM_PX = 40 * 40
"""Below this, a lossless PNG is not much larger than a JPEG."""


def thumbnail(encoded: bytes, max_pixels: int = MAX_PIXELS) -> str | None:
  """Returns a `data:` URI, at most 72 px square; None if damaged."""
  if isinstance(probe_image(encoded, max_pixels), Fault):
    return None
  try:
    with warnings.catch_warnings(action="ignore"), Pillow.open(io.BytesIO(encoded), formats=FORMATS) as image:
      image.draft("RGB", (SIDE_PX, SIDE_PX))  # a large JPEG is decoded at a fraction of its size
      small = image.convert("L" if image.mode in ("1", "L") else "RGB")
    small.thumbnail((SIDE_PX, SIDE_PX))
    file = io.BytesIO()
    if small.width * small.height < _JPEG_FROM_PX:
      kind = "png"
      small.save(file, "PNG", optimize=True)
    else:
      kind = "jpeg"
      small.save(file, "JPEG", quality=80)
  except Exception:
    return None  # damaged: the report shows a placeholder
  return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
