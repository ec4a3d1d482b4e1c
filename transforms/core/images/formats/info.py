"""What a parser says of an image."""

from __future__ import annotations

from typing import NamedTuple

from beam_retrain.transforms.core.records.quarantine import Reason

ALPHAS = ("white", "black")
"""What `convert` shows through transparent pixels."""


class ImageInfo(NamedTuple):
  """Format (`jpeg`, `png`, `bmp`, `gif`, `webp`), height and width in pixels.

  `cut` is what decoders are given instead of the file's bytes, empty where these will do: the same pixels, without what
  costs memory or time besides, such as an animation's later frames.
  """

  format: str
  height: int
  width: int
  cut: bytes = b""


class Fault(NamedTuple):
  """Why an image cannot be used."""

  reason: Reason
  detail: str


def check_size(height: int, width: int, max_pixels: int) -> Fault | None:
  if height * width <= max_pixels:
    return None
  return Fault(Reason.TOO_LARGE, f"{width} x {height} pixels, more than the {max_pixels} allowed")


def damaged(what: str) -> Fault:
  return Fault(Reason.TRUNCATED, f"the header is damaged: {what}")
