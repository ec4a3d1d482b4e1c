"""The way of `retrain.py` to its bottlenecks: one session; for each image one call that decodes and resizes, one call
of the network, and a text file of numbers with commas between them. Written anew, from what that script did."""

from __future__ import annotations

import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from benchmarks.peers.frozen_graph import import_frozen
from benchmarks.peers.protocol import INPUT_PX, End, end_of_batch, hand_back, read_task

v1 = tf.compat.v1


def main() -> None:
  task = read_task(("float32",))
  vectors: list[np.ndarray] = []
  ends: list[End] = []
  with tf.Graph().as_default(), tempfile.TemporaryDirectory() as folder:
    images, bottleneck = import_frozen(task.network)
    encoded = v1.placeholder(tf.string)
    decoded = tf.cast(tf.image.decode_jpeg(encoded, channels=3), tf.float32) / 255
    resized = v1.image.resize_bilinear(decoded[None], [INPUT_PX, INPUT_PX], half_pixel_centers=True)
    with v1.Session() as session:
      for path in task.images:
        with open(path, "rb") as file:
          pixels = session.run(resized, {encoded: file.read()})
        vector = np.squeeze(session.run(bottleneck, {images: pixels}))
        with open(os.path.join(folder, f"{os.path.basename(path)}.txt"), "w") as file:
          file.write(",".join(str(number) for number in vector))
        vectors.append(vector)
        ends.append(end_of_batch(1))
  hand_back(task, np.array(vectors), ends, {"tensorflow": tf.__version__})


if __name__ == "__main__":
  main()
