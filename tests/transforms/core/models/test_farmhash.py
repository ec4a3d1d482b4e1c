"""FarmHash, checked against TensorFlow's."""

import random

import pytest
import tensorflow as tf

from beam_retrain.transforms.core.models.farmhash import fingerprint64


@pytest.mark.parametrize("size", [65, 127, 128, 129, 191, 192, 193, 5_000])
def test_it_is_tensorflows(size):
  data = random.Random(size).randbytes(size)
  (theirs,) = tf.raw_ops.Fingerprint(data=tf.constant([list(data)], tf.uint8), method="farmhash64").numpy()
  assert fingerprint64(data) == int.from_bytes(bytes(theirs), "little")
