"""Our `tf.train.Example` against TensorFlow's: the same bytes in both directions."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import DecodeError

from beam_retrain.transforms.core.records.example import decode_example, encode_example, replace_features

_FEATURES = {
  "bytes": b"\x00\xff JPEG",
  "text": "Gänseblümchen",
  "small": -1,
  "big": 2**62,
  "vector": np.array([0.0, -1.5, 3.25e-3, np.inf], np.float32),
}


def _tensorflow_example() -> tf.train.Example:
  example = tf.train.Example()
  feature = example.features.feature
  feature["bytes"].bytes_list.value.append(b"\x00\xff JPEG")
  feature["text"].bytes_list.value.append("Gänseblümchen".encode())
  feature["small"].int64_list.value.append(-1)
  feature["big"].int64_list.value.append(2**62)
  feature["vector"].float_list.value.extend([0.0, -1.5, 3.25e-3, float("inf")])
  return example


def test_encodes_the_bytes_that_tensorflow_writes():
  assert encode_example(_FEATURES) == _tensorflow_example().SerializeToString(deterministic=True)


def test_golden_bytes():
  # tf.train.Example with a = int64 -1 and b = bytes "x", SerializeToString(deterministic=True).
  golden = bytes.fromhex("0a210a130a0161120e1a0c0a0affffffffffffffffff010a0a0a016212050a030a0178")
  assert encode_example({"a": -1, "b": b"x"}) == golden


def test_tensorflow_reads_what_we_write():
  assert tf.train.Example.FromString(encode_example(_FEATURES)) == _tensorflow_example()


def test_tf_data_parses_what_we_write():
  parsed = tf.io.parse_single_example(
    encode_example(_FEATURES),
    {
      "bytes": tf.io.FixedLenFeature([], tf.string),
      "small": tf.io.FixedLenFeature([], tf.int64),
      "vector": tf.io.FixedLenFeature([4], tf.float32),
    },
  )
  assert parsed["bytes"].numpy() == b"\x00\xff JPEG"
  assert parsed["small"].numpy() == -1
  np.testing.assert_array_equal(parsed["vector"].numpy(), _FEATURES["vector"])


def test_reads_what_tensorflow_writes():
  decoded = decode_example(_tensorflow_example().SerializeToString())
  assert decoded.keys() == _FEATURES.keys()
  assert decoded["bytes"] == [b"\x00\xff JPEG"]
  assert decoded["text"] == ["Gänseblümchen".encode()]
  assert decoded["small"] == [-1]
  assert decoded["big"] == [2**62]
  assert decoded["vector"].dtype == np.float32
  np.testing.assert_array_equal(decoded["vector"], _FEATURES["vector"])


def test_lists_longer_than_one_are_read_whole():
  example = tf.train.Example()
  example.features.feature["many"].int64_list.value.extend([3, 1, 2])
  example.features.feature["none"].SetInParent()
  assert decode_example(example.SerializeToString()) == {"many": [3, 1, 2]}


def test_the_order_of_features_does_not_change_the_bytes():
  backwards = dict(reversed(list(_FEATURES.items())))
  assert list(backwards) != list(_FEATURES)
  assert encode_example(backwards) == encode_example(_FEATURES)


def test_numpy_integers_are_integers():
  assert encode_example({"a": np.int64(7)}) == encode_example({"a": 7})


@pytest.mark.parametrize(
  "value",
  [1.5, None, ["a"], np.zeros(3, np.float64), np.zeros((2, 2), np.float32)],
  ids=["float", "none", "list", "float64", "matrix"],
)
def test_other_types_are_refused_by_name(value):
  with pytest.raises(TypeError, match="'wrong'"):
    encode_example({"wrong": value})


def test_bytes_that_are_no_example_are_refused():
  with pytest.raises(DecodeError):
    decode_example(b"\xff\xff\xff")


def test_a_replaced_feature_gives_the_bytes_of_an_example_made_with_it():
  features = {"a": "text", "n": 3, "vector": np.array([1.5, -0.0, 3e-45], np.float32), "b": b"\x00"}
  new = {"a": "other", "n": 4, "added": "x"}
  assert replace_features(encode_example(features), new) == encode_example({**features, **new})


def test_only_the_features_that_are_asked_for_are_converted():
  example = encode_example({"a": "text", "n": 3, "vector": np.zeros(2, np.float32)})
  assert decode_example(example, ("n", "missing", "a")) == {"n": [3], "a": [b"text"]}
  assert decode_example(example, ()) == {}


@pytest.mark.parametrize("length", [0, 1, 31, 32, 512, 2048, 600_000])
def test_a_vector_of_any_length_has_the_bytes_that_tensorflow_writes(length):
  vector = np.random.default_rng(length).standard_normal((length, 2), np.float32)[:, 1]  # not one after the other
  example = tf.train.Example()
  example.features.feature["vector"].float_list.value.extend(vector.tolist())
  assert encode_example({"vector": vector}) == example.SerializeToString(deterministic=True)
