"""Images found again by their keys: bottleneck records leave the images out, and here is the way back. No Beam."""

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
  """Yields (key, the image's own bytes) for the keys that are there, in the order of the data set.

  Args:
    folder: a local input of `bottlenecks`: records that `convert` wrote, IDX files, class folders, or a CSV manifest.
    keys: of images, as bottleneck records have them.

  Raises:
    InputError: the folder is not there, or a file in it is damaged; or a image that a manifest lists is remote.
  """
  if "://" in folder:
    raise InputError(f"{folder} is remote, images are found again in local folders only: give a local copy of it.")
  if os.path.isfile(folder):
    return _in_manifest(folder, frozenset(keys))
  if not os.path.isdir(folder):
    raise InputError(f"{folder} does not exist: give the folder of the images that the bottlenecks were made of.")
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
          f"{path}: line {image.line}: {image.path} is remote, images are found again in local files only: give a"
          " folder or a manifest of local copies."
        )
      yield from _read(image.key, image.path)


def _in_files(folder: str, keys: list[str]) -> Iterator[tuple[str, bytes]]:
  for key in keys:
    if ".." in key.split("/") or os.path.isabs(key):
      continue  # no name leads out of the folder
    yield from _read(key, os.path.join(folder, key))


def _read(key: str, path: str) -> Iterator[tuple[str, bytes]]:
  """Yields nothing where there is no such file."""
  with contextlib.suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
    with open(path, "rb") as file:
      encoded = file.read()
    yield key, encoded


def _in_idx(folder: str, wanted: frozenset[str]) -> Iterator[tuple[str, bytes]]:
  """A key is `SPLIT/LABEL/INDEX.png`: where its pixels are can be read in it."""
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
  """Yields (number, uint8 [rows, columns]) of the images asked for, in order, a block of them in memory."""
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
  """Returns the path of an images file, in the spelling that wins where there are several; None: it is not there."""
  names = [f"{prefix}-images{mark}idx3-ubyte{suffix}" for suffix in ("", ".gz") for mark in ("-", ".")]
  return next((path for name in names if os.path.isfile(path := os.path.join(folder, name))), None)
