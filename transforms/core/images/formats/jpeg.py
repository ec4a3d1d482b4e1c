"""JPEG (ITU T.81): its segments and scans."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from beam_retrain.transforms.core.images.formats.info import Fault, ImageInfo, check_size, damaged
from beam_retrain.transforms.core.records.quarantine import Reason

START = b"\xff\xd8\xff"
DEFAULT_QUALITY = 75  # Pillow's own

_JFIF = b"\xff\xd8\xff\xe0\0\x10JFIF\0"
_SKIPPED = (0xFFC4, 0xFFDD, 0xFFFE)  # Huffman tables, restart interval, comment
_DQT_BYTES = 65  # of one quantization table of 8-bit numbers, with the byte before it
_PIXELS_PER_BYTE = 1024  # at most: an empty block of 8 x 8 takes half a bit or more
_END = b"\xff\xd9"
_ARITHMETIC = re.compile(rb"\xff[\xc9\xca]")  # SOF9, SOF10: a coder that has no such bound
_SOF2, _SOF10, _EOI, _SOS, _DRI, _TEM = 0xC2, 0xCA, 0xD9, 0xDA, 0xDD, 0x01
_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, and SOF55 of JPEG-LS
_DECODED = (0xC0, 0xC1, _SOF2, 0xC9, _SOF10)  # sequential and progressive; the others are lossless or hierarchical
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # after a scan's data; restart markers are part of it
_INTERVAL, _SMALL = b"\xff\xdd\0\4", 1 << 16  # a search in few bytes is faster than a walk through segments
_RESTART_OR_END = re.compile(rb"\xff[\xd0-\xd7\xd9]")

_MAX_SEGMENTS = 1 << 16
_TOO_MANY_SEGMENTS = Fault(Reason.TOO_LARGE, f"a JPEG of more than {_MAX_SEGMENTS} segments: save it again")
_MAX_SAMPLES = 300_000_000
"""What a file's scans may add up to: an empty one takes 6 ns per sample."""
_PASSES = 8
"""Or so many over each sample: libjpeg's own script for progressive files makes six at most."""


class _Layer(NamedTuple):
  number: int
  samples: int


def probe_plain(encoded: bytes) -> ImageInfo | None:
  """Reads a baseline JFIF file of one scan without metadata, else None.

  T.81, B.1 and B.2: the segments up to the scan.
  """
  info, layers = None, 0
  start = 20
  for _ in range(_MAX_SEGMENTS):
    if start + 4 > len(encoded):
      break
    marker, size = struct.unpack_from(">HH", encoded, start)
    inside, start = start + 4, start + 2 + size
    if size < 2 or start > len(encoded):
      return None
    if marker == 0xFFDA:  # the scan
      return info if size > 2 and encoded[inside] == layers else None
    if marker == 0xFFC0 and size >= 8 and info is None:
      depth, height, width, layers = struct.unpack_from(">BHHB", encoded, inside)
      if depth != 8 or layers not in (1, 3) or size != 8 + 3 * layers or not (height and width):
        return None
      info = ImageInfo("jpeg", height, width)
    elif marker == 0xFFDB and (size - 2) % _DQT_BYTES == 0:
      if max(encoded[inside:start:_DQT_BYTES], default=0) > 0x0F:  # a table of 16-bit numbers
        return None
    elif marker not in _SKIPPED:
      return None
  return None


def is_plain(encoded: bytes) -> bool:
  return encoded.startswith(_JFIF)


def check_data(info: ImageInfo, encoded: bytes) -> ImageInfo | Fault:
  """Checks markers and length: whether there are data for all pixels."""
  if len(encoded) * _PIXELS_PER_BYTE < info.height * info.width and not _ARITHMETIC.search(encoded):
    return Fault(Reason.TRUNCATED, f"{len(encoded)} bytes cannot hold {info.width} x {info.height} pixels")
  if (len(encoded) > _SMALL or _INTERVAL in encoded) and _lacks_parts(encoded):
    return Fault(Reason.TRUNCATED, "the data end before the last pixel, or a part of them is missing")
  return info


