"""The flags that say which images are for testing and for validation."""

from __future__ import annotations

import argparse

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.splits import LEGACY, SPLIT_HASHES, STABLE, SplitPercentages
from beam_retrain.transforms.sources.base import Source


def add_split_flags(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group("splits")
  group.add_argument(
    "--testing_percentage",
    type=float,
    default=10.0,
    help="percent of the images for testing, by a stable hash of their names, where there is no folder testing/"
    " (default: %(default)g)",
  )
  group.add_argument(
    "--validation_percentage",
    type=float,
    default=10.0,
    help="likewise, for validation, where a manifest names none (default: %(default)g)",
  )
  group.add_argument(
    "--split_hash",
    choices=SPLIT_HASHES,
    default=STABLE,
    help="stable: by names within --input, wherever that lies. legacy: image by image as retrain.py, which hashed the"
    " path with --image_dir as it was typed: type --input the same way; for class folders (default: %(default)s)",
  )


def read_percentages(flags: argparse.Namespace, typed_input: str, source: Source) -> SplitPercentages:
  """Returns what the flags of `add_split_flags` say; where the source names validation images, none are drawn.

  Args:
    flags: as they were parsed.
    typed_input: `--input` as the user typed it.
    source: what is there.

  Raises:
    InputError: the percentages leave nothing to train on, or the hash has no meaning for such a source.
  """
  root = typed_input if flags.split_hash == LEGACY else None
  validation = 0.0 if source.has_validation else flags.validation_percentage
  try:
    percentages = SplitPercentages(flags.testing_percentage, validation, root)
  except ValueError as error:
    raise InputError(f"{error}.") from error
  check_split_hash(source, percentages, "leave out --split_hash legacy")
  return percentages


def check_split_hash(source: Source, percentages: SplitPercentages, remedy: str) -> None:
  """Checks that images which are to be split as `retrain.py` did are class folders, the one thing that it knew.

  Raises:
    InputError: they are not; ends with the remedy.
  """
  if percentages.legacy_root is None:
    return
  if source.has_splits or not source.class_folders:
    what = "says itself which images are for testing" if source.has_splits else "is no folder of class folders"
    raise InputError(f"--split_hash legacy splits class folders as retrain.py did, but {source.path} {what}: {remedy}.")
