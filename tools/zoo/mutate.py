"""Makes damaged and strange images of the zoo's, each from a number alone."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from functools import cache

from tools.zoo.formats.png import START as PNG_START
from tools.zoo.table import VARIANTS, Variant

_MOST_BYTES = 100_000  # larger files of the zoo are left out: they take time and have little more to change
_HEADER = 64
_NUMBERS = (0, 1, 2, 7, 8, 16, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_CHANGES_AT_ONCE = (1, 1, 1, 2, 3)


def mutant(seed: int, number: int) -> tuple[Variant, bytes]:
  """Returns the variant that was changed, and the bytes."""
  rng = random.Random(f"{seed}-{number}")
  variant = rng.choice(rng.choice(_by_format()))
  data = variant.made.data
  for _ in range(rng.choice(_CHANGES_AT_ONCE)):
    data = rng.choice(_CHANGES)(rng, data, variant)
  if data.startswith(PNG_START) and rng.random() < 0.7:  # else all but a few end at the first checksum
    data = _with_checksums(data)
  return variant, data


@cache
def _by_format() -> list[list[Variant]]:
  """Returns variants of the five formats that are decoded, and all others together."""
  formats = ("JPEG", "PNG", "GIF", "BMP", "WebP")
  small = [variant for variant in VARIANTS if len(variant.made.data) <= _MOST_BYTES]
  groups = [[variant for variant in small if variant.format == format] for format in formats]
  used = [[variant for variant in group if variant.reason is None] for group in groups]
  return [*used, *used, *used, *groups, [variant for variant in small if variant.format not in formats]]


def _place(rng: random.Random, data: bytes) -> int:
  """Returns a place, every second time in the header."""
  end = min(len(data), _HEADER) if rng.random() < 0.5 else len(data)
  return rng.randrange(max(end, 1))


def _flip(rng: random.Random, data: bytes, _: Variant) -> bytes:
  at = _place(rng, data)
  return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :] if data else data


def _byte(rng: random.Random, data: bytes, _: Variant) -> bytes:
  at = _place(rng, data)
  return data[:at] + bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))]) + data[at + 1 :]


def _number(rng: random.Random, data: bytes, _: Variant) -> bytes:
  at, number, order = _place(rng, data), rng.choice(_NUMBERS), rng.choice("<>")
  packed = struct.pack(f"{order}I", number) if rng.random() < 0.5 else struct.pack(f"{order}H", number & 0xFFFF)
  return data[:at] + packed + data[at + len(packed) :]


def _cut(rng: random.Random, data: bytes, _: Variant) -> bytes:
  return data[: rng.randrange(len(data) + 1)]


def _leave_out(rng: random.Random, data: bytes, _: Variant) -> bytes:
  at = _place(rng, data)
  return data[:at] + data[at + rng.choice((1, 2, 4, 16, 100)) :]


def _repeat(rng: random.Random, data: bytes, _: Variant) -> bytes:
  at, size = _place(rng, data), rng.choice((1, 4, 16, 100, 1000))
  return data[:at] + data[at : at + size] * rng.choice((2, 3, 20)) + data[at + size :]


def _insert(rng: random.Random, data: bytes, _: Variant) -> bytes:
  at = _place(rng, data)
  return data[:at] + rng.randbytes(rng.choice((1, 2, 4, 20))) + data[at:]


def _cross(rng: random.Random, data: bytes, variant: Variant) -> bytes:
  """Goes on with another image of the same format."""
  other = rng.choice([other for other in VARIANTS if other.format == variant.format]).made.data
  at = rng.random()
  return data[: int(len(data) * at)] + other[int(len(other) * at) :]


_CHANGES: tuple[Callable[[random.Random, bytes, Variant], bytes], ...] = (
  _flip,
  _flip,
  _byte,
  _number,
  _number,
  _cut,
  _leave_out,
  _repeat,
  _insert,
  _cross,
)


def _with_checksums(data: bytes) -> bytes:
  """Rights the checksums of a PNG's chunks."""
  made, start = [PNG_START], len(PNG_START)
  while start + 12 <= len(data):
    end = start + 8 + int.from_bytes(data[start : start + 4])
    if end + 4 > len(data):
      break
    made += [data[start:end], struct.pack(">I", zlib.crc32(data[start + 4 : end]))]
    start = end + 4
  return b"".join((*made, data[start:]))
