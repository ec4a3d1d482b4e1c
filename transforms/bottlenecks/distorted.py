"""`bottlenecks` with distortions: the flags, the step of the job, what is told."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam

from beam_retrain.transforms.bottlenecks.augment import CloseDistorted, EmbedDistorted
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.augment import DISTORTED, Distortions
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.cli import positive_int
from beam_retrain.transforms.core.run.run_info import request_digest
from beam_retrain.transforms.core.run.stats import Stats
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.work import REPORTS_FOLDER

_PERCENTAGES = ("random_crop", "random_scale", "random_brightness")
_OF_VARIANTS = ("distortion_copies", "distortion_seed")


def add_distortion_flags(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group(
    "distortions",
    "Of each training image, variants go through the trunk too, once, and `train` draws from them and from the"
    " image itself. Names and meanings are retrain.py's, which distorted anew, and ran the trunk, at every step."
    " Images for validation and testing are never distorted.",
  )
  group.add_argument("--flip_left_right", action="store_true", help="mirror half of the variants, left to right")
  group.add_argument(
    "--random_crop",
    type=int,
    default=0,
    metavar="PERCENT",
    help="cut a margin of so many percent off, more of it on one side or the other (default: %(default)d)",
  )
  group.add_argument(
    "--random_scale",
    type=int,
    default=0,
    metavar="PERCENT",
    help="enlarge by up to so many percent (default: %(default)d)",
  )
  group.add_argument(
    "--random_brightness",
    type=int,
    default=0,
    metavar="PERCENT",
    help="make darker or brighter by up to so many percent (default: %(default)d)",
  )
  group.add_argument("--distortion_copies", type=positive_int, metavar="K", help="variants of each image (default: 4)")
  group.add_argument(
    "--distortion_seed", type=int, metavar="N", help="same seed, same image, same variants (default: 0)"
  )


def read_distortions(flags: argparse.Namespace) -> Distortions | None:
  """Returns what the flags of `add_distortion_flags` say; None: nothing is distorted.

  Raises:
    InputError: a value that makes no sense, or variants of no distortion.
  """
  percentages = {name: getattr(flags, name) for name in _PERCENTAGES}
  of_variants = {
    name.removeprefix("distortion_"): value for name in _OF_VARIANTS if (value := getattr(flags, name)) is not None
  }
  if not (flags.flip_left_right or any(percentages.values())):
    if of_variants:
      raise InputError(
        f"--distortion_{next(iter(of_variants))} is for variants, and nothing distorts them: give --flip_left_right,"
        " --random_crop, --random_scale or --random_brightness too, or leave it out."
      )
    return None
  try:
    return Distortions(flags.flip_left_right, **percentages, **of_variants)
  except ValueError as error:
    raise InputError(f"{error}.") from error


def distortions_setting(distortions: Distortions | None) -> dict[str, Any]:
  """Returns the part of the settings that says it; empty where nothing is distorted."""
  return {"distortions": distortions.to_settings()} if distortions else {}


def distortion_flags(settings: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the flags that `distortions_setting` came of: their names and values."""
  found = Distortions.from_settings(settings)
  if found is None:
    return {"flip_left_right": False, **dict.fromkeys(_PERCENTAGES, 0), **dict.fromkeys(_OF_VARIANTS)}
  return {
    f"distortion_{name}" if f"distortion_{name}" in _OF_VARIANTS else name: value
    for name, value in found.to_settings().items()
  }


@dataclasses.dataclass(frozen=True)
class DistortedBottlenecks:
  """The part of the job that embeds variants.

  Attributes:
    distortions: what is done to the images.
    handler: the trunk.
    labels: class index -> label.
    percentages: which images of the training shards are for validation.
    output: the stage's folder.
    trunk_fingerprint: of the trunk.
    preprocessing: its version.
    earlier: outputs of earlier runs, whose files are taken where they are the same.
  """

  distortions: Distortions
  handler: ImageModelHandler
  labels: Sequence[str]
  percentages: SplitPercentages
  output: str
  trunk_fingerprint: str
  preprocessing: str
  earlier: Sequence[str] = ()

  @property
  def folder(self) -> str:
    return files.join(self.output, DISTORTED)

  def embed(self, shards: beam.PCollection, checked: beam.PCollection, reports: beam.PCollection) -> beam.PCollection:
    """Returns a PCollection of one dict, see `count_distorted`, when all variants are written.

    Args:
      shards: PCollection[Shard], of all splits.
      checked: what must have been computed first.
      reports: PCollection[ShardReport] of the images themselves, for the ledger.
    """
    settings = {
      **distortions_setting(self.distortions),
      **self.percentages.to_settings(),
      "trunk_fingerprint": self.trunk_fingerprint,
      "preprocessing": self.preprocessing,
      "max_pixels": self.handler.max_pixels,
      "batch_size": self.handler.batch_size,
      "labels": list(self.labels),
    }
    files.make_folder(files.join(self.folder, REPORTS_FOLDER))
    of_variants = shards | "Distort" >> EmbedDistorted(
      handler=self.handler,
      labels=self.labels,
      percentages=self.percentages,
      distortions=self.distortions,
      output=self.folder,
      request=request_digest(DISTORTED, settings),
      checked=checked,
      earlier=[files.join(folder, DISTORTED) for folder in self.earlier],
    )
    return (reports, of_variants) | "CloseDistorted" >> CloseDistorted(folder=self.folder, distortions=self.distortions)

  def describe(self, stats: Stats) -> str:
    """Returns what a user is told of them."""
    assert stats.distorted is not None, "the job counted its variants"
    counts = stats.distorted
    return (
      f"{counts['records']:,} distorted variants, {counts['copies']} of each of {counts['pictures']:,} training"
      f" images, in {files.shown(self.folder)}"
    )
