"""The records that stages hand each other, and the names of their files."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
import tensorflow as tf

from beam_retrain.transforms.core.records import schema
from beam_retrain.transforms.core.records.example import encode_example

_IMAGE = schema.Image("training/5/17.jpg", "fünf", b"\xff\xd8 image", "jpeg", 28, 30)
_BOTTLENECK = schema.Bottleneck(
  "training/5/17.jpg", "fünf", 5, np.array([0.5, 0.0, 7.25], np.float32), "jpeg", 28, 30, "ab" * 32
)


def test_an_image_record_holds_the_fields_of_the_contract():
  features = tf.train.Example.FromString(schema.encode_image(_IMAGE, 5)).features.feature
  assert {name: feature.WhichOneof("kind") for name, feature in features.items()} == {
    "image/key": "bytes_list",
    "image/encoded": "bytes_list",
    "image/format": "bytes_list",
    "image/height": "int64_list",
    "image/width": "int64_list",
    "image/class/label": "int64_list",
    "image/class/text": "bytes_list",
    "image/sha256": "bytes_list",
  }
  assert features["image/class/label"].int64_list.value == [5]
  assert features["image/sha256"].bytes_list.value == [hashlib.sha256(b"\xff\xd8 image").hexdigest().encode()]


def test_a_bottleneck_record_has_the_vector_and_no_image():
  features = tf.train.Example.FromString(schema.encode_bottleneck(_BOTTLENECK)).features.feature
  assert set(features) == {
    "image/key",
    "image/format",
    "image/height",
    "image/width",
    "image/class/label",
    "image/class/text",
    "image/sha256",
    "bottleneck",
  }
  assert list(features["bottleneck"].float_list.value) == [0.5, 0.0, 7.25]


def test_an_image_comes_back():
  assert schema.decode_image(schema.encode_image(_IMAGE, 5)) == _IMAGE


def test_a_bottleneck_comes_back():
  decoded = schema.decode_bottleneck(schema.encode_bottleneck(_BOTTLENECK))
  assert decoded.vector.dtype == np.float32
  np.testing.assert_array_equal(decoded.vector, _BOTTLENECK.vector)
  assert dataclasses.replace(decoded, vector=None) == dataclasses.replace(_BOTTLENECK, vector=None)


def test_a_relabelled_bottleneck_is_the_one_that_would_have_been_written():
  other = dataclasses.replace(_BOTTLENECK, key="testing/8/1.png", label="8", class_index=8)
  record = schema.encode_bottleneck(_BOTTLENECK)
  assert schema.relabel_bottleneck(record, other.key, other.label, 8) == schema.encode_bottleneck(other)


def test_a_bottleneck_can_be_described_without_its_vector():
  record = schema.encode_bottleneck(_BOTTLENECK)
  described = schema.describe_bottleneck(record)
  assert described.vector.size == 0
  assert dataclasses.replace(described, vector=None) == dataclasses.replace(_BOTTLENECK, vector=None)
  assert schema.digest_of_record(record).hex() == _BOTTLENECK.sha256


@pytest.mark.parametrize(
  "decode", [schema.decode_image, schema.decode_bottleneck, schema.describe_bottleneck, schema.digest_of_record]
)
def test_a_record_without_a_feature_is_refused_by_its_name(decode):
  with pytest.raises(KeyError, match="image/"):
    decode(encode_example({"something": 1}))


def test_shard_names_come_back():
  name = schema.shard_name("training", 3, 60)
  assert name == "training-00003-of-00060.tfrecord"
  assert schema.parse_shard_name(name) == ("training", 3, 60)
  assert schema.parse_shard_name(schema.shard_name("testing", 0, 1, "csv")) == ("testing", 0, 1)


def test_names_of_a_billion_images_shards_come_back_and_sort():
  names = [schema.shard_name("training", index, 976_563) for index in (0, 99_999, 100_000, 976_562)]
  assert sorted(names) == names
  assert schema.parse_shard_name(names[2]) == ("training", 100_000, 976_563)


@pytest.mark.parametrize(
  "name",
  [
    "training-3-of-60.tfrecord",
    "training-00003-of-00060.tfrecord.tmp-ab",
    "mine-training-00003-of-00060.tfrecord",
    "labels.txt",
    "",
  ],
)
def test_other_names_are_not_shards(name):
  assert schema.parse_shard_name(name) is None
