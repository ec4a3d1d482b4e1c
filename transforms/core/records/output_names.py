"""Names of converted images, made from their keys.

An image keeps its name up to the extension, so that it stays in its split (see `splits`). Where two images of a data
set would have one name, such as `cat/a.tif` and `cat/a.png`, both get a suffix, which begins with `_nohash_` and so
changes no split either.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.labels import normalise
from beam_retrain.transforms.core.records.schema import (
  ALL,
  COMPLETED_FILE,
  CONFIG_FILE,
  INFO_FILE,
  LABELS_FILE,
  QUARANTINE_FILE,
  RECORDS_FOLDER,
  STATS_FILE,
  TESTING,
  TRAINING,
  VALIDATION,
)

JPG, PNG, TFRECORD = "jpg", "png", "tfrecord"
FORMATS = (JPG, PNG, TFRECORD)
"""What `convert` writes."""

RESERVED = frozenset(
  name.casefold()
  for name in (
    *(COMPLETED_FILE, CONFIG_FILE, INFO_FILE, LABELS_FILE, QUARANTINE_FILE, STATS_FILE),
    *(RECORDS_FOLDER, TRAINING, VALIDATION, TESTING),
  )
)
"""What an output holds besides its class folders, compared without case."""

_MOST_BYTES = 200  # of a name: file systems allow 255, of which an ending and a temporary name take 41
_MOST_WITH_SUFFIX = 190
_SUFFIX = re.compile(r"_nohash_[0-9a-f]{16}")
_LIKE_A_FILE = re.compile(r"\.(jpg|png)$", re.IGNORECASE)


class OutputName(NamedTuple):
  """An image's names, without extension.

  `path` is that of the image file in the output, `key` that of its record; they differ for manifests and tars, whose
  keys do not begin with the label.
  """

  path: str
  key: str


def name_output(key: str, label: str, split: str, *, is_clashing: bool = False) -> OutputName:
  """Returns the names of a converted image, below its split, if any."""
  stem = os.path.splitext(key)[0]
  above = "" if split == ALL else f"{split}/"
  *folders, name = _parts(stem.removeprefix(above), label)
  parts = [_LIKE_A_FILE.sub(r"\g<0>_", folder) for folder in folders]
  cut = [_cut(part, _MOST_BYTES) for part in (*parts, name)]
  suffix = ""
  if is_clashing or cut != [*parts, name] or _SUFFIX.search(stem):
    suffix = f"_nohash_{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    cut[-1] = _cut(name, _MOST_WITH_SUFFIX)
  return OutputName(f"{above}{label}/{'/'.join(cut)}{suffix}", f"{stem}{suffix}")


def _cut(name: str, most: int) -> str:
  return name.encode()[:most].decode(errors="ignore")


def _parts(inside: str, label: str) -> list[str]:
  """Returns the steps of a path in a class folder, none hidden."""
  steps = [step for step in inside.split("/") if step not in ("", ".", "..")]
  if len(steps) > 1 and normalise(steps[0]) == label:
    del steps[0]
  return [f"_{step}" if step.startswith(".") else step for step in steps] or ["_"]


def find_clashing(images: Iterable[tuple[str, str, str]]) -> frozenset[str]:
  """Returns the keys of images that would have one name with another.

  `images` are (key, label, split). Names that differ only in case, or in the form of an accent, are one name on many
  file systems.
  """
  first: dict[str, str] = {}
  clashing = set()
  for key, label, split in images:
    name = name_output(key, label, split)
    for kind, one in zip(("path", "key"), name, strict=True):
      other = first.setdefault(f"{kind}:{unicodedata.normalize('NFC', one).casefold()}", key)
      if other != key:
        clashing |= {key, other}
  return frozenset(clashing)


def find_fault(label: str, *, at_top: bool) -> str:
  """Returns why a label cannot name a class folder, or "".

  `at_top`: whether the class folders are at the top of the output.
  """
  if label.startswith("."):
    return "starts with a dot"
  if "/" in label:
    return "contains a slash"
  if len(label.encode()) > _MOST_BYTES:
    return f"has more than {_MOST_BYTES} bytes"
  return "is a name that the output needs itself" if at_top and label.casefold() in RESERVED else ""


def check_folder_names(labels: Iterable[str], *, at_top: bool) -> None:
  """Raises InputError for a label that cannot be a class folder."""
  for label in labels:
    if fault := find_fault(label, at_top=at_top):
      raise InputError(
        f"the label {label!r} {fault} and cannot be a class folder: rename it, or write records alone"
        " (--formats tfrecord)."
      )
