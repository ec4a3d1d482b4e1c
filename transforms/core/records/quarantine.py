"""Bad inputs, each with the reason it was left out."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterator, Sequence

MAX_PIXELS = 50_000_000
"""Default limit on height x width, above which an image is `TOO_LARGE`: 150 MB decoded to RGB."""

MAX_FILE_BYTES = 1 << 28
"""An image file above 256 MB is not read."""


class Reason(enum.StrEnum):
  """Why an input was quarantined: a fixed list, to count by."""

  EMPTY = "EMPTY"  # 0 bytes
  TRUNCATED = "TRUNCATED"  # starts like an image, ends too early or is damaged inside
  NOT_AN_IMAGE = "NOT_AN_IMAGE"  # neither JPEG, PNG, BMP, GIF nor WebP, nor a format that has a name
  TOO_LARGE = "TOO_LARGE"  # more pixels, frames or data than allowed: a decompression bomb, or a scan to be scaled down
  UNSUPPORTED = "UNSUPPORTED"  # an image, in a format or variant that the exported model could not decode either
  BAD_LABEL = "BAD_LABEL"  # label not in the label list
  UNREADABLE = "UNREADABLE"  # listed, but could not be opened, or is not what `convert` wrote
  MODEL_ERROR = "MODEL_ERROR"  # the trunk or the head failed, or gave values that are not finite
  CONFLICTING_LABELS = "CONFLICTING_LABELS"  # --on_leak drop: identical images have different labels
  LEAKED = "LEAKED"  # --on_leak drop: a training image is identical to a testing image
  NO_CLASS = "NO_CLASS"  # --corrections: an image of no class


DROPPED = frozenset({Reason.CONFLICTING_LABELS, Reason.LEAKED, Reason.NO_CLASS})
"""Reasons for leaving out sound images at the user's request: not part of `bad_fraction`."""


class OnLeak(enum.StrEnum):
  """How to handle leaks: the values of `--on_leak`."""

  WARN = "warn"  # list and count them
  DROP = "drop"  # also leave out all copies with different labels, and the training copies of testing images
  FAIL = "fail"  # stop before the trunk runs


@dataclasses.dataclass(frozen=True, slots=True)
class Quarantined:
  """An input that was left out.

  `size_bytes` is its size as read, `detail` a sentence for the user, `split` the one it would have been in.
  """

  key: str
  size_bytes: int
  reason: Reason
  detail: str
  split: str = ""

  def in_split(self, split: str) -> Quarantined:
    return dataclasses.replace(self, split=split)

  def to_json(self) -> dict[str, object]:
    return dataclasses.asdict(self)

  @classmethod
  def too_large(cls, key: str, size_bytes: int, split: str = "") -> Quarantined:
    return cls(key, size_bytes, Reason.TOO_LARGE, f"more than the {MAX_FILE_BYTES} bytes allowed of a file", split)

  # Implements `shards.Input`, for images found bad while planning.

  def count_images(self) -> int:
    return 1

  def names(self, split: str) -> Iterator[tuple[str, None]]:
    yield self.key, None

  def read(self, split: str) -> Iterator[Quarantined]:
    yield self.in_split(split)

  def read_where(self, split: str, is_wanted: Callable[[str], bool]) -> Iterator[Quarantined]:
    return iter(())

  def pick(self, numbers: Sequence[int]) -> Iterator[Quarantined]:
    yield self
