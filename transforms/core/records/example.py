"""Encodes and decodes `tf.train.Example` without TensorFlow.

The messages are declared here as in TensorFlow's `tensorflow/core/example/{example,feature}.proto`, so that the bytes
are the same and `convert` need not load TensorFlow. They have their own descriptor pool, since TensorFlow registers the
same names in the default one.
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
  """Serialises features; the same features always give the same bytes.

  bytes and str (as UTF-8) become a bytes list of one, int an int64 list of one, float32 [D] a float list of D; others
  raise TypeError.
  """
  return _serialize(_Example(), features)


def replace_features(serialized: bytes, features: Mapping[str, Value]) -> bytes:
  """Returns a serialised Example with some features replaced."""
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
      feature.float_list.MergeFromString(_pack_floats(value))
    else:
      raise TypeError(f"feature {name!r}: cannot store a {type(value).__name__}")
  serialized: bytes = example.SerializeToString(deterministic=True)
  return serialized


def decode_example(serialized: bytes, names: Collection[str] | None = None) -> dict[str, list[Any] | np.ndarray]:
  """Returns feature name -> list of bytes or int, or float32 [D].

  Decodes the features in `names` that are present (None: all). Raises `google.protobuf.message.DecodeError` if the
  bytes are not an Example.
  """
  stored = _Example.FromString(serialized).features.feature
  features: dict[str, list[Any] | np.ndarray] = {}
  for name in list(stored) if names is None else names:
    if name not in stored:  # a lookup would create it
      continue
    feature = stored[name]
    kind = feature.WhichOneof("kind")
    if kind == "float_list":
      features[name] = _floats(feature.float_list)
    elif kind is not None:
      features[name] = list(getattr(feature, kind).value)
  return features


def _pack_floats(value: np.ndarray) -> bytes:
  """Encodes a float32 [D] array as a FloatList, in wire format.

  Field 1, byte count as a varint, little-endian values: six times as fast as appending each number.
  """
  if not value.size:
    return b""
  return b"\x0a" + varint(value.nbytes) + value.astype("<f4", copy=False).tobytes()


def varint(value: int) -> bytes:
  """Encodes an unsigned integer as Protocol Buffers do."""
  encoded = bytearray()
  while value > 0x7F:
    encoded.append(value & 0x7F | 0x80)
    value >>= 7
  return bytes([*encoded, value])


def _floats(float_list: Any) -> np.ndarray:
  """Decodes a FloatList to float32 [D].

  Its wire format ends with the little-endian values: five times as fast as reading each.
  """
  count = len(float_list.value)
  packed = float_list.SerializeToString()
  return np.frombuffer(packed, "<f4", count, len(packed) - 4 * count) if count else np.empty(0, np.float32)
