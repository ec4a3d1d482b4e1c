"""The digest of the images that a model was trained on: `trained_on.bin`.

It holds the start of the SHA-256 of each training and validation image, sorted and without duplicates. All integers are
uint64, little-endian:

| bytes | what                                                               |
|-------|--------------------------------------------------------------------|
| 8     | `MAGIC`                                                            |
| 8     | W: bytes of each start, 8, or 6 for more than `MOST_LONG` images   |
| 8     | N: number of starts                                                |
| N * W | the starts, ascending                                              |
| 32    | SHA-256 of all bytes before it                                     |

An image that was trained on is always found. Another one is taken for it with a probability of N / 256 ** W: at most
1.5e-14 with 8 bytes, and 3.6e-8 with 6 bytes of 10 million images.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from beam_retrain.transforms.core.errors import InputError

TRAINED_ON_FILE = "trained_on.bin"
MAGIC = b"BRSEEN1\n"
MOST_LONG = 1 << 18
_LONG, _SHORT = 8, 6
_HEADER = len(MAGIC) + 16


def starts_of(digests: Sequence[str]) -> np.ndarray:
  """Returns the first 8 bytes of SHA-256 hex digests: uint64 [n].

  Raises ValueError if one is not a digest, for example empty.
  """
  starts = np.frombuffer(bytes.fromhex("".join(digest[:16] for digest in digests)), ">u8")
  if len(starts) != len(digests):
    raise ValueError("not a SHA-256")
  return starts.astype(np.uint64)


def _sorted_once(values: np.ndarray) -> np.ndarray:
  values = np.sort(values)  # `np.unique` hashes, which takes ten times as long
  return values[np.append(True, values[1:] != values[:-1])[: len(values)]]


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedOn:
  """Images by the first `width` bytes of their SHA-256: uint64 [N], ascending."""

  starts: np.ndarray
  width: int

  @classmethod
  def make(cls, starts: np.ndarray) -> TrainedOn:
    """Returns the digest of images, given what `starts_of` returns for them."""
    unique = _sorted_once(starts)
    width = _LONG if len(unique) <= MOST_LONG else _SHORT
    return cls(_sorted_once(unique >> np.uint64(64 - 8 * width)), width)

  def __contains__(self, sha256: str) -> bool:
    start = np.uint64(int(sha256[: 2 * self.width], 16))
    place = self.starts.searchsorted(start)
    return bool(place < len(self.starts) and self.starts[place] == start)

  def encode(self) -> bytes:
    """Returns the contents of `trained_on.bin`."""
    starts = self.starts.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - self.width :]
    header = b"".join(number.to_bytes(8, "little") for number in (self.width, len(self.starts)))
    data = MAGIC + header + starts.tobytes()
    return data + hashlib.sha256(data).digest()

  @classmethod
  def decode(cls, data: bytes, path: str) -> TrainedOn:
    """Inverse of `encode`; raises InputError if the file is damaged."""
    whole = memoryview(data)
    width, count = (int.from_bytes(data[place : place + 8], "little") for place in (len(MAGIC), len(MAGIC) + 8))
    is_whole = data[: len(MAGIC)] == MAGIC and hashlib.sha256(whole[:-32]).digest() == data[-32:]
    if not is_whole or not 1 <= width <= 8 or len(data) != _HEADER + count * width + 32:
      raise InputError(f"{path} is damaged: run `beam-retrain train` again.")
    padded = np.zeros((count, 8), np.uint8)
    padded[:, 8 - width :] = np.frombuffer(data, np.uint8, count * width, _HEADER).reshape(count, width)
    return cls(padded.view(">u8").ravel().astype(np.uint64), width)
