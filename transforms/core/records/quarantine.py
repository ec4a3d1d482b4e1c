"""Where bad inputs go, with a reason: one entry per input, none lost, none in the way of another."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterator, Sequence

MAX_PIXELS = 50_000_000
"""Default bound on height x width, above which an image is `TOO_LARGE`: 150 MB once decoded to RGB."""


class Reason(enum.StrEnum):
  """Why an input is in the quarantine. The list is fixed: people count by it."""

  EMPTY = "EMPTY"  # 0 bytes
  TRUNCATED = "TRUNCATED"  # starts like an image, ends too early or is damaged inside
  NOT_AN_IMAGE = "NOT_AN_IMAGE"  # neither JPEG, PNG, BMP nor GIF
  TOO_LARGE = "TOO_LARGE"  # more pixels than allowed: a decompression bomb, or a scan that wants scaling down
  UNSUPPORTED = "UNSUPPORTED"  # an image, in a variant that the exported model could not decode either
  BAD_LABEL = "BAD_LABEL"  # label outside of the label list
  UNREADABLE = "UNREADABLE"  # listed, but could not be opened
  MODEL_ERROR = "MODEL_ERROR"  # the trunk or the head refused it, or gave values that are not finite
  CONFLICTING_LABELS = "CONFLICTING_LABELS"  # --on_leak drop: the same bytes are there with another label
  LEAKED = "LEAKED"  # --on_leak drop: a training image whose bytes are in testing, too


DROPPED = frozenset({Reason.CONFLICTING_LABELS, Reason.LEAKED})
"""Reasons of sound images that the user asked to leave out: no loss to accept, they are not in a `bad_fraction`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Quarantined:
  """One input that was left out.

  Attributes:
    key: the input's key.
    size_bytes: its size as found.
    reason: why, from the fixed list.
    detail: one sentence for people.
    split: the split it would have been in.
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

  # As an input of a shard (see `shards.Input`): an image that was found bad before its shard was worked.

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
