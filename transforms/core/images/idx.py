"""Reads and writes the IDX format of MNIST's files.

Format (LeCun, "The MNIST database of handwritten digits", section "file formats"), big-endian: bytes 0 and 1 are zero,
byte 2 is the type code (0x08: unsigned byte), byte 3 the number of dimensions, then one uint32 per dimension, then the
data, last dimension fastest. Images have three dimensions (count, rows, columns), labels one (count).

QMNIST's labels (Yadav and Bottou, "Cold Case: The Lost MNIST Digits", README) are `idx2-int` files: type
code 0x0c, signed 32-bit integers, in two dimensions (count, 8), the class in the first column.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from beam_retrain.transforms.core.errors import InputError

UNSIGNED_BYTE, INT32 = 0x08, 0x0C
IMAGES_OFFSET = 16  # bytes before the first image: magic and three dimensions
LABELS_OFFSET = 8  # bytes before the first label: magic and one dimension
MAX_SIDE_PX = 65_500  # libjpeg's JPEG_MAX_DIMENSION
_MAX_HEADER_PIXELS = 1 << 26  # of one image, so that a wrong header cannot claim all memory

KINDS = {3: "images", 1: "labels"}
_DTYPES: Mapping[int, np.dtype[np.integer[Any]]] = {UNSIGNED_BYTE: np.dtype("u1"), INT32: np.dtype(">i4")}
_MAX_COLUMNS = 256  # of a label: QMNIST has 8


@dataclasses.dataclass(frozen=True, slots=True)
class IdxHeader:
  """Header of an IDX file of images or labels."""

  dimensions: tuple[int, ...]  # (count, rows, columns) of images, (count,) or (count, columns) of labels
  type_code: int = UNSIGNED_BYTE  # INT32 is for labels alone

  @property
  def data_offset(self) -> int:
    return 4 + 4 * len(self.dimensions)

  @property
  def count(self) -> int:
    return self.dimensions[0]

  @property
  def item_bytes(self) -> int:
    return math.prod(self.dimensions[1:]) * _DTYPES[self.type_code].itemsize

  @property
  def is_labels(self) -> bool:
    return len(self.dimensions) < 3

  @property
  def has_byte_labels(self) -> bool:
    """Whether each label is one byte, as in MNIST."""
    return len(self.dimensions) == 1 and self.type_code == UNSIGNED_BYTE

  @property
  def file_bytes(self) -> int:
    """Exact length of the file."""
    return self.data_offset + self.count * self.item_bytes


def read_header(file: BinaryIO, name: str, dimensions: int | None = None) -> IdxHeader:
  """Reads and checks a header; leaves `file` at the first data byte.

  `file` is at its start, decompressed; `name` is for errors. `dimensions` are 3 for images, 1 for labels of any kind.
  Raises InputError if it is not an IDX file of images or labels, or not of the kind that is wanted.
  """
  magic = _read_header_bytes(file, name, 0, 4)
  for position in (0, 1):
    if magic[position]:
      raise InputError(f"{name}: byte {position}: 0x{magic[position]:02x}, expected 0x00: this is not an IDX file.")
  type_code, count = magic[2:]
  may_be_int = count in (1, 2) and dimensions != 3
  if type_code not in ((UNSIGNED_BYTE, INT32) if may_be_int else (UNSIGNED_BYTE,)):
    expected = f"0x08 (unsigned byte){' or 0x0c (32-bit integer)' if may_be_int else ''}"
    raise InputError(f"{name}: byte 2: type code 0x{type_code:02x}, expected {expected}.")
  if count not in KINDS and not (count == 2 and type_code == INT32):
    raise InputError(f"{name}: byte 3: {count} dimensions, expected 3 (images) or 1 (labels).")
  sizes = _read_header_bytes(file, name, 4, 4 * count)
  header = IdxHeader(struct.unpack(f">{count}I", sizes), type_code)
  limit, words = (_MAX_COLUMNS, ("columns",)) if header.is_labels else (MAX_SIDE_PX, ("rows", "columns"))
  for position, (side, word) in enumerate(zip(header.dimensions[1:], words, strict=False), start=2):
    if not 1 <= side <= limit:
      raise InputError(f"{name}: byte {4 * position}: {side} {word}, expected 1 to {limit}.")
  if header.item_bytes > _MAX_HEADER_PIXELS:
    raise InputError(f"{name}: byte 8: images of {header.item_bytes} pixels, expected at most {_MAX_HEADER_PIXELS}.")
  if dimensions not in (None, 1 if header.is_labels else 3):
    raise InputError(
      f"{name}: byte 3: {count} dimensions ({KINDS[1 if header.is_labels else 3]}), expected {dimensions}"
      f" ({KINDS[dimensions]}): the images and labels files may be swapped."
    )
  return header


def decode_labels(data: bytes, header: IdxHeader) -> list[int]:
  """Returns the class of each label, its first column."""
  numbers = np.frombuffer(data, _DTYPES[header.type_code])
  return numbers.reshape(-1, *header.dimensions[1:2] or (1,))[:, 0].tolist()


def transpose(data: bytes, header: IdxHeader) -> bytes:
  """Swaps rows and columns of some images."""
  return np.frombuffer(data, np.uint8).reshape(-1, *header.dimensions[1:]).swapaxes(1, 2).tobytes()


def _read_header_bytes(file: BinaryIO, name: str, position: int, size: int) -> bytes:
  data = file.read(size)
  if len(data) < size:
    raise InputError(f"{name}: byte {position + len(data)}: the file ends inside its header: get the file again.")
  return data


def check_length(header: IdxHeader, size_bytes: int, name: str) -> None:
  """Raises InputError if a file's length differs from its header's."""
  end = header.file_bytes
  if size_bytes < end:
    problem = f"byte {size_bytes}: the file ends here, but {describe(header)} take {end} bytes"
  elif size_bytes > end:
    problem = f"byte {end}: {describe(header)} end here, but the file goes on to byte {size_bytes}"
  else:
    return
  raise InputError(f"{name}: {problem}: get the file again.")


def check_same_count(images: IdxHeader, images_name: str, labels: IdxHeader, labels_name: str) -> None:
  """Raises InputError unless there is one label per image."""
  if images.count != labels.count:
    raise InputError(
      f"{labels_name}: byte 4: {labels.count} labels, but {images_name} has {images.count} images:"
      " the two files do not belong together."
    )


def read_items(file: BinaryIO, header: IdxHeader, start: int, count: int, name: str) -> bytes:
  """Reads the data of `count` images or labels at the current position.

  Raises InputError if the file ends too early; `start` is the first one's number.
  """
  wanted = count * header.item_bytes
  data = file.read(wanted)
  if len(data) < wanted:
    check_length(header, header.data_offset + start * header.item_bytes + len(data), name)
  return data


def check_end(file: BinaryIO, header: IdxHeader, name: str) -> None:
  """Raises InputError if there is data after the last image or label."""
  if file.read(1):
    raise InputError(
      f"{name}: byte {header.file_bytes}: {describe(header)} end here, but the file goes on: get the file again."
    )


def describe(header: IdxHeader) -> str:
  """Returns for example `60000 images of 28 x 28`."""
  if header.is_labels:
    return f"{header.count} labels"
  return f"{header.count} images of {header.dimensions[1]} x {header.dimensions[2]}"


def encode_idx(array: np.ndarray) -> bytes:
  """Returns an IDX file of uint8 [count, rows, columns] or [count]."""
  if array.dtype != np.uint8 or array.ndim not in KINDS:
    raise ValueError(f"{array.dtype} with {array.ndim} dimensions: images are uint8 with 3, labels with 1")
  return struct.pack(f">4B{array.ndim}I", 0, 0, UNSIGNED_BYTE, array.ndim, *array.shape) + array.tobytes()