def _lacks_parts(encoded: bytes) -> bool:
  """Whether a scan has fewer restart markers than its interval asks for.

  T.81, A.2 and E.1.4: one behind each interval of units but the last. A decoder fills what a file lost that was cut at
  such a marker, and closed, with grey.
  """
  frame, progressive = b"", False
  interval = wanted = data = 0
  for marker, start, end in segments(encoded):
    if wanted and len(_RESTART_OR_END.findall(encoded, data, start - 2)) < wanted:
      return True
    if end > len(encoded):
      break
    wanted = 0
    if marker == _DRI:
      interval = int.from_bytes(encoded[start + 2 : end])
    elif marker in _FRAMES and not frame and end >= start + 11:
      frame, progressive = encoded[start + 2 : end], marker in (_SOF2, _SOF10)
    elif marker == _SOS and frame:
      numbers = encoded[start + 3 : end - 3 : 2]
      wanted, data = (-(-_units(frame, numbers) // interval) - 1 if interval else 0), end
      if not progressive and len(numbers) == frame[5]:  # the only scan that a decoder reads
        found = [*_RESTART_OR_END.findall(encoded, data), _END] if wanted else [_END]
        return found.index(_END) < wanted
  return False


def _units(frame: bytes, numbers: bytes) -> int:
  """Returns how many units a scan of some components codes."""
  height, width = struct.unpack_from(">HH", frame, 1)
  ratios = {frame[at]: (frame[at + 1] >> 4, frame[at + 1] & 0x0F) for at in range(6, len(frame) - 2, 3)}
  across, down = (max(sides) or 1 for sides in zip(*ratios.values(), strict=True))
  if len(numbers) == 1:  # blocks of one component
    part_across, part_down = ratios.get(numbers[0], (0, 0))
    width, height, across, down = -(-width * part_across // across), -(-height * part_down // down), 1, 1
  return -(-width // (8 * across)) * -(-height // (8 * down))


def probe(encoded: bytes, max_pixels: int) -> ImageInfo | Fault:
  rest = segments(encoded)
  for count, (marker, start, end) in enumerate(rest):
    if count > _MAX_SEGMENTS:
      return _TOO_MANY_SEGMENTS
    if end > len(encoded) or marker in (_SOS, _EOI):
      break
    if marker in _FRAMES:
      return _probe_frame(encoded, marker, start, end, rest, max_pixels)
  return damaged("it has no frame")


def _probe_frame(
  encoded: bytes, marker: int, start: int, end: int, rest: Iterator[tuple[int, int, int]], max_pixels: int
) -> ImageInfo | Fault:
  if end < start + 8:
    return damaged("its frame is too short")
  depth, height, width, count = struct.unpack_from(">BHHB", encoded, start + 2)
  if marker not in _DECODED or depth != 8 or count not in (1, 3, 4):
    what = f"of {count} layers of {depth} bits" if marker in _DECODED else "of a lossless or hierarchical kind"
    return Fault(Reason.UNSUPPORTED, f"a JPEG {what}: save it as PNG")
  if not (height and width) or end != start + 8 + 3 * count:
    return damaged("its frame has no pixels")
  if too_large := check_size(height, width, max_pixels):
    return too_large
  fields = [encoded[at : at + 2] for at in range(start + 8, end, 3)]
  across, down = max(field[1] >> 4 for field in fields), max(field[1] & 0x0F for field in fields)
  layers = [
    _Layer(number, -(-width * (ratio >> 4) // (across or 1)) * -(-height * (ratio & 0x0F) // (down or 1)))
    for number, ratio in fields
  ]
  too_many = _check_scans(encoded, marker in (_SOF2, _SOF10), layers, rest)
  return too_many or check_data(ImageInfo("jpeg", height, width), encoded)


def _check_scans(
  encoded: bytes, progressive: bool, layers: list[_Layer], rest: Iterator[tuple[int, int, int]]
) -> Fault | None:
  """Bounds how often a decoder goes through the pixels."""
  by_number = dict(layers)
  all_samples = sum(samples for _, samples in layers)
  allowed, seen, scans = max(_MAX_SAMPLES, _PASSES * all_samples), 0, 0
  for count, (marker, start, end) in enumerate(rest):
    if count > _MAX_SEGMENTS:
      return _TOO_MANY_SEGMENTS
    if marker == _SOS and end <= len(encoded):
      scans += 1
      if not progressive and end - start == 6 + 2 * len(layers):
        return None  # the only scan that a decoder reads
      seen += sum(by_number.get(number, 0) for number in encoded[start + 3 : end - 3 : 2])
    if seen > allowed:
      return Fault(Reason.TOO_LARGE, f"its scans hold more than the {allowed} samples allowed: save it again")
  return None if scans else Fault(Reason.TRUNCATED, "the file ends before its first pixel")


def segments(encoded: bytes) -> Iterator[tuple[int, int, int]]:
  """Yields marker, start and end of the segments (T.81, B.1.1).

  `start` is that of the length, behind the marker; the last may be cut.
  """
  start = 2
  while match := _MARKER.search(encoded, start):
    marker, start = encoded[match.end() - 1], match.end()
    size = 0 if marker in (_EOI, _TEM) else max(2, int.from_bytes(encoded[start : start + 2]))
    yield marker, start, start + size
    if marker == _EOI:
      return
    start += size


def scans_end(encoded: bytes) -> int:
  """Returns where the data of the last scan end, 0 if nowhere."""
  return next((start - 2 for marker, start, _ in segments(encoded) if marker == _EOI), 0)


def lacks_scans(encoded: bytes) -> bool:
  """Whether a progressive JPEG's scans leave out bits of coefficients.

  Few encoders do, as T.81 allows; a file that was cut short has lost the last ones.
  """
  missing: set[tuple[int, int]] = set()
  for marker, start, end in segments(encoded):
    if end > len(encoded):
      break
    if marker in _FRAMES:
      if marker != _SOF2:
        return False
      missing = {(encoded[at], k) for at in range(start + 8, end, 3) for k in range(64)}
    elif marker == _SOS and start + 6 <= end:
      first, last, bits = encoded[end - 3 : end]
      if not bits & 0x0F:  # down to the lowest bit
        missing -= {(encoded[at], k) for at in range(start + 3, end - 3, 2) for k in range(first, last + 1)}
  return bool(missing)
