"""Random distortions of training images: a function of key, copy and seed.

Ranges and order of operations are those of `add_input_distortions` in `retrain.py`: resize to a square larger than the
trunk's input by a fixed margin (`random_crop`) times a random factor (`random_scale`), crop the trunk's square at
random, mirror half of them, and multiply all values by a random factor, without clipping. `retrain.py` drew anew in
every step; here each image has `copies` variants, drawn once. All but the brightness is integer arithmetic, so that
variants are the same on every machine. No TensorFlow.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections.abc import Iterable
from typing import NamedTuple

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import TRAINING
from beam_retrain.transforms.core.records.shards import ShardReport

MAX_COPIES = 100
MAX_ENLARGEMENT = 8
"""Largest side before the crop, in sides of the trunk's input: limits the memory."""

DISTORTED = "distorted"
"""In a report's `extra`: {"pictures": n, "validation": m}, images distorted, and images left out for validation. In
`stats.json`: see `count_distorted`."""

_SALT = b"beam-retrain-distortion-1:"
_DRAWS = 1 << 32


class Variant(NamedTuple):
  """A distorted variant for a trunk of S x S pixels."""

  side_px: int  # height and width to resize to, at least S
  top_px: int  # where the crop begins, 0..side_px - S, as `left_px`
  left_px: int
  is_mirrored: bool
  brightness: float  # a factor, 0..2


@dataclasses.dataclass(frozen=True)
class Distortions:
  """Distortions of training images, named as the flags of `retrain.py`.

  Raises ValueError if a value is out of range, or nothing is distorted.
  """

  flip_left_right: bool = False  # mirrors half of them
  random_crop: int = 0  # margin for the crop's position, percent of the trunk's side, at least 0
  random_scale: int = 0  # largest random enlargement, percent, at least 0
  random_brightness: int = 0  # largest random change of brightness, percent, 0..100
  copies: int = 4  # of each image, 1..100
  seed: int = 0

  def __post_init__(self) -> None:
    if not (self.flip_left_right or self.random_crop or self.random_scale or self.random_brightness):
      raise ValueError("nothing is distorted: flip, crop, scale and brightness are all off")
    for name in ("random_crop", "random_scale"):
      if (percent := getattr(self, name)) < 0:
        raise ValueError(f"--{name} {percent} would make the image smaller than the trunk's input: give 0 or more")
    if not 0 <= self.random_brightness <= 100:
      raise ValueError(f"--random_brightness {self.random_brightness} is not in 0..100: above 100 values are negative")
    if not 1 <= self.copies <= MAX_COPIES:
      raise ValueError(f"--distortion_copies {self.copies} is not in 1..{MAX_COPIES}")
    if self.enlargement > MAX_ENLARGEMENT:
      raise ValueError(
        f"--random_crop {self.random_crop} and --random_scale {self.random_scale} enlarge images to"
        f" {self.enlargement:.3g} times as wide as the trunk's input, more than the {MAX_ENLARGEMENT} allowed"
      )

  @property
  def enlargement(self) -> float:
    """Largest side before the crop, in sides of the trunk's input."""
    return (100 + self.random_crop) * (100 + self.random_scale) / 10_000

  def to_settings(self) -> dict[str, int]:
    return dataclasses.asdict(self)

  def variants(self, key: str, input_px: int) -> list[Variant]:
    """Returns the variants of an image, copy 1 first."""
    return [self._variant(key, copy, input_px) for copy in range(1, self.copies + 1)]

  def _variant(self, key: str, copy: int, input_px: int) -> Variant:
    digest = hashlib.sha256(_SALT + f"{self.seed}:{copy}:{key}".encode()).digest()
    # 0..2**32-1 each
    scale, top, left, mirror, bright = struct.unpack_from(">5I", digest)
    # Rounded down, as in retrain.py: input_px * (1 + crop/100) * (1 + scale/100 * draw).
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
  """Counts variants; raises InputError if an image is unaccounted for.

  `reports` are of the images, all splits; `distorted` of the variants, one per training shard. In the counts, `copies`
  of each of `pictures` images make `records`; `left_out` images have a bottleneck but no variants, since the trunk
  failed on one.
  """
  image_reports = {report.file: report for report in reports if report.split == TRAINING}
  variant_reports = {report.file: report for report in distorted}
  if image_reports.keys() != variant_reports.keys():
    odd = min(image_reports.keys() ^ variant_reports.keys())
    raise InputError(f"the counts do not add up: {odd} is not in both records/ and distorted/: run the command again.")
  pictures = left_out = 0
  for name, report in variant_reports.items():
    counts = report.extra[DISTORTED]
    total = counts["pictures"] + counts["validation"] + len(report.quarantined)
    if total != image_reports[name].inputs or report.outputs != counts["pictures"] * distortions.copies:
      raise InputError(
        f"the counts do not add up: of {image_reports[name].inputs} images of {name}, {counts['pictures']} were"
        f" distorted, into {report.outputs} records, {counts['validation']} are for validation and"
        f" {len(report.quarantined)} are bad; please report this as a bug."
      )
    pictures += counts["pictures"]
    bad = {entry.key for entry in image_reports[name].quarantined}
    left_out += sum(entry.key not in bad for entry in report.quarantined)
  copies = distortions.copies
  return {"copies": copies, "pictures": pictures, "records": pictures * copies, "left_out": left_out}
