"""Looks up images by key: bottleneck records do not contain them."""

from __future__ import annotations

import contextlib
import glob
import gzip
import os
from collections.abc import Collection, Iterator
from typing import BinaryIO, cast

import numpy as np

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images import idx
from beam_retrain.transforms.core.images.encode import encode_pixels
from beam_retrain.transforms.core.records.example import decode_example
from beam_retrain.transforms.core.records.input_manifest import read_images
from beam_retrain.transforms.core.records.schema import ENCODED, KEY, RECORDS_FOLDER, TESTING, TRAINING
from beam_retrain.transforms.core.records.tfrecord import read_records

_PREFIXES = {TRAINING: "train", TESTING: "t10k"}
_IMAGES_PER_READ = 1024


def lookup_images(folder: str, keys: Collection[str]) -> Iterator[tuple[str, bytes]]:
  """Yields (key, encoded image) of the keys found, in data set order.

  `folder` is a local input of `bottlenecks`: records of `convert`, IDX files, class folders, or a CSV manifest.

  Raises:
    InputError: the folder is missing, a file in it is damaged, or a manifest lists a remote image.
  """
  if "://" in folder:
    raise InputError(f"{folder} is remote, but images can only be looked up in local folders: give a local copy.")
  if os.path.isfile(folder):
    return _in_manifest(folder, frozenset(keys))
  if not os.path.isdir(folder):
    raise InputError(f"{folder} does not exist: give the folder of images that the bottlenecks were computed from.")
  records = sorted(glob.glob(os.path.join(glob.escape(folder), RECORDS_FOLDER, "*.tfrecord")))
  wanted = frozenset(keys)
  if records:
    return _in_records(records, wanted)
  if any(_idx_file(folder, prefix) for prefix in _PREFIXES.values()):
    return _in_idx(folder, wanted)
  return _in_files(folder, sorted(wanted))


def _in_records(paths: list[str], wanted: frozenset[str]) -> Iterator[tuple[str, bytes]]:
  left = len(wanted)
  for path in paths:
    if not left:
      return
    with open(path, "rb") as file:
      for record in read_records(file, path):
        key = decode_example(record, (KEY,)).get(KEY, [b""])[0].decode()
        if key in wanted:
          left -= 1
          (encoded,) = decode_example(record, (ENCODED,)).get(ENCODED, [b""])
          yield key, encoded


def _in_manifest(path: str, wanted: frozenset[str]) -> Iterator[tuple[str, bytes]]:
  with open(path, encoding="utf-8", newline="") as lines:
    for image in read_images(lines, os.path.abspath(path)):
      if image.key not in wanted:
        continue
      if "://" in image.path:
        raise InputError(
          f"{path}: line {image.line}: {image.path} is remote, but images can only be looked up in local files: give a"
          " folder or a manifest of local copies."
        )
      yield from _read(image.key, image.path)


def _in_files(folder: str, keys: list[str]) -> Iterator[tuple[str, bytes]]:
  for key in keys:
    if ".." in key.split("/") or os.path.isabs(key):
      continue  # outside the folder
    yield from _read(key, os.path.join(folder, key))


def _read(key: str, path: str) -> Iterator[tuple[str, bytes]]:
  """Yields nothing if the file does not exist."""
  with contextlib.suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
    with open(path, "rb") as file:
      encoded = file.read()
    yield key, encoded


def _in_idx(folder: str, wanted: frozenset[str]) -> Iterator[tuple[str, bytes]]:
  """Reads images by their numbers: keys are `SPLIT/LABEL/INDEX.png`."""
  by_split: dict[str, dict[int, str]] = {split: {} for split in _PREFIXES}
  for key in wanted:
    split, _, name = key.partition("/")
    number = os.path.splitext(name)[0].rpartition("/")[2]
    if split in by_split and number.isdecimal():
      by_split[split][int(number)] = key
  for split, keys in by_split.items():
    path = _idx_file(folder, _PREFIXES[split])
    if keys and path:
      for index, pixels in _read_images(path, frozenset(keys)):
        yield keys[index], encode_pixels(pixels, "png")


def _read_images(path: str, numbers: frozenset[int]) -> Iterator[tuple[int, np.ndarray]]:
  """Yields (number, uint8 [rows, columns]) in order, one block in memory."""
  with _open(path) as file:
    header = idx.read_images_header(file, path)
    for start in range(0, min(header.count, max(numbers) + 1), _IMAGES_PER_READ):
      count = min(_IMAGES_PER_READ, header.count - start)
      data = idx.read_items(file, header, start, count, path)
      block = np.frombuffer(data, np.uint8).reshape(count, *header.dimensions[1:])
      yield from ((start + row, block[row]) for row in range(count) if start + row in numbers)


def _open(path: str) -> BinaryIO:
  return cast(BinaryIO, gzip.open(path, "rb")) if path.endswith(".gz") else open(path, "rb")


def _idx_file(folder: str, prefix: str) -> str | None:
  """Returns the images file with the preferred name, or None."""
  names = [f"{prefix}-images{mark}idx3-ubyte{suffix}" for suffix in ("", ".gz") for mark in ("-", ".")]
  return next((path for name in names if os.path.isfile(path := os.path.join(folder, name))), None)
