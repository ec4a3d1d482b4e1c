"""The flags that distort training images; names and meanings are retrain.py's."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.images.augment import Distortions
from beam_retrain.transforms.core.run.cli import positive_int

_PERCENTAGES = ("random_crop", "random_scale", "random_brightness")
_OF_VARIANTS = ("distortion_copies", "distortion_seed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistortionFlags:
  """Fields of a request with distortions."""

  flip_left_right: bool = False
  random_crop: int = 0
  random_scale: int = 0
  random_brightness: int = 0
  distortion_copies: int | None = None
  distortion_seed: int | None = None

  @property
  def distortions(self) -> Distortions | None:
    """The distortions of training images, if any.

    Raises:
      InputError: a value is out of its range, or variants are asked for without a distortion.
    """
    percentages = {name: getattr(self, name) for name in _PERCENTAGES}
    of_variants = {name: value for name in _OF_VARIANTS if (value := getattr(self, name)) is not None}
    if not (self.flip_left_right or any(percentages.values())):
      if of_variants:
        raise InputError(
          f"{flag(next(iter(of_variants)))} needs a distortion: add {flag('flip_left_right')}, {flag('random_crop')},"
          f" {flag('random_scale')} or {flag('random_brightness')}, or leave it out."
        )
      return None
    how = {name.removeprefix("distortion_"): value for name, value in of_variants.items()}
    try:
      return Distortions(self.flip_left_right, **percentages, **how)
    except ValueError as error:
      raise InputError(f"{error}.") from error


def distortion_values(settings: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the fields of `DistortionFlags`, from the `settings` of an `info.json`."""
  found = Distortions.from_settings(settings)
  if found is None:
    return dataclasses.asdict(DistortionFlags())
  names = {name.removeprefix("distortion_"): name for name in _OF_VARIANTS}
  return {names.get(name, name): value for name, value in found.to_settings().items()}


def add_distortion_flags(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group(
    "distortions",
    "Distorted variants of each training image also go through the trunk, once, and `train` draws from them and from"
    " the image itself. Names and meanings are retrain.py's, which distorted images and ran the trunk at every step."
    " Images for validation and testing are never distorted.",
  )
  group.add_argument("--flip_left_right", action="store_true", help="mirror half of the variants, left to right")
  group.add_argument(
    "--random_crop",
    type=int,
    metavar="PERCENT",
    help="crop off a margin of PERCENT at random (default: %(default)d)",
  )
  group.add_argument(
    "--random_scale", type=int, metavar="PERCENT", help="enlarge by up to PERCENT (default: %(default)d)"
  )
  group.add_argument(
    "--random_brightness",
    type=int,
    metavar="PERCENT",
    help="make darker or brighter by up to PERCENT (default: %(default)d)",
  )
  group.add_argument("--distortion_copies", type=positive_int, metavar="K", help="variants of each image (default: 4)")
  group.add_argument(
    "--distortion_seed", type=int, metavar="N", help="same seed, same image, same variants (default: 0)"
  )
