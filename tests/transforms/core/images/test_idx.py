"""IDX: golden bytes, and one wrong byte per header field."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images import idx

# Recipe: the format's own words, field by field: two images of 2 x 3 pixels, two labels.
IMAGES = struct.pack(">BBBBIII", 0, 0, 8, 3, 2, 2, 3) + bytes(range(12))
LABELS = struct.pack(">BBBBI", 0, 0, 8, 1, 2) + bytes([7, 3])


def _header(data: bytes) -> idx.IdxHeader:
  return idx.read_header(io.BytesIO(data), "some-file")


def _changed(data: bytes, position: int, value: int) -> bytes:
  return data[:position] + bytes([value]) + data[position + 1 :]


def test_reads_the_header_of_images_and_of_labels():
  assert _header(IMAGES) == idx.IdxHeader((2, 2, 3))
  assert _header(LABELS) == idx.IdxHeader((2,))
  assert (_header(IMAGES).data_offset, _header(LABELS).data_offset) == (16, 8)
  assert (_header(IMAGES).file_bytes, _header(LABELS).file_bytes) == (len(IMAGES), len(LABELS))


def test_leaves_the_file_at_the_first_data_byte():
  file = io.BytesIO(IMAGES)
  idx.read_header(file, "images", 3)
  assert file.read() == bytes(range(12))


def test_writes_the_golden_bytes():
  assert idx.encode_idx(np.arange(12, dtype=np.uint8).reshape(2, 2, 3)) == IMAGES
  assert idx.encode_idx(np.array([7, 3], np.uint8)) == LABELS


@pytest.mark.parametrize("array", [np.zeros((2, 2, 3), np.int64), np.zeros((2, 2), np.uint8)])
def test_writes_nothing_that_it_could_not_read(array):
  with pytest.raises(ValueError, match="images are uint8 with 3"):
    idx.encode_idx(array)


@pytest.mark.parametrize(
  ("position", "value", "said"),
  [
    (0, 1, "byte 0: 0x01, expected 0x00"),
    (1, 2, "byte 1: 0x02, expected 0x00"),
    (2, 0x0D, "byte 2: type code 0x0d, expected 0x08 (unsigned byte)"),
    (3, 2, "byte 3: 2 dimensions, expected 3 (images) or 1 (labels)"),
    (11, 0, "byte 8: 0 rows, expected 1 to 65500"),
    (15, 0, "byte 12: 0 columns, expected 1 to 65500"),
    (8, 1, "byte 8: 16777218 rows"),
  ],
)
def test_names_the_file_and_the_wrong_byte(position, value, said):
  with pytest.raises(InputError) as error:
    _header(_changed(IMAGES, position, value))
  assert str(error.value).startswith("some-file: " + said)


def test_refuses_images_that_would_take_all_memory():
  with pytest.raises(InputError, match=r"byte 8: images of 4225000000 pixels"):
    _header(struct.pack(">BBBBIII", 0, 0, 8, 3, 1, 65_000, 65_000))


@pytest.mark.parametrize("size", [0, 3, 4, 15])
def test_says_where_a_header_ends_too_early(size):
  with pytest.raises(InputError, match=rf"some-file: byte {size}: the file ends inside its header"):
    _header(IMAGES[:size])


# Recipe: QMNIST's README: class, series, writer, number of the writer's digit, NIST's class, global number, two more.
QMNIST = struct.pack(">BBBBII16i", 0, 0, 12, 2, 2, 8, 5, 1, 20, 3, 35, 4, 0, 0, 0, 4, 2600, 9, 30, 70000, 0, 0)


def test_the_first_column_of_qmnists_labels_is_the_class():
  file = io.BytesIO(QMNIST)
  header = idx.read_header(file, "f", 1)
  idx.check_length(header, len(QMNIST), "f")
  assert (header.count, header.data_offset, header.has_byte_labels, idx.describe(header)) == (2, 12, False, "2 labels")
  assert idx.decode_labels(idx.read_items(file, header, 0, 2, "f"), header) == [5, 0]
  idx.check_end(file, header, "f")
  plain = idx.IdxHeader((2,), idx.INT32)
  assert idx.decode_labels(struct.pack(">ii", 300, -1), plain) == [300, -1]
  assert idx.decode_labels(bytes([7, 3]), _header(LABELS)) == [7, 3]


def test_images_are_not_integers():
  with pytest.raises(InputError, match=r"type code 0x0c, expected 0x08 \(unsigned byte\)\."):
    _header(_changed(IMAGES, 2, 12))
  with pytest.raises(InputError, match=r"type code 0x0b, expected 0x08 \(unsigned byte\) or 0x0c \(32-bit integer\)"):
    _header(_changed(QMNIST, 2, 11))
  with pytest.raises(InputError, match="byte 8: 257 columns, expected 1 to 256"):
    _header(struct.pack(">BBBBII", 0, 0, 12, 2, 1, 257))


def test_transposes_each_image():
  assert idx.transpose(bytes(range(12)), _header(IMAGES)) == bytes([0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11])


def test_images_and_labels_that_changed_places():
  with pytest.raises(InputError, match=r"some: byte 3: 1 dimensions \(labels\), expected 3 \(images\)"):
    idx.read_header(io.BytesIO(LABELS), "some", 3)
  with pytest.raises(InputError, match=r"some: byte 3: 3 dimensions \(images\), expected 1 \(labels\)"):
    idx.read_header(io.BytesIO(IMAGES), "some", 1)


def test_the_length_is_exact():
  header = _header(IMAGES)
  idx.check_length(header, 28, "f")
  with pytest.raises(InputError, match=r"f: byte 27: the file ends here, but 2 images of 2 x 3 take 28 bytes"):
    idx.check_length(header, 27, "f")
  with pytest.raises(InputError, match=r"f: byte 28: 2 images of 2 x 3 end here, but the file goes on to byte 29"):
    idx.check_length(header, 29, "f")


def test_one_label_per_image():
  images, labels = _header(IMAGES), _header(_changed(LABELS, 7, 3))
  with pytest.raises(InputError, match=r"L: byte 4: 3 labels, but I has 2 images"):
    idx.check_same_count(images, "I", labels, "L")
  idx.check_same_count(images, "I", _header(LABELS), "L")


def test_a_stream_is_read_item_by_item_and_must_end():
  file = io.BytesIO(IMAGES)
  header = idx.read_header(file, "f", 3)
  assert idx.read_items(file, header, 0, 1, "f") == bytes(range(6))
  assert idx.read_items(file, header, 1, 1, "f") == bytes(range(6, 12))
  idx.check_end(file, header, "f")
  with pytest.raises(InputError, match=r"f: byte 28: .* but the file goes on"):
    idx.check_end(io.BytesIO(b"x"), header, "f")


def test_a_stream_that_ends_early_is_named_with_its_byte():
  file = io.BytesIO(IMAGES[:-2])
  header = idx.read_header(file, "f", 3)
  idx.read_items(file, header, 0, 1, "f")
  with pytest.raises(InputError, match=r"f: byte 26: the file ends here"):
    idx.read_items(file, header, 1, 1, "f")
