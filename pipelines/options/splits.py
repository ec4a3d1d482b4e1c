"""The flags that say which images are for testing and for validation, and what happens to leaks between them."""

from __future__ import annotations

import argparse
import dataclasses

from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.records.leaks import OnLeak
from beam_retrain.transforms.core.records.schema import LEAKS_FILE
from beam_retrain.transforms.core.records.splits import LEGACY, SPLIT_HASHES, STABLE, SplitPercentages
from beam_retrain.transforms.sources.base import Source


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitFlags:
  """Fields of a request that splits images."""

  testing_percentage: float = 10.0
  validation_percentage: float = 10.0
  split_hash: str = STABLE

  def percentages(self, typed_input: str, source: Source) -> SplitPercentages:
    """Returns how a source is split; if it names validation images, none are drawn.

    Args:
      typed_input: `--input` as the user typed it.
      source: the images.

    Raises:
      InputError: nothing is left to train on, or the hash has no meaning for such a source.
    """
    root = typed_input if self.split_hash == LEGACY else None
    validation = 0.0 if source.has_validation else self.validation_percentage
    try:
      percentages = SplitPercentages(self.testing_percentage, validation, root)
    except ValueError as error:
      raise InputError(f"{error}.") from error
    check_split_hash(source, percentages, f"leave out {flag('split_hash')} legacy")
    return percentages


def add_split_flags(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group("splits")
  group.add_argument(
    "--testing_percentage",
    type=float,
    help="percent of the images for testing, by a stable hash of their names, where there is no folder testing/"
    " (default: %(default)g)",
  )
  group.add_argument(
    "--validation_percentage",
    type=float,
    help="percent of the images for validation, where a manifest names none (default: %(default)g)",
  )
  group.add_argument(
    "--split_hash",
    choices=SPLIT_HASHES,
    help="stable: by names within --input, wherever that lies. legacy: image by image as retrain.py, which hashed the"
    " path with --image_dir as it was typed: type --input the same way; for class folders (default: %(default)s)",
  )


def check_split_hash(source: Source, percentages: SplitPercentages, remedy: str) -> None:
  """Checks that images to be split as `retrain.py` did are class folders, the only input that it knew.

  Raises:
    InputError: they are not; ends with the remedy.
  """
  if percentages.legacy_root is None:
    return
  if source.has_splits or not source.class_folders:
    what = "has splits of its own" if source.has_splits else "is not a folder of class folders"
    raise InputError(
      f"{flag('split_hash')} legacy splits class folders as retrain.py did, but {source.path} {what}: {remedy}."
    )


def add_on_leak(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group("split audit")
  group.add_argument(
    "--on_leak",
    choices=[str(value) for value in OnLeak],
    help=f"identical images (by their bytes) with different labels, or in training and in testing, are listed in"
    f" {LEAKS_FILE} and counted in stats.json; `drop` leaves them out: all copies of those with different labels, the"
    " training copies of those also in testing; `fail` ends with exit code 1, before the trunk runs (default:"
    " %(default)s)",
  )
