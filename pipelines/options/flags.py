"""Flags that several commands share, and the fields that hold them."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING, Any

from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.images.augment import Distortions
from beam_retrain.transforms.core.images.exif import tell_oriented
from beam_retrain.transforms.core.printing import say
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.flags import accept_bad, option, positive_int, whole_number
from beam_retrain.transforms.core.runtimes.variant import AUTO, BFLOAT16, FLOAT32, INT8, OPENVINO, TENSORFLOW
from beam_retrain.transforms.core.system.extras import install_command

if TYPE_CHECKING:
  from beam_retrain.transforms.core.run.stats import Stats
  from beam_retrain.transforms.sources.base import Source  # loads Beam, which `predict` does without

LEAST_IMAGES = 20_000  # for fewer images, trying batch sizes takes longer than it saves

LEAST_COSINE = 0.999  # smallest cosine with float32 at which auto takes another precision

_DISTORTIONS = ("flip_left_right", "random_crop", "random_scale", "random_brightness")


def batch_size_option(default: str) -> Any:
  return option(
    None,
    f"images per call of the model (default: auto: {default}); halved if memory runs out",
    type=lambda text: None if text == "auto" else positive_int(text),
    metavar="N|auto",
  )


def precision_option(of_model: bool = True) -> Any:
  """Returns the field, of a trained model or for bottlenecks."""
  of_bottlenecks = (
    "numbers that the trunk computes with. auto (default): bfloat16, if it is faster on this processor"
    f" and each bottleneck of a sample of the images has a cosine of at least {LEAST_COSINE} with float32's; else"
    " float32. int8: faster still, calibrated on a sample of the training images; needs OpenVINO. Bottlenecks of"
    " different precisions never mix"
  )
  help = (
    "numbers that the trunk computes with: auto (default): those of the model's bottlenecks if this machine has"
    " them, else float32; float32: the exported model, by TensorFlow"
  )
  return option(AUTO, help if of_model else of_bottlenecks, choices=(AUTO, FLOAT32, BFLOAT16, INT8))


def runtime_option(of_model: bool = True) -> Any:
  """Returns the field, of a trained model or for bottlenecks."""
  of_bottlenecks = (
    f"what runs the trunk. auto (default): OpenVINO if installed ({install_command('fast')}), else TensorFlow"
  )
  help = "what runs the trunk: auto (default): what ran it for the model's bottlenecks if installed, else TensorFlow"
  return option(AUTO, help if of_model else of_bottlenecks, choices=(AUTO, TENSORFLOW, OPENVINO))


def given_precision(flags: argparse.Namespace) -> list[str]:
  """Returns those of the two flags that are not auto, as arguments."""
  return [f"--{name}={getattr(flags, name)}" for name in ("precision", "runtime") if getattr(flags, name) != AUTO]


def check_split_hash(source: Source, percentages: SplitPercentages, remedy: str) -> None:
  """Checks that legacy splits apply to class folders, as in `retrain.py`."""
  if percentages.legacy_root is not None and (source.has_splits or not source.class_folders):
    what = "has splits of its own" if source.has_splits else "is not a folder of class folders"
    raise InputError(
      f"{flag('split_hash')} legacy splits class folders as retrain.py did, but {source.path} {what}: {remedy}."
    )


def retrain_names_setting(retrain_names: bool) -> dict[str, bool]:
  """Returns the flag's entry in an `info.json`, if it was given."""
  return {"retrain_names": True} if retrain_names else {}


def report_notes(source: Source) -> None:
  """Reports on standard error what is to be known of an input."""
  for note in source.notes():
    say(note, file=sys.stderr)


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdxFlags:
  """Fields of a request whose input may be IDX files."""

  class_names: str | None = option(
    None,
    "names for the numbers in IDX files: one per line, the first for 0; or NUMBER NAME; or a mapping file of EMNIST",
    metavar="FILE",
  )
  transpose: bool = option(False, "swap rows and columns of the images in IDX files, as EMNIST needs")

  def idx_settings(self) -> dict[str, str | bool]:
    """Returns the entries of the given flags in an `info.json`."""
    return {name: value for name in ("class_names", "transpose") if (value := getattr(self, name))}


def classes_option() -> Any:
  return option(
    None,
    "labels of IDX files are 0 to N-1; images with other labels are quarantined (default: the labels that are there)",
    type=whole_number(1, 256),
    metavar="N",
  )


def corrections_option() -> Any:
  return option(
    None,
    "correct labels as FILE says, the corrections.csv that `serve` writes: images of the same bytes get another"
    " label, whatever their names, or are left out. Corrections that meet no image are listed in"
    " unused_corrections.csv",
    metavar="FILE",
  )


def report_oriented(stats: Stats, source: str, max_bad_fraction: float) -> None:
  """Reports on standard error the images that an EXIF orientation turns."""
  if stats.oriented:
    flags = [accept_bad(stats.bad_fraction, max_bad_fraction)] if stats.bad_fraction or max_bad_fraction else []
    say(tell_oriented(stats.oriented, stats.outputs, source, flags=flags), file=sys.stderr)


_OF_DISTORTIONS = (
  "distortions",
  "Distorted variants of each training image also go through the trunk, once, and `train` draws from them and from"
  " the image itself. Names and meanings are retrain.py's, which distorted images and ran the trunk at every step."
  " Images for validation and testing are never distorted.",
)


def _percent_option(effect: str) -> Any:
  return option(0, f"{effect} (default: %(default)d)", type=int, metavar="PERCENT", group=_OF_DISTORTIONS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistortionFlags:
  """Fields of a request with distortions."""

  flip_left_right: bool = option(False, "mirror half of the variants, left to right", group=_OF_DISTORTIONS)
  random_crop: int = _percent_option("crop off a margin of PERCENT at random")
  random_scale: int = _percent_option("enlarge by up to PERCENT")
  random_brightness: int = _percent_option("make darker or brighter by up to PERCENT")
  distortion_copies: int | None = option(
    None, "variants of each image (default: 4)", type=positive_int, metavar="K", group=_OF_DISTORTIONS
  )
  distortion_seed: int | None = option(
    None, "same seed, same image, same variants (default: 0)", type=int, metavar="N", group=_OF_DISTORTIONS
  )

  @property
  def distortions(self) -> Distortions | None:
    """The distortions of training images, if any.

    Raises:
      InputError: a value is out of its range, or there are variants without a distortion.
    """
    values = {name: value for name in _DISTORTIONS if (value := getattr(self, name))}
    variants = {name: getattr(self, f"distortion_{name}") for name in ("copies", "seed")}
    variants = {name: value for name, value in variants.items() if value is not None}
    if values:
      try:
        return Distortions(**values, **variants)
      except ValueError as error:
        raise InputError(f"{error}.") from error
    if variants:
      raise InputError(
        f"{flag(f'distortion_{next(iter(variants))}')} needs a distortion: add {flag('flip_left_right')},"
        f" {flag('random_crop')}, {flag('random_scale')} or {flag('random_brightness')}, or leave it out."
      )
    return None
