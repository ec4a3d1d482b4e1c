"""`--retrain_names`: reads class folders as `retrain.py` did."""

from __future__ import annotations

import argparse
import sys

from beam_retrain.transforms.sources.base import Source


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


def tell_left_out(source: Source) -> None:
  """Reports on standard error how many files were left out."""
  if others := source.count_left_out():
    print(f"files left out, as their names do not end in .jpg, .jpeg or .png: {others:,}", file=sys.stderr)
