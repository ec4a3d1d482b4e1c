"""Names and types of features, splits and files, for writers and readers.

| feature             | type       | in             | meaning                                                        |
|---------------------|------------|----------------|----------------------------------------------------------------|
| image/key           | bytes      | both           | stable name, relative to the data set: `training/5/17.jpg`     |
| image/encoded       | bytes      | image records  | the image file's bytes                                         |
| image/format        | bytes      | both           | `jpeg`, `png`, `bmp` or `gif`                                  |
| image/height, width | int64      | both           | pixels of the image as stored                                  |
| image/class/label   | int64      | both           | class index: position in the label list                        |
| image/class/text    | bytes      | both           | label, UTF-8                                                   |
| image/sha256        | bytes      | both           | SHA-256 of the image file's bytes, 64 hex digits               |
| bottleneck          | float32[D] | bottlenecks    | the trunk's output for the image                               |
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, TypeVar

from beam_retrain.transforms.core.labels import normalise

if TYPE_CHECKING:
  import numpy as np  # that and protobuf are loaded by what makes or reads a record: `--help` needs neither

KEY = "image/key"
ENCODED = "image/encoded"
FORMAT = "image/format"
HEIGHT = "image/height"
WIDTH = "image/width"
CLASS_INDEX = "image/class/label"
LABEL = "image/class/text"
SHA256 = "image/sha256"
BOTTLENECK = "bottleneck"

_FEATURES = {
  KEY: ("key", "bytes"),
  ENCODED: ("encoded", "bytes"),
  FORMAT: ("format", "bytes"),
  HEIGHT: ("height", "int64"),
  WIDTH: ("width", "int64"),
  CLASS_INDEX: ("class_index", "int64"),
  LABEL: ("label", "bytes"),
  SHA256: ("sha256", "bytes"),
  BOTTLENECK: ("vector", "float32[D]"),
}
"""Feature name -> attribute of `Image` or `Bottleneck`, and type."""

IMAGE_RECORD = {name: kind for name, (_, kind) in _FEATURES.items() if name != BOTTLENECK}
"""Feature name -> type; each has exactly one value."""

TRAINING = "training"
VALIDATION = "validation"
TESTING = "testing"
ALL = "all"  # the only split of a data set without splits, unless some were requested

INFO_FILE = "info.json"
CONFIG_FILE = "config.toml"  # the command's flags, see core/run/config.py
STATS_FILE = "stats.json"
LABELS_FILE = "labels.txt"
QUARANTINE_FILE = "quarantine.csv"
LEAKS_FILE = "leaks.csv"
REPORTS_FOLDER = ".shards"  # one report per shard
REFUSED_LEAKS_FILE = "leaks.refused.csv"  # leaks of an input rejected by --on_leak fail; earlier output is kept
COMPLETED_FILE = "COMPLETED"
FROZEN_GRAPH_FILE = "retrained_graph.pb"
RETRAINED_LABELS_FILE = "retrained_labels.txt"
FINAL_TENSOR = "final_result"
"""Default operation of the scores in the frozen graph (`--final_tensor_name`)."""

SCHEMA_FILE = "schema.pbtxt"
RECORDS_FOLDER = "records"
METRICS_FILE = "metrics.json"
SAVED_MODEL_FOLDER = "saved_model"
TRUNK_FOLDER = "trunk"
"""Of bottlenecks: their trunk; of a model: the same, as it was prepared for them."""
STORES_FOLDER = "bottlenecks"
"""In an evaluation with `--reuse` and in a night: a folder of bottlenecks for each trunk."""

PREPROCESSING_VERSION = "1: decode to RGB, bilinear resize without antialiasing, 0..1"
"""Version of `images.decode`: changes when its numbers would, which invalidates stored bottlenecks."""

_OF_IMAGE = (KEY, ENCODED, FORMAT, HEIGHT, WIDTH, LABEL)
_OF_BOTTLENECK = tuple(name for name in _FEATURES if name != ENCODED)
_SHARD_NAME = re.compile(r"(?P<split>[a-z]+)-(?P<index>\d{5,})-of-(?P<of>\d{5,})\.(?P<suffix>[a-z]+)")


def bottleneck_record(dimensions: int) -> dict[str, str]:
  """Returns feature name -> type of a bottleneck record; `float32[D]`: D values."""
  image = {name: kind for name, kind in IMAGE_RECORD.items() if name != ENCODED}
  return {**image, BOTTLENECK: f"float32[{dimensions}]"}


def schema_text(dimensions: int) -> str:
  """Returns a bottleneck record's `schema.pbtxt`, as tensorflow-metadata prints it."""
  kinds = {"bytes": "BYTES", "int64": "INT", f"float32[{dimensions}]": "FLOAT"}
  sides = {f"float32[{dimensions}]": f"    dim {{\n      size: {dimensions}\n    }}\n"}
  return "".join(
    f'feature {{\n  name: "{name}"\n  type: {kinds[kind]}\n  presence {{\n    min_fraction: 1.0\n  }}\n'
    f"  shape {{\n{sides.get(kind, '')}  }}\n}}\n"
    for name, kind in sorted(bottleneck_record(dimensions).items())
  )


