"""TFRecord framing: golden bytes, a second reader, and one corruption per field."""

from __future__ import annotations

import io
import struct

import pytest
import tensorflow as tf

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.tfrecord import (
  frame,
  locate_records,
  masked_crc32c,
  pick_records,
  read_record_at,
  read_records,
)

# with tf.io.TFRecordWriter(path) as writer: writer.write(b"beam"); writer.write(b"")
_GOLDEN = bytes.fromhex(
  "0400000000000000 42455204 6265616d b2a20abb"  # length, its checksum, payload, its checksum
  "0000000000000000 29039807          d8ea82a2"
)
_PAYLOADS = [b"beam", b"", b"\x00" * 1000, bytes(range(256))]


def _read(data: bytes) -> list[bytes]:
  return list(read_records(io.BytesIO(data), "some.tfrecord"))


def test_golden_bytes():
  assert frame(b"beam") + frame(b"") == _GOLDEN


def test_checksum_of_the_published_test_vector():
  # RFC 3720, B.4: the CRC-32C of 32 zero bytes is 0x8a9136aa; masked as record_writer.h does.
  crc = 0x8A9136AA
  rotated = (crc >> 15) | (crc << 17) & 0xFFFFFFFF
  assert masked_crc32c(b"\x00" * 32) == (rotated + 0xA282EAD8) % 2**32


def test_a_record_is_16_bytes_longer_than_its_payload():
  assert [len(frame(payload)) - len(payload) for payload in _PAYLOADS] == [16, 16, 16, 16]


def test_reads_what_it_wrote():
  assert _read(b"".join(map(frame, _PAYLOADS))) == _PAYLOADS


def test_tf_data_reads_what_we_write(tmp_path):
  path = tmp_path / "ours.tfrecord"
  path.write_bytes(b"".join(map(frame, _PAYLOADS)))
  assert [record.numpy() for record in tf.data.TFRecordDataset(str(path))] == _PAYLOADS


def test_reads_what_tensorflow_writes(tmp_path):
  path = str(tmp_path / "theirs.tfrecord")
  with tf.io.TFRecordWriter(path) as writer:
    for payload in _PAYLOADS:
      writer.write(payload)
  with open(path, "rb") as file:
    assert list(read_records(file, path)) == _PAYLOADS


def test_an_empty_file_has_no_records():
  assert _read(b"") == []


@pytest.mark.parametrize(
  ("position", "said"),
  [
    (0, "wrong length checksum"),  # the length's lowest byte
    (7, "wrong length checksum"),  # its highest: 2**56 bytes are never read
    (8, "wrong length checksum"),  # the length's checksum
    (12, "wrong data checksum"),  # the payload
    (16, "wrong data checksum"),  # the payload's checksum
  ],
)
def test_one_wrong_bit_in_any_field_is_found(position, said):
  damaged = bytearray(_GOLDEN)
  damaged[position] ^= 1
  with pytest.raises(InputError, match=rf"^some\.tfrecord .* byte 0 .*{said}"):
    _read(bytes(damaged))


@pytest.mark.parametrize("size", range(1, 20))
def test_a_file_that_ends_inside_its_first_record_is_named(size):
  with pytest.raises(InputError, match=r"^some\.tfrecord ends inside the record that starts at byte 0"):
    _read(_GOLDEN[:size])


def test_records_before_the_damage_are_given_and_the_damaged_one_is_located():
  records = read_records(io.BytesIO(_GOLDEN[:-1]), "some.tfrecord")
  assert next(records) == b"beam"
  with pytest.raises(InputError, match="starts at byte 20"):
    next(records)


@pytest.mark.parametrize(("claimed", "said"), [(5, "ends inside"), (1 << 40, "claims 1099511627776 bytes")])
def test_a_length_with_a_sound_checksum_beyond_the_end_is_found(claimed, said):
  length = struct.pack("<Q", claimed)
  with pytest.raises(InputError, match=said):
    _read(length + struct.pack("<I", masked_crc32c(length)) + b"beam")


_PAYLOADS = [b"first", b"", b"third" * 100, b"4"]


def test_each_record_can_be_read_by_its_byte():
  file = io.BytesIO(b"".join(map(frame, _PAYLOADS)))
  located = list(locate_records(file, "f"))
  assert located == [(0, b"first"), (21, b""), (37, b"third" * 100), (553, b"4")]
  for position, payload in reversed(located):
    assert read_record_at(file, position, "f") == payload
  with pytest.raises(InputError, match="f ends before byte 570, where a record was"):
    read_record_at(file, 570, "f")
  with pytest.raises(InputError, match="the record at byte 3 has a wrong length checksum"):
    read_record_at(file, 3, "f")


@pytest.mark.parametrize("numbers", [[0], [3], [0, 2], [1, 3], [0, 1, 2, 3], []])
def test_some_records_can_be_picked(numbers):
  file = io.BytesIO(b"".join(map(frame, _PAYLOADS)))
  assert list(pick_records(file, numbers, "f")) == [_PAYLOADS[number] for number in numbers]


def test_records_that_are_passed_over_are_not_read():
  data = bytearray(b"".join(map(frame, _PAYLOADS)))
  data[60] ^= 1  # within the third
  assert list(pick_records(io.BytesIO(data), [1, 3], "f")) == [b"", b"4"]
  with pytest.raises(InputError, match="the record at byte 37 has a wrong data checksum"):
    list(pick_records(io.BytesIO(data), [2], "f"))


@pytest.mark.parametrize(("numbers", "there"), [([4], 4), ([0, 9], 4)])
def test_records_that_are_no_longer_there_are_missed(numbers, there):
  file = io.BytesIO(b"".join(map(frame, _PAYLOADS)))
  with pytest.raises(InputError, match=f"f has only {there} records, fewer than"):
    list(pick_records(file, numbers, "f"))
