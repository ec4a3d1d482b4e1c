"""Which split an image belongs to: a salted, stable hash of its key, so that adding images moves none.

As in `retrain.py`, a name is hashed only up to `_nohash_`, which keeps near-duplicates (`a_nohash_1.jpg`,
`a_nohash_2.jpg`) together, and percentages are of all images. Unlike there, the key is relative to the data set, so
that `./imgs` and `imgs/` split alike, and the extension does not count, so that converting JPG to PNG moves nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os

from transforms.core.schema import TESTING, TRAINING, VALIDATION

_SALT = b"beam-retrain-split-1:"
_BUCKETS = 1 << 32


def stable_hash(key: str, salt: bytes) -> int:
  """Returns 0..2**64-1, the same in every process and on every machine."""
  return int.from_bytes(hashlib.sha256(salt + key.encode()).digest()[:8], "big")


@dataclasses.dataclass(frozen=True, slots=True)
class SplitPercentages:
  """How many of a data set's images each split gets, in percent of all; what is left is training.

  Raises:
    ValueError: a percentage is below 0, or nothing is left to train on.
  """

  testing: float = 10.0
  validation: float = 10.0

  def __post_init__(self) -> None:
    if self.testing < 0 or self.validation < 0 or self.testing + self.validation >= 100:
      raise ValueError(
        f"testing {self.testing:g} % and validation {self.validation:g} % leave nothing to train on:"
        " both must be at least 0, and their sum below 100"
      )

  def split_of(self, key: str, given: str | None = None) -> str:
    """Returns the split of an image.

    Args:
      key: the image's key.
      given: the split that the data set itself puts the image in (a folder `training/` or `testing/`), or None. An
        image given as testing stays there; one given as training can still be drawn for validation.
    """
    if given == TESTING:
      return TESTING
    name = os.path.splitext(key)[0].split("_nohash_")[0]
    percent = stable_hash(name, _SALT) % _BUCKETS * 100 / _BUCKETS
    if given is None and percent < self.testing:
      return TESTING
    # The interval does not start at 0, so that the validation images of a data set do not depend on whether it brings
    # its own testing images.
    return VALIDATION if self.testing <= percent < self.testing + self.validation else TRAINING