def shard_name(split: str, index: int, of: int, suffix: str = "tfrecord") -> str:
  """Returns a shard's file name, for example `training-00003-of-00060.tfrecord`."""
  digits = max(5, len(str(of)))  # so that names sort
  return f"{split}-{index:0{digits}d}-of-{of:0{digits}d}.{suffix}"


def parse_shard_name(name: str) -> tuple[str, int, int] | None:
  """Returns (split, index, of) of a shard's file name, or None."""
  match = _SHARD_NAME.fullmatch(name)
  return (match["split"], int(match["index"]), int(match["of"])) if match else None


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
  """A labelled image as read, not decoded.

  Attributes:
    key: stable name relative to the data set, `/`-separated, with the file's extension.
    label: empty if unknown.
    encoded: the file's bytes.
    format: `jpeg`, `png`, `bmp`, `gif` or `webp`; empty until it is probed, as height and width, in pixels, are 0.
    cut: what is decoded in place of `encoded`, see `ImageInfo`; in no record.
  """

  key: str
  label: str
  encoded: bytes
  format: str = ""
  height: int = 0
  width: int = 0
  cut: bytes = b""

  @property
  def decodable(self) -> bytes:
    return self.cut or self.encoded

  @property
  def sha256(self) -> str:
    return hashlib.sha256(self.encoded).hexdigest()


@dataclasses.dataclass(frozen=True, slots=True)
class Bottleneck:
  """The trunk's output for an image: `vector` is float32 [D]."""

  key: str
  label: str
  class_index: int
  vector: np.ndarray
  format: str
  height: int
  width: int
  sha256: str


_Record = TypeVar("_Record", Image, Bottleneck)


def encode_image(image: Image, class_index: int) -> bytes:
  """Returns the image record: a serialised Example."""
  from beam_retrain.transforms.core.records.example import encode_example

  features = {name: getattr(image, _FEATURES[name][0]) for name in (*_OF_IMAGE, SHA256)}
  return encode_example({**features, CLASS_INDEX: class_index})


def encode_bottleneck(bottleneck: Bottleneck) -> bytes:
  """Returns the bottleneck record: a serialised Example."""
  from beam_retrain.transforms.core.records.example import encode_example

  return encode_example({name: getattr(bottleneck, _FEATURES[name][0]) for name in _OF_BOTTLENECK})


def decode_image(record: bytes) -> Image:
  """Inverse of `encode_image`; raises KeyError for other records.

  Normalises the label, as `decode_bottleneck` does: 0.4 wrote it as it was.
  """
  return _decode(Image, record, _OF_IMAGE, normalise)


def decode_bottleneck(record: bytes) -> Bottleneck:
  """Inverse of `encode_bottleneck`; raises KeyError for other records."""
  return _decode(Bottleneck, record, _OF_BOTTLENECK, normalise)


def describe_bottleneck(record: bytes) -> Bottleneck:
  """Decodes a bottleneck record without its vector, which is slow.

  `vector` is then empty, the label as it was written. Raises KeyError for other records.
  """
  import numpy as np

  return _decode(Bottleneck, record, _OF_BOTTLENECK[:-1], str, vector=np.empty(0, np.float32))


def _decode(
  kind: type[_Record], record: bytes, names: Collection[str], to_label: Callable[[str], str], **attributes: Any
) -> _Record:
  from beam_retrain.transforms.core.records.example import decode_example

  features = decode_example(record, names)
  for name in names:
    value: Any = features[name] if name == BOTTLENECK else features[name][0]
    is_text = isinstance(value, bytes) and name != ENCODED
    attributes[_FEATURES[name][0]] = value.decode() if is_text else value
  attributes["label"] = to_label(attributes["label"])
  return kind(**attributes)


def relabel_bottleneck(record: bytes, key: str, label: str, class_index: int) -> bytes:
  """Returns a bottleneck record with another key and label."""
  from beam_retrain.transforms.core.records.example import replace_features

  return replace_features(record, {KEY: key, LABEL: label, CLASS_INDEX: class_index})


def digest_of_record(record: bytes) -> bytes:
  """Returns the SHA-256, 32 bytes, of a record's image; may raise KeyError."""
  from beam_retrain.transforms.core.records.example import decode_example

  return bytes.fromhex(decode_example(record, (SHA256,))[SHA256][0].decode())
