"""Assigns images to splits by a salted hash of their keys: adding images moves none.

As in `retrain.py`, a name is hashed only up to `_nohash_`, which keeps near-duplicates (`a_nohash_1.jpg`,
`a_nohash_2.jpg`) together, and percentages are of all images. Unlike there, the key is relative to the data set, so
that `./imgs` and `imgs/` split alike, and the extension does not count, so that converting JPG to PNG moves nothing.
`retrain.py`'s own rule is available for data that it has split (`SplitPercentages.legacy_root`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Collection, Mapping
from typing import Any

from beam_retrain.transforms.core.records.schema import TESTING, TRAINING, VALIDATION

_SALT = b"beam-retrain-split-1:"
_BUCKETS = 1 << 32
_LEGACY_BUCKETS = 1 << 27  # retrain.py: MAX_NUM_IMAGES_PER_CLASS + 1

STABLE, LEGACY = "stable", "legacy"
SPLIT_HASHES = (STABLE, LEGACY)
"""Values of `--split_hash`."""


def stable_hash(key: str, salt: bytes) -> int:
  """Returns 0..2**64-1, the same in every process and on every machine."""
  return int.from_bytes(hashlib.sha256(salt + key.encode()).digest()[:8], "big")


def with_validation(splits: Collection[str]) -> frozenset[str]:
  """Adds validation to the splits if training is among them."""
  return frozenset({*splits, VALIDATION}) if TRAINING in splits else frozenset(splits)


@dataclasses.dataclass(frozen=True, slots=True)
class SplitPercentages:
  """Percentages of the images for testing and validation; the rest is for training.

  Attributes:
    testing: percent, 0..100.
    validation: likewise.
    legacy_root: None for this project's rule. Else the data set's folder as typed for `retrain.py`'s `--image_dir` (a
      relative path stays one): images are split as `retrain.py` did.

  Raises:
    ValueError: a percentage is below 0, or nothing is left to train on.
  """

  testing: float = 10.0
  validation: float = 10.0
  legacy_root: str | None = None

  def __post_init__(self) -> None:
    if self.testing < 0 or self.validation < 0 or self.testing + self.validation >= 100:
      raise ValueError(
        f"testing {self.testing:g} % and validation {self.validation:g} % leave nothing to train on:"
        " both must be at least 0, and their sum below 100"
      )

  @classmethod
  def from_settings(cls, settings: Mapping[str, Any]) -> SplitPercentages:
    """Reads what `to_settings` wrote into the `settings` of an `info.json`, of whatever version.

    Raises:
      ValueError: as above; or the split hash is one that this version does not know.
    """
    split_hash = settings.get("split_hash", STABLE)
    if split_hash not in SPLIT_HASHES:
      raise ValueError(f"the split hash {split_hash!r} is none of {', '.join(SPLIT_HASHES)}")
    return cls(
      testing=float(settings["testing_percentage"]),
      validation=float(settings.get("validation_percentage", 0.0)),
      legacy_root=str(settings["split_root"]) if split_hash == LEGACY else None,
    )

  def to_settings(self) -> dict[str, Any]:
    """Returns JSON values; of this project's own rule, only the percentages."""
    percentages = {"testing_percentage": self.testing, "validation_percentage": self.validation}
    if self.legacy_root is None:
      return percentages
    return {**percentages, "split_hash": LEGACY, "split_root": self.legacy_root}

  def split_of(self, key: str, given: str | None = None) -> str:
    """Returns the split of an image.

    Args:
      key: the image's key.
      given: the split that the data set itself names (a folder `training/` or `testing/`), or None. Testing and
        validation stay; an image given as training can still be drawn for validation.
    """
    if given in (TESTING, VALIDATION):
      return given
    if self.legacy_root is not None:
      drawn = self._legacy_split(os.path.join(self.legacy_root, key))
      return TRAINING if drawn == TESTING and given else drawn
    name = os.path.splitext(key)[0].split("_nohash_")[0]
    percent = stable_hash(name, _SALT) % _BUCKETS * 100 / _BUCKETS
    if given is None and percent < self.testing:
      return TESTING
    # Not from 0 on: a data set has the same validation images with and without testing images of its own.
    return VALIDATION if self.testing <= percent < self.testing + self.validation else TRAINING

  def _legacy_split(self, path: str) -> str:
    """`create_image_lists` of TensorFlow Hub's `examples/image_retraining/retrain.py`: SHA-1 of the path up to the
    first `_nohash_`, as a number, modulo 2**27, in percent of 2**27 - 1; validation comes first."""
    grouped = re.sub("_nohash_.*$", "", path)  # a name with a line break in it is not cut, as there
    number = int.from_bytes(hashlib.sha1(grouped.encode(), usedforsecurity=False).digest(), "big")
    percent = number % _LEGACY_BUCKETS * (100.0 / (_LEGACY_BUCKETS - 1))
    if percent < self.validation:
      return VALIDATION
    return TESTING if percent < self.testing + self.validation else TRAINING
