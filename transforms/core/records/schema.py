"""The one place that names a feature, a split and a file of ours. Writers and readers both ask here.

| feature             | type       | in             | meaning                                                        |
|---------------------|------------|----------------|----------------------------------------------------------------|
| image/key           | bytes      | both           | stable name, relative to the data set: `training/5/17.jpg`     |
| image/encoded       | bytes      | image records  | the image's own bytes                                        |
| image/format        | bytes      | both           | `jpeg`, `png`, `bmp` or `gif`                                  |
| image/height, width | int64      | both           | pixels of the image as stored                                |
| image/class/label   | int64      | both           | class index: position in the label list                        |
| image/class/text    | bytes      | both           | label, UTF-8                                                   |
| image/sha256        | bytes      | both           | SHA-256 of the image's own bytes, 64 hex digits              |
| bottleneck          | float32[D] | bottlenecks    | what the trunk gives for the image                           |
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from typing import NamedTuple

import numpy as np

from beam_retrain.transforms.core.records.example import decode_example, encode_example, replace_features

KEY = "image/key"
ENCODED = "image/encoded"
FORMAT = "image/format"
HEIGHT = "image/height"
WIDTH = "image/width"
CLASS_INDEX = "image/class/label"
LABEL = "image/class/text"
SHA256 = "image/sha256"
BOTTLENECK = "bottleneck"

IMAGE_RECORD = {
  KEY: "bytes",
  ENCODED: "bytes",
  FORMAT: "bytes",
  HEIGHT: "int64",
  WIDTH: "int64",
  CLASS_INDEX: "int64",
  LABEL: "bytes",
  SHA256: "bytes",
}
"""Feature name -> type; each has exactly one value."""

TRAINING = "training"
VALIDATION = "validation"
TESTING = "testing"
# The one split of images whose data set has none, where nobody asked for one.
ALL = "all"

INFO_FILE = "info.json"
STATS_FILE = "stats.json"
LABELS_FILE = "labels.txt"
QUARANTINE_FILE = "quarantine.csv"
LEAKS_FILE = "leaks.csv"
REPORTS_FOLDER = ".shards"  # beside the shards' files: a report each
REFUSED_LEAKS_FILE = "leaks.refused.csv"  # of an input that was refused, beside an earlier output that was kept
COMPLETED_FILE = "COMPLETED"
FROZEN_GRAPH_FILE = "retrained_graph.pb"
RETRAINED_LABELS_FILE = "retrained_labels.txt"
FINAL_TENSOR = "final_result"
"""Operation of the frozen graph that gives the scores, unless `--final_tensor_name` names another."""

SCHEMA_FILE = "schema.pbtxt"
RECORDS_FOLDER = "records"

PREPROCESSING_VERSION = "1: decode to RGB, bilinear resize without antialiasing, 0..1"
"""What `preprocessing` does. Part of what makes a stored bottleneck valid; changes when the numbers would."""

_SHARD_NAME = re.compile(r"(?P<split>[a-z]+)-(?P<index>\d{5,})-of-(?P<of>\d{5,})\.(?P<suffix>[a-z]+)")


def bottleneck_record(dimensions: int) -> dict[str, str]:
  """Returns feature name -> type of a bottleneck record; `float32[D]` has D values, the others one."""
  image = {name: kind for name, kind in IMAGE_RECORD.items() if name != ENCODED}
  return {**image, BOTTLENECK: f"float32[{dimensions}]"}


def shard_name(split: str, index: int, of: int, suffix: str = "tfrecord") -> str:
  """Returns for example `training-00003-of-00060.tfrecord`; both numbers have as many digits, so that names sort."""
  digits = max(5, len(str(of)))
  return f"{split}-{index:0{digits}d}-of-{of:0{digits}d}.{suffix}"


def parse_shard_name(name: str) -> tuple[str, int, int] | None:
  """Returns (split, index, of) of a shard's file name, or None where it is not one."""
  match = _SHARD_NAME.fullmatch(name)
  return (match["split"], int(match["index"]), int(match["of"])) if match else None


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
  """One labelled image, as it was read: not yet decoded.

  Attributes:
    key: stable name relative to the data set, `/`-separated, with the file's extension.
    label: class name.
    encoded: the image's own bytes (a JPEG, PNG, BMP or GIF file).
    format: `jpeg`, `png`, `bmp`, `gif`, or empty where it has not been looked at yet.
    height: pixels; 0 where it has not been looked at yet.
    width: pixels, likewise.
  """

  key: str
  label: str
  encoded: bytes
  format: str = ""
  height: int = 0
  width: int = 0

  @property
  def sha256(self) -> str:
    return hashlib.sha256(self.encoded).hexdigest()


