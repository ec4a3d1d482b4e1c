"""Keras: `model.predict` over `image_dataset_from_directory`, as its guides have it.

Compiled by XLA it takes as long per image here, and longer to begin.
"""

from __future__ import annotations

import json
import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf

from benchmarks.peers.protocol import INPUT_PX, End, end_of_batch, hand_back, read_task


class Stamps(keras.callbacks.Callback):
  """Notes when each batch is done."""

  def __init__(self) -> None:
    super().__init__()
    self.ends: list[End] = []

  def on_predict_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
    self.ends.append(end_of_batch(len(logs["outputs"]) if logs else 0))


def main() -> None:
  task = read_task(("float32", "bfloat16"))
  if task.precision == "bfloat16":
    keras.config.set_dtype_policy("mixed_bfloat16")
  weights = task.network / json.loads((task.network / "network.json").read_text())["keras_weights"]
  model = keras.applications.InceptionV3(include_top=False, pooling="avg", weights=weights)
  model.compile(jit_compile=False)
  dataset = keras.utils.image_dataset_from_directory(
    task.folder,
    labels=None,
    color_mode="rgb",
    batch_size=task.batch_size,
    image_size=(INPUT_PX, INPUT_PX),
    shuffle=False,
    verbose=False,
  )
  assert list(dataset.file_paths)[: len(task.images)] == list(task.images)
  scaled = dataset.take(len(task.batches)).map(keras.applications.inception_v3.preprocess_input)
  stamps = Stamps()
  vectors = model.predict(scaled.prefetch(2), verbose=0, callbacks=[stamps])
  hand_back(task, vectors, stamps.ends, {"keras": keras.__version__, "tensorflow": tf.__version__})


if __name__ == "__main__":
  main()
