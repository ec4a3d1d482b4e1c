"""The way of `label_imageV3.py`: for each image new steps in a graph that only grows and a new session that decodes
it, then another new session that runs the network. Written anew, from what that script did.

It scored with the exported classifier; a head of ten classes costs nothing beside the trunk, so it is left out.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from benchmarks.peers.frozen_graph import import_frozen
from benchmarks.peers.protocol import INPUT_PX, End, end_of_batch, hand_back, read_task

v1 = tf.compat.v1


def main() -> None:
  task = read_task(("float32",))
  v1.disable_eager_execution()
  graph = tf.Graph()
  with graph.as_default():
    images, bottleneck = import_frozen(task.network)
  vectors: list[np.ndarray] = []
  ends: list[End] = []
  for path in task.images:
    decoded = tf.cast(tf.image.decode_jpeg(tf.io.read_file(path), channels=3), tf.float32)
    resized = v1.image.resize_bilinear(decoded[None], [INPUT_PX, INPUT_PX], half_pixel_centers=True)
    pixels = v1.Session().run((resized - [0]) / [255])
    with v1.Session(graph=graph) as session:
      vectors.append(np.squeeze(session.run(bottleneck, {images: pixels})))
    ends.append(end_of_batch(1))
  hand_back(task, np.array(vectors), ends, {"tensorflow": tf.__version__})


if __name__ == "__main__":
  main()
