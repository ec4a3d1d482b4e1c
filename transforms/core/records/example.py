"""`tf.train.Example` without TensorFlow.

The messages are declared here, field by field as in TensorFlow's `tensorflow/core/example/{example,feature}.proto`, in
a descriptor pool of our own: the same bytes on the wire, readable by tf.data, and converting images never pays for
loading TensorFlow. A pool of our own because TensorFlow registers the same names in the default one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto

Value = bytes | str | int | np.ndarray


def _declare_messages() -> Any:
  file = descriptor_pb2.FileDescriptorProto(name="beam_retrain/example.proto", package="tensorflow", syntax="proto3")

  def add(name: str, *fields: tuple[str, int, int, int, str]) -> descriptor_pb2.DescriptorProto:
    message = file.message_type.add(name=name)
    for field, number, kind, label, type_name in fields:
      message.field.add(name=field, number=number, type=kind, label=label, type_name=type_name or None)
    return message

  one, many = _Field.LABEL_OPTIONAL, _Field.LABEL_REPEATED
  add("BytesList", ("value", 1, _Field.TYPE_BYTES, many, ""))
  add("FloatList", ("value", 1, _Field.TYPE_FLOAT, many, ""))
  add("Int64List", ("value", 1, _Field.TYPE_INT64, many, ""))
  feature = add(
    "Feature",
    ("bytes_list", 1, _Field.TYPE_MESSAGE, one, ".tensorflow.BytesList"),
    ("float_list", 2, _Field.TYPE_MESSAGE, one, ".tensorflow.FloatList"),
    ("int64_list", 3, _Field.TYPE_MESSAGE, one, ".tensorflow.Int64List"),
  )
  feature.oneof_decl.add(name="kind")
  for field in feature.field:
    field.oneof_index = 0
  features = add("Features", ("feature", 1, _Field.TYPE_MESSAGE, many, ".tensorflow.Features.FeatureEntry"))
  entry = features.nested_type.add(name="FeatureEntry")
  entry.options.map_entry = True
  entry.field.add(name="key", number=1, type=_Field.TYPE_STRING, label=one)
  entry.field.add(name="value", number=2, type=_Field.TYPE_MESSAGE, label=one, type_name=".tensorflow.Feature")
  add("Example", ("features", 1, _Field.TYPE_MESSAGE, one, ".tensorflow.Features"))

  pool = descriptor_pool.DescriptorPool()
  pool.Add(file)
  return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


_Example = _declare_messages()


def encode_example(features: Mapping[str, Value]) -> bytes:
  """Serialises one Example; the same features always give the same bytes.

  Args:
    features: feature name to value: bytes or str (stored as UTF-8) becomes a bytes list of one, int an int64 list of
      one, a float32 array of shape [D] a float list of D.

  Raises:
    TypeError: a value is of another type.
  """
  return _serialize(_Example(), features)


def replace_features(serialized: bytes, features: Mapping[str, Value]) -> bytes:
  """Returns an Example with some features replaced; the others stay as they are, and numbers are not converted.

  Raises:
    TypeError: as `encode_example`.
    google.protobuf.message.DecodeError: the bytes are not an Example.
  """
  example = _Example.FromString(serialized)
  for name in features:
    example.features.feature.pop(name, None)
  return _serialize(example, features)


def _serialize(example: Any, features: Mapping[str, Value]) -> bytes:
  for name, value in features.items():
    feature = example.features.feature[name]
    if isinstance(value, str):
      feature.bytes_list.value.append(value.encode())
    elif isinstance(value, bytes):
      feature.bytes_list.value.append(value)
    elif isinstance(value, int | np.integer):
      feature.int64_list.value.append(int(value))
    elif isinstance(value, np.ndarray) and value.dtype == np.float32 and value.ndim == 1:
      feature.float_list.MergeFromString(_packed(value))
    else:
      raise TypeError(f"feature {name!r}: cannot store a {type(value).__name__}")
  serialized: bytes = example.SerializeToString(deterministic=True)
  return serialized


def decode_example(serialized: bytes, names: Collection[str] | None = None) -> dict[str, Any]:
  """Parses one Example into feature name -> list of bytes, list of int, or float32 array of shape [D].

  Args:
    serialized: the Example.
    names: the features to convert, as far as they are there; None: all of them.

  Raises:
    google.protobuf.message.DecodeError: the bytes are not an Example.
  """
  found = _Example.FromString(serialized).features.feature
  features: dict[str, Any] = {}
  for name in list(found) if names is None else names:
    if name not in found:  # looking one up would make it
      continue
    feature = found[name]
    kind = feature.WhichOneof("kind")
    if kind == "float_list":
      features[name] = _floats(feature.float_list)
    elif kind is not None:
      features[name] = list(getattr(feature, kind).value)
  return features


def _packed(value: np.ndarray) -> bytes:
  """Returns the FloatList of float32[D] as it is on the wire (field 1, its bytes' count as a varint, its bytes,
  little-endian): six times as fast as appending each number."""
  if not value.size:
    return b""
  length, rest = bytearray(), value.nbytes
  while rest > 0x7F:
    length.append(rest & 0x7F | 0x80)
    rest >>= 7
  return b"\x0a" + bytes([*length, rest]) + value.astype("<f4", copy=False).tobytes()


def _floats(float_list: Any) -> np.ndarray:
  """Returns float32[D]. On the wire a packed list ends with its values, little-endian, one after the other: looking at
  them there is five times as fast as asking for each."""
  count = len(float_list.value)
  packed = float_list.SerializeToString()
  return np.frombuffer(packed, "<f4", count, len(packed) - 4 * count) if count else np.empty(0, np.float32)
