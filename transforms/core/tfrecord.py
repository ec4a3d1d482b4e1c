"""TFRecord framing over any binary file object.

Format (TensorFlow, `tensorflow/core/lib/io/record_writer.h`), little-endian: uint64 length, uint32 masked CRC-32C of
the length, the payload, uint32 masked CRC-32C of the payload. The CRC is masked so that a CRC of data that holds CRCs
stays sound: rotated right by 15 bits, plus 0xa282ead8.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c

from transforms.core.errors import InputError

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


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
    InputError: the file ends inside a record, or a checksum does not fit; names the file and the byte.
  """
  position = 0
  while header := file.read(_HEADER.size):
    if len(header) < _HEADER.size:
      raise InputError(f"{name} ends inside the record that starts at byte {position}: write it again.")
    length, length_crc = _HEADER.unpack(header)
    if masked_crc32c(header[:8]) != length_crc:
      raise InputError(f"{name} is damaged: the record at byte {position} has a wrong length checksum: write it again.")
    payload = file.read(length)
    footer = file.read(_FOOTER.size)
    if len(payload) < length or len(footer) < _FOOTER.size:
      raise InputError(f"{name} ends inside the record that starts at byte {position}: write it again.")
    if masked_crc32c(payload) != _FOOTER.unpack(footer)[0]:
      raise InputError(f"{name} is damaged: the record at byte {position} has a wrong data checksum: write it again.")
    yield payload
    position += _HEADER.size + length + _FOOTER.size
