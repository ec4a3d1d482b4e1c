"""Writes WebP files with Pillow, and changes their chunks (RFC 9649)."""

from __future__ import annotations

import io

from PIL import Image as Pillow

from tools.zoo.formats.made import Made, by_pillow, picture


def encode(mode: str = "RGB", *, lossless: bool = False, **options: object) -> Made:
  """Encodes the picture; without loss its pixels are known."""
  made = by_pillow("WEBP", mode, lossless=lossless, **options)
  return made._replace(truth=picture()) if lossless and mode == "RGB" else made


def with_alpha(lossless: bool) -> Made:
  """Encodes the picture, translucent from left to right, with its colours kept where nothing shows."""
  pixels = picture()
  image = Pillow.fromarray(pixels).convert("RGBA")
  image.putalpha(Pillow.linear_gradient("L").rotate(90).resize(image.size))
  file = io.BytesIO()
  image.save(file, "WEBP", lossless=lossless, exact=True, quality=90)
  return Made(file.getvalue(), pixels if lossless else None)


def animated(lossless: bool = True, **options: object) -> Made:
  """Encodes the picture and, as further frames, its mirror image and a smaller change."""
  image = Pillow.fromarray(picture())
  changed = image.copy()
  changed.paste((0, 255, 0), (8, 8, 12, 12))
  file = io.BytesIO()
  more = [image.transpose(Pillow.Transpose.FLIP_LEFT_RIGHT), changed]
  image.save(file, "WEBP", save_all=True, append_images=more, lossless=lossless, duration=100, **options)
  return Made(file.getvalue(), picture() if lossless else None)


def with_chunk(made: Made, kind: bytes, data: bytes) -> Made:
  """Appends a chunk that no reader knows."""
  added = kind + len(data).to_bytes(4, "little") + data + bytes(len(data) % 2)
  size = int.from_bytes(made.data[4:8], "little") + len(added)
  return Made(made.data[:4] + size.to_bytes(4, "little") + made.data[8:] + added, made.truth)
