"""What a distorted variant of a training image looks like: a pure function of the image's key, the copy and a seed.

The ranges and the order of operations are those of `add_input_distortions` in `retrain.py`: the image is resized to a
square larger than the trunk's by a fixed margin (`random_crop`) times a random factor (`random_scale`), a square of the
trunk's size is cropped from it at random, half of them are mirrored, and all grey levels are multiplied by a random
factor, without clipping. `retrain.py` drew anew for every image of every step; here there are `copies` of each image,
drawn once. Whole numbers throughout but for the brightness: a variant is the same on every machine. No TensorFlow.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import TRAINING
from beam_retrain.transforms.core.records.shards import ShardReport

MAX_COPIES = 100
MAX_ENLARGEMENT = 8
"""Largest side, in sides of the trunk's input, to which a image may be resized before the crop: bounds the memory."""

DISTORTED = "distorted"
"""In a report's `extra`: {"images": n, "validation": m}, images that were distorted, and those left out since they
are for validation. In `stats.json`: see `count_distorted`."""

_SALT = b"beam-retrain-distortion-1:"
_DRAWS = 1 << 32


class Variant(NamedTuple):
  """One variant of a image, for a trunk of S x S pixels.

  Attributes:
    side_px: the image is resized to so many pixels square, at least S.
    top_px: row of it at which the crop begins, 0..side_px - S.
    left_px: column, likewise.
    is_mirrored: whether left and right change places after the crop.
    brightness: all grey levels are multiplied by it, 0..2.
  """

  side_px: int
  top_px: int
  left_px: int
  is_mirrored: bool
  brightness: float


@dataclasses.dataclass(frozen=True)
class Distortions:
  """What is done to training images, named as the flags of `retrain.py`.

  Attributes:
    flip_left_right: mirror half of them.
    random_crop: percent of the trunk's side, 0 or more: the margin within which the crop lies at random.
    random_scale: percent, 0 or more: by how much larger, at most, they are made at random.
    random_brightness: percent, 0..100: by how much brighter or darker, at most, they are made at random.
    copies: variants of each image, 1..100.
    seed: another one gives other variants.

  Raises:
    ValueError: a value is out of its range, or nothing is distorted.
  """

  flip_left_right: bool = False
  random_crop: int = 0
  random_scale: int = 0
  random_brightness: int = 0
  copies: int = 4
  seed: int = 0

  def __post_init__(self) -> None:
    if not (self.flip_left_right or self.random_crop or self.random_scale or self.random_brightness):
      raise ValueError("nothing is distorted: flip, crop, scale and brightness are all off")
    for name in ("random_crop", "random_scale"):
      if (percent := getattr(self, name)) < 0:
        raise ValueError(f"--{name} {percent} would leave less of a image than the trunk takes: give 0 or more")
    if not 0 <= self.random_brightness <= 100:
      raise ValueError(f"--random_brightness {self.random_brightness} is not in 0..100: above 100 light is negative")
    if not 1 <= self.copies <= MAX_COPIES:
      raise ValueError(f"--distortion_copies {self.copies} is not in 1..{MAX_COPIES}")
    if self.enlargement > MAX_ENLARGEMENT:
      raise ValueError(
        f"--random_crop {self.random_crop} and --random_scale {self.random_scale} make a image up to"
        f" {self.enlargement:.3g} times as wide as the trunk's input, more than the {MAX_ENLARGEMENT} allowed"
      )

  @property
  def enlargement(self) -> float:
    """Largest side of a resized image, in sides of the trunk's input."""
    return (100 + self.random_crop) * (100 + self.random_scale) / 10_000

  @classmethod
  def from_settings(cls, settings: Mapping[str, Any]) -> Distortions | None:
    """Reads the `settings` of an `info.json` of bottlenecks; None: nothing was distorted."""
    found = settings.get("distortions")
    return cls(**found) if found else None

  def to_settings(self) -> dict[str, Any]:
    """Returns JSON values."""
    return dataclasses.asdict(self)

  def variants(self, key: str, input_px: int) -> list[Variant]:
    """Returns the variants of a image, copy 1 first, for a trunk of `input_px` x `input_px`."""
    return [self._variant(key, copy, input_px) for copy in range(1, self.copies + 1)]

  def _variant(self, key: str, copy: int, input_px: int) -> Variant:
    digest = hashlib.sha256(_SALT + f"{self.seed}:{copy}:{key}".encode()).digest()
    # 0..2**32-1 each
    scale, top, left, mirror, bright = (int(draw) for draw in np.frombuffer(digest, ">u4")[:5])
    # Rounded down, as there: input_px * (1 + crop/100) * (1 + scale/100 * draw).
    side = input_px * (100 + self.random_crop) * (100 * _DRAWS + self.random_scale * scale) // (10_000 * _DRAWS)
    room = side - input_px + 1
    return Variant(
      side_px=side,
      top_px=top * room // _DRAWS,
      left_px=left * room // _DRAWS,
      is_mirrored=self.flip_left_right and mirror < _DRAWS // 2,
      brightness=1 + (2 * bright / _DRAWS - 1) * self.random_brightness / 100,
    )


def variant_key(key: str, copy: int) -> str:
  """Returns the key of a variant's record; `copy` counts from 1."""
  return f"{key}#{copy}"


def key_of_original(key: str) -> str:
  """Inverse of `variant_key`: the image's key."""
  return key.rpartition("#")[0]


def count_distorted(
  distortions: Distortions, reports: Iterable[ShardReport], distorted: Iterable[ShardReport]
) -> dict[str, int]:
  """Checks that every training image was distorted, or is for validation, or is bad.

  Args:
    distortions: what was done.
    reports: of the images themselves, all splits; a bad image counts there.
    distorted: of the variants, one for each training shard.

  Returns:
    What `stats.json` says: `copies` of each of `images` make `records`; `left_out`: images with a bottleneck but
    without variants, since the trunk refused one of them.

  Raises:
    InputError: the ledger does not close; says where.
  """
  of_images = {report.file: report for report in reports if report.split == TRAINING}
  of_variants = {report.file: report for report in distorted}
  if of_images.keys() != of_variants.keys():
    odd = min(of_images.keys() ^ of_variants.keys())
    raise InputError(f"the ledger does not close: {odd} is not in both records/ and distorted/: run the command again.")
  images = left_out = 0
  for name, report in of_variants.items():
    found = report.extra[DISTORTED]
    dealt_with = found["pictures"] + found["validation"] + len(report.quarantined)
    if dealt_with != of_images[name].inputs or report.outputs != found["pictures"] * distortions.copies:
      raise InputError(
        f"the ledger does not close: of {of_images[name].inputs} images of {name}, {found['pictures']} were"
        f" distorted, into {report.outputs} records, {found['validation']} are for validation and"
        f" {len(report.quarantined)} are bad; please report this as a bug."
      )
    images += found["pictures"]
    bad = {entry.key for entry in of_images[name].quarantined}
    left_out += sum(entry.key not in bad for entry in report.quarantined)
  return {
    "copies": distortions.copies,
    "pictures": images,
    "records": images * distortions.copies,
    "left_out": left_out,
  }
