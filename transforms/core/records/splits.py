"""Assigns images to splits by a salted hash of their keys.

So adding images moves none. As in `retrain.py`, a name is hashed only up to `_nohash_`, which keeps near-duplicates
(`a_nohash_1.jpg`, `a_nohash_2.jpg`) together, and percentages are of all images. Unlike there, the key is relative to
the data set (`./imgs` and `imgs/` split alike) and the extension is ignored (converting JPG to PNG moves nothing).
`SplitPercentages.legacy_root` selects `retrain.py`'s own rule.
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
  """Adds validation to splits that include training."""
  return frozenset({*splits, VALIDATION}) if TRAINING in splits else frozenset(splits)


@dataclasses.dataclass(frozen=True, slots=True)
class SplitPercentages:
  """Percentages, 0..100, for testing and validation; the rest is for training.

  `legacy_root` is None for this project's rule; for `retrain.py`'s, the data set's folder as typed for its
  `--image_dir` (possibly relative). Raises ValueError if a percentage is negative, or nothing is left to train on.
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
    """Reads the `settings` of an `info.json`; may raise ValueError."""
    split_hash = settings.get("split_hash", STABLE)
    if split_hash not in SPLIT_HASHES:
      raise ValueError(f"the split hash {split_hash!r} is not one of {', '.join(SPLIT_HASHES)}")
    return cls(
      testing=float(settings["testing_percentage"]),
      validation=float(settings.get("validation_percentage", 0.0)),
      legacy_root=str(settings["split_root"]) if split_hash == LEGACY else None,
    )

  def to_settings(self) -> dict[str, float | str]:
    """Inverse of `from_settings`."""
    percentages: dict[str, float | str] = {"testing_percentage": self.testing, "validation_percentage": self.validation}
    if self.legacy_root is None:
      return percentages
    return {**percentages, "split_hash": LEGACY, "split_root": self.legacy_root}

  def split_of(self, key: str, given: str | None = None) -> str:
    """Returns the split of an image.

    `given` is its split in the data set (a folder `training/` or `testing/`), or None. Testing and validation are kept;
    training images may still be drawn for validation.
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
    # Starting at `testing`: the validation images are then the same with and without `given` splits.
    return VALIDATION if self.testing <= percent < self.testing + self.validation else TRAINING

  def _legacy_split(self, path: str) -> str:
    """Implements `create_image_lists` of TensorFlow Hub's `examples/image_retraining/retrain.py`.

    SHA-1 of the path up to the first `_nohash_`, modulo 2**27, in percent of 2**27 - 1; validation comes first.
    """
    grouped = re.sub("_nohash_.*$", "", path)  # as in retrain.py, does not cut names with a line break
    number = int.from_bytes(hashlib.sha1(grouped.encode(), usedforsecurity=False).digest(), "big")
    percent = number % _LEGACY_BUCKETS * (100.0 / (_LEGACY_BUCKETS - 1))
    if percent < self.validation:
      return VALIDATION
    return TESTING if percent < self.testing + self.validation else TRAINING