@dataclasses.dataclass(frozen=True, slots=True)
class Bottleneck:
  """What the trunk gave for one image: `vector` is float32[D]; the other fields as in `Image`."""

  key: str
  label: str
  class_index: int
  vector: np.ndarray
  format: str
  height: int
  width: int
  sha256: str


def encode_image(image: Image, class_index: int) -> bytes:
  """Returns the image record of `image`: a serialised Example."""
  return encode_example(
    {
      KEY: image.key,
      ENCODED: image.encoded,
      FORMAT: image.format,
      HEIGHT: image.height,
      WIDTH: image.width,
      CLASS_INDEX: class_index,
      LABEL: image.label,
      SHA256: image.sha256,
    }
  )


def decode_image(record: bytes) -> Image:
  """Inverse of `encode_image`.

  Raises:
    KeyError: a feature is missing: not an image record.
  """
  features = decode_example(record)
  return Image(
    key=features[KEY][0].decode(),
    label=features[LABEL][0].decode(),
    encoded=features[ENCODED][0],
    format=features[FORMAT][0].decode(),
    height=features[HEIGHT][0],
    width=features[WIDTH][0],
  )


def encode_bottleneck(bottleneck: Bottleneck) -> bytes:
  """Returns the bottleneck record: a serialised Example."""
  return encode_example(
    {
      KEY: bottleneck.key,
      FORMAT: bottleneck.format,
      HEIGHT: bottleneck.height,
      WIDTH: bottleneck.width,
      CLASS_INDEX: bottleneck.class_index,
      LABEL: bottleneck.label,
      SHA256: bottleneck.sha256,
      BOTTLENECK: bottleneck.vector,
    }
  )


def decode_bottleneck(record: bytes) -> Bottleneck:
  """Inverse of `encode_bottleneck`.

  Raises:
    KeyError: a feature is missing: not a bottleneck record.
  """
  features = decode_example(record)
  return Bottleneck(
    key=features[KEY][0].decode(),
    label=features[LABEL][0].decode(),
    class_index=features[CLASS_INDEX][0],
    vector=np.asarray(features[BOTTLENECK], np.float32),
    format=features[FORMAT][0].decode(),
    height=features[HEIGHT][0],
    width=features[WIDTH][0],
    sha256=features[SHA256][0].decode(),
  )


class Described(NamedTuple):
  """A bottleneck record but for its vector and its image's format; fields as in `Bottleneck`."""

  key: str
  label: str
  class_index: int
  height: int
  width: int
  sha256: str


def describe_bottleneck(record: bytes) -> Described:
  """Returns what a bottleneck record is of: cheap, the vector is not converted.

  Raises:
    KeyError: a feature is missing: not a bottleneck record.
  """
  features = decode_example(record, (KEY, LABEL, CLASS_INDEX, HEIGHT, WIDTH, SHA256))
  return Described(
    key=features[KEY][0].decode(),
    label=features[LABEL][0].decode(),
    class_index=features[CLASS_INDEX][0],
    height=features[HEIGHT][0],
    width=features[WIDTH][0],
    sha256=features[SHA256][0].decode(),
  )


def relabel_bottleneck(record: bytes, key: str, label: str, class_index: int) -> bytes:
  """Returns the bottleneck record of the same image under another key or label: its other fields stay."""
  return replace_features(record, {KEY: key, LABEL: label, CLASS_INDEX: class_index})


def digest_of_record(record: bytes) -> bytes:
  """Returns the SHA-256, 32 bytes, of the image that a record of ours is of.

  Raises:
    KeyError: there is none: not a record of ours.
  """
  return bytes.fromhex(decode_example(record, (SHA256,))[SHA256][0].decode())
