"""TFRecord framing over any binary file object.

Format (TensorFlow, `tensorflow/core/lib/io/record_writer.h`), little-endian: uint64 length, uint32 masked CRC-32C of
the length, the payload, uint32 masked CRC-32C of the payload. The CRC is masked so that a CRC of data that holds CRCs
stays sound: rotated right by 15 bits, plus 0xa282ead8.
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
FRAME_BYTES = _HEADER.size + _FOOTER.size
"""How much longer a record is than its payload."""
_REMEDY = ": write it again."


class DamagedError(InputError):
  """A file of records cannot be read from some byte on."""

  @property
  def cause(self) -> str:
    """The sentence without its remedy, for whoever can do without the file."""
    return str(self).removesuffix(_REMEDY)


def masked_crc32c(data: bytes) -> int:
  """Returns the masked CRC-32C of `data`, 0..2**32-1."""
  crc = google_crc32c.value(data)
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(payload: bytes) -> bytes:
  """Returns `payload` as one TFRecord: 16 bytes longer."""
  length = struct.pack("<Q", len(payload))
  return b"".join((length, _FOOTER.pack(masked_crc32c(length)), payload, _FOOTER.pack(masked_crc32c(payload))))


def read_records(file: BinaryIO, name: str) -> Iterator[bytes]:
  """Yields the payloads of a TFRecord file, one at a time.

  Args:
    file: opened for reading bytes, at its start.
    name: what to call the file in an error.

  Raises:
    DamagedError: the file ends inside a record, or a checksum does not fit; names the file and the byte.
  """
  for _, payload in locate_records(file, name):
    yield payload


def locate_records(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
  """Yields (byte at which the record starts, payload) for each record; otherwise as `read_records`."""
  position = 0
  while (payload := _read_one(file, name, position)) is not None:
    yield position, payload
    position += FRAME_BYTES + len(payload)


def read_record_at(file: BinaryIO, position: int, name: str) -> bytes:
  """Returns the payload of the record that starts at a byte of a TFRecord file.

  Args:
    file: opened for reading bytes; can seek.
    position: what `locate_records` said.
    name: what to call the file in an error.

  Raises:
    DamagedError: as `read_records`; also where the file ends at or before `position`.
  """
  file.seek(position)
  payload = _read_one(file, name, position)
  if payload is None:
    raise DamagedError(f"{name} ends before byte {position}, where a record was{_REMEDY}")
  return payload


def pick_records(file: BinaryIO, positions: Collection[int], name: str) -> Iterator[bytes]:
  """Yields the payloads of some records, by their numbers, 0 for the first, in the order of the file.

  The records between are passed over; of them, only the lengths are read.

  Raises:
    DamagedError: as `read_records`.
    InputError: the file has fewer records.
  """
  start, wanted = 0, set(positions)
  for number in range(max(wanted, default=-1) + 1):
    if number in wanted:
      payload = _read_one(file, name, start)
      length = None if payload is None else len(payload)
      if payload is not None:
        yield payload
    else:
      length = _read_length(file, name, start)
      if length is not None:
        file.seek(length + _FOOTER.size, os.SEEK_CUR)
    if length is None:
      raise InputError(f"{name} ends after {number} records, it had more when the job began.")
    start += FRAME_BYTES + length


def _read_one(file: BinaryIO, name: str, position: int) -> bytes | None:
  """Returns the payload of the record at the file's current byte, which is `position`; None at the end of the file."""
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
  return int(length)
