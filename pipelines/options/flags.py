"""Flags that several commands share, and the fields that hold them."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING

from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.images.augment import Distortions
from beam_retrain.transforms.core.images.exif import tell_oriented
from beam_retrain.transforms.core.printing import say
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.argparse_internals import FlagGroup
from beam_retrain.transforms.core.run.flags import add_decoding_flags, positive_int, whole_number
from beam_retrain.transforms.core.runtimes.variant import AUTO, BFLOAT16, FLOAT32, INT8, OPENVINO, TENSORFLOW
from beam_retrain.transforms.core.system.extras import install_command

if TYPE_CHECKING:
  from beam_retrain.transforms.core.run.stats import Stats
  from beam_retrain.transforms.sources.base import Source  # loads Beam, which `predict` does without

LEAST_IMAGES = 2_000
"""For fewer images, trying batch sizes takes longer than it saves."""

LEAST_COSINE = 0.999
"""Smallest cosine with float32 at which auto takes another precision."""

_DISTORTIONS = ("flip_left_right", "random_crop", "random_scale", "random_brightness")


def add_model_flags(parser: argparse.ArgumentParser, default_batch_size: str) -> None:
  """Adds `batch_size` and `trunk_threads` (None: auto), and `max_pixels`."""
  parser.add_argument(
    "--batch_size",
    type=lambda text: None if text == "auto" else positive_int(text),
    metavar="N|auto",
    help=f"images per call of the model (default: auto: {default_batch_size}); halved if memory runs out",
  )
  add_decoding_flags(parser)


def add_precision_flags(parser: FlagGroup) -> None:
  """Adds `precision` and `runtime`, for commands that compute bottlenecks."""
  _add_precision_flags(
    parser,
    "numbers that the trunk computes with. auto (default): bfloat16, which is faster, if the processor has it"
    f" and each bottleneck of a sample of the images has a cosine of at least {LEAST_COSINE} with float32's; else"
    " float32. int8: faster still, calibrated on a sample of the training images; needs OpenVINO. Bottlenecks of"
    " different precisions never mix",
    f"what runs the trunk. auto (default): OpenVINO if installed ({install_command('fast')}), else TensorFlow",
  )


def add_model_precision_flags(parser: FlagGroup) -> None:
  """Adds `precision` and `runtime`, for commands that use a trained model."""
  _add_precision_flags(
    parser,
    "numbers that the trunk computes with: auto (default): those of the model's bottlenecks if this machine has"
    " them, else float32; float32: the exported model, by TensorFlow",
    "what runs the trunk: auto (default): what ran it for the model's bottlenecks if installed, else TensorFlow",
  )


def _add_precision_flags(parser: FlagGroup, precision: str, runtime: str) -> None:
  parser.add_argument("--precision", choices=(AUTO, FLOAT32, BFLOAT16, INT8), default=AUTO, help=precision)
  parser.add_argument("--runtime", choices=(AUTO, TENSORFLOW, OPENVINO), default=AUTO, help=runtime)


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

  class_names: str | None = None
  transpose: bool = False

  def idx_settings(self) -> dict[str, str | bool]:
    """Returns the entries of the given flags in an `info.json`."""
    return {name: value for name in ("class_names", "transpose") if (value := getattr(self, name))}


def add_classes(parser: FlagGroup) -> None:
  parser.add_argument(
    "--classes",
    type=whole_number(1, 256),
    metavar="N",
    help="labels of IDX files are 0 to N-1; images with other labels are quarantined (default: the labels that are"
    " there)",
  )


def add_split_percentages(parser: FlagGroup) -> None:
  parser.add_argument(
    "--testing_percentage",
    type=float,
    help="percent of the images for testing, by a stable hash of their names, if there is no folder testing/"
    " (default: %(default)g)",
  )
  parser.add_argument(
    "--validation_percentage",
    type=float,
    help="percent of the images for validation, unless a manifest names them (default: %(default)g)",
  )


def add_idx_flags(parser: FlagGroup) -> None:
  parser.add_argument(
    "--class_names",
    metavar="FILE",
    help="names for the numbers in IDX files: one per line, the first for 0; or NUMBER NAME; or a mapping file of"
    " EMNIST",
  )
  parser.add_argument(
    "--transpose", action="store_true", help="swap rows and columns of the images in IDX files, as EMNIST needs"
  )


def add_corrections(parser: FlagGroup) -> None:
  parser.add_argument(
    "--corrections",
    metavar="FILE",
    help="correct labels as FILE says, the corrections.csv that `serve` writes: images of the same bytes get another"
    " label, whatever their names, or are left out. Corrections that meet no image are listed in"
    " unused_corrections.csv",
  )


def report_oriented(stats: Stats, source: str, max_bad_fraction: float) -> None:
  """Reports on standard error the images that an EXIF orientation turns."""
  if stats.oriented:
    flags = [stats.accepting(max_bad_fraction)] if stats.bad_fraction or max_bad_fraction else []
    say(tell_oriented(stats.oriented, stats.outputs, source, flags=flags), file=sys.stderr)


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


def add_distortion_flags(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group(
    "distortions",
    "Distorted variants of each training image also go through the trunk, once, and `train` draws from them and from"
    " the image itself. Names and meanings are retrain.py's, which distorted images and ran the trunk at every step."
    " Images for validation and testing are never distorted.",
  )
  group.add_argument("--flip_left_right", action="store_true", help="mirror half of the variants, left to right")
  for name, effect in (
    ("random_crop", "crop off a margin of PERCENT at random"),
    ("random_scale", "enlarge by up to PERCENT"),
    ("random_brightness", "make darker or brighter by up to PERCENT"),
  ):
    group.add_argument(f"--{name}", type=int, metavar="PERCENT", help=f"{effect} (default: %(default)d)")
  group.add_argument("--distortion_copies", type=positive_int, metavar="K", help="variants of each image (default: 4)")
  group.add_argument(
    "--distortion_seed", type=int, metavar="N", help="same seed, same image, same variants (default: 0)"
  )
