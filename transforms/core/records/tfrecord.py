"""Reads and writes TFRecord framing, over any binary file object.

Format (TensorFlow, `tensorflow/core/lib/io/record_writer.h`), little-endian: uint64 length, uint32 masked CRC-32C of
the length, the payload, uint32 masked CRC-32C of the payload. Masking (rotated right by 15 bits, plus 0xa282ead8) keeps
the CRC sound for data that contains CRCs.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator
from typing import BinaryIO

import google_crc32c

from beam_retrain.transforms.core.errors import InputError

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_MAX_RECORD_BYTES = 1 << 31  # of a protocol buffer
FRAME_BYTES = _HEADER.size + _FOOTER.size
"""Overhead of a record over its payload."""
_REMEDY = ": write it again."


class DamagedError(InputError):
  """A file of records is damaged, or ends too early."""

  @property
  def cause(self) -> str:
    """The message without the remedy, for callers that do without the file."""
    return str(self).removesuffix(_REMEDY)


def masked_crc32c(data: bytes) -> int:
  """Returns the masked CRC-32C of `data`, 0..2**32-1."""
  crc = google_crc32c.value(data)
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(payload: bytes) -> bytes:
  """Returns `payload` as one TFRecord, 16 bytes longer."""
  length = struct.pack("<Q", len(payload))
  return b"".join((length, _FOOTER.pack(masked_crc32c(length)), payload, _FOOTER.pack(masked_crc32c(payload))))


def read_records(file: BinaryIO, name: str) -> Iterator[bytes]:
  """Yields the payloads of a TFRecord file, opened at its start.

  `name` is for errors. Raises DamagedError if the file ends inside a record, or a checksum does not match.
  """
  return (payload for _, payload in locate_records(file, name))


def locate_records(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
  """Yields (start byte, payload) of each record; otherwise like `read_records`."""
  position = 0
  while (payload := _read_one(file, name, position)) is not None:
    yield position, payload
    position += FRAME_BYTES + len(payload)


def read_record_at(file: BinaryIO, position: int, name: str) -> bytes:
  """Returns the payload of the record at a byte from `locate_records`."""
  file.seek(position)
  payload = _read_one(file, name, position)
  if payload is None:
    raise DamagedError(f"{name} ends before byte {position}, where a record was{_REMEDY}")
  return payload


def pick_records(file: BinaryIO, positions: Collection[int], name: str) -> Iterator[bytes]:
  """Yields the payloads of records by their numbers, 0 for the first.

  In the order of the file; of the records between, only the lengths are read. Raises DamagedError as `read_records`,
  and InputError if the file has fewer records.
  """
  start, wanted = 0, set(positions)
  for number in range(max(wanted, default=-1) + 1):
    if number in wanted:
      payload = _read_one(file, name, start)
      length = None if payload is None else len(payload)
      if payload is not None:
        yield payload
    elif (length := _read_length(file, name, start)) is not None:
      file.seek(length + _FOOTER.size, os.SEEK_CUR)
    if length is None:
      raise InputError(f"{name} has only {number} records, fewer than when the job began: run the command again.")
    start += FRAME_BYTES + length


def _read_one(file: BinaryIO, name: str, position: int) -> bytes | None:
  """Returns the payload at `position`, the current byte; None at the end."""
  length = _read_length(file, name, position)
  if length is None:
    return None
  payload = file.read(length)
  footer = file.read(_FOOTER.size)
  if len(payload) < length or len(footer) < _FOOTER.size:
    raise DamagedError(f"{name} ends inside the record that starts at byte {position}{_REMEDY}")
  if masked_crc32c(payload) != _FOOTER.unpack(footer)[0]:
    raise DamagedError(f"{name} is damaged: the record at byte {position} has a wrong data checksum{_REMEDY}")
  return payload


def _read_length(file: BinaryIO, name: str, position: int) -> int | None:
  header = file.read(_HEADER.size)
  if not header:
    return None
  if len(header) < _HEADER.size:
    raise DamagedError(f"{name} ends inside the record that starts at byte {position}{_REMEDY}")
  length, length_crc = _HEADER.unpack(header)
  if masked_crc32c(header[:8]) != length_crc:
    raise DamagedError(f"{name} is damaged: the record at byte {position} has a wrong length checksum{_REMEDY}")
  if length > _MAX_RECORD_BYTES:  # no writer's: memory for it is taken before it is read
    raise DamagedError(f"{name} is damaged: the record at byte {position} claims {length} bytes{_REMEDY}")
  return int(length)
