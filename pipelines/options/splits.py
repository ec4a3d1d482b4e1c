"""Flags for the splits, for leaks between them, and `--retrain_names`."""

from __future__ import annotations

import argparse
import dataclasses
import sys

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
    """Returns how a source is split; its own validation images are kept.

    Args:
      typed_input: `--input` as the user typed it.

    Raises:
      InputError: nothing is left to train on, or the hash does not apply to the source.
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
    help="percent of the images for testing, by a stable hash of their names, if there is no folder testing/ (default:"
    " %(default)g)",
  )
  group.add_argument(
    "--validation_percentage",
    type=float,
    help="percent of the images for validation, unless a manifest names them (default: %(default)g)",
  )
  group.add_argument(
    "--split_hash",
    choices=SPLIT_HASHES,
    help="stable: by names within --input, so that the folder can move. legacy: as retrain.py, which hashed the path"
    " including --image_dir as typed: type --input the same way; for class folders only (default: %(default)s)",
  )


def check_split_hash(source: Source, percentages: SplitPercentages, remedy: str) -> None:
  """Checks that legacy splits apply to class folders, as in `retrain.py`."""
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
    help=f"what to do about identical images (by their bytes) with different labels, or in training and testing:"
    f" `warn` lists them in {LEAKS_FILE} and counts them in stats.json; `drop` also leaves out all copies with"
    " different labels, and the training copies of testing images; `fail` ends with exit code 1 before the trunk runs"
    " (default: %(default)s)",
  )


def add_retrain_names(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--retrain_names",
    action="store_true",
    help="read class folders as retrain.py did: a label is the folder's name in lower case, with one space for whatever"
    " is not a-z or 0-9, and only files named .jpg, .jpeg or .png are images",
  )


def retrain_names_setting(retrain_names: bool) -> dict[str, bool]:
  """Returns the flag's entry in an `info.json`, if it was given."""
  return {"retrain_names": True} if retrain_names else {}


def report_left_out(source: Source) -> None:
  """Reports on standard error how many files were left out."""
  if others := source.count_left_out():
    print(f"files left out, as their names do not end in .jpg, .jpeg or .png: {others:,}", file=sys.stderr)
