"""Training with distortions as `retrain.py` did it: every step draws its images, distorts them and runs the trunk.

    python -m benchmarks.distort_every_step --bottlenecks DIR --data DIR --random_crop 10 --output FILE

Written anew, from what that script did (`get_random_distorted_bottlenecks`), and to run as fast as it can this way: a
step's images go through decoder and trunk as one batch, decoded and distorted by several threads while the trunk is
busy with the step before; `retrain.py` took one image at a time. Images, splits and the trunk are those of
BOTTLENECKS, so is the head: plain gradient descent on z-scored vectors, as of `train --preset retrain`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from beam_retrain.transforms.core.images.augment_tf import distort
from beam_retrain.transforms.core.images.decode import decode_rgb, preprocess
from beam_retrain.transforms.core.models.saved_model import load_saved_model
from beam_retrain.transforms.core.records.schema import (
  RECORDS_FOLDER,
  TESTING,
  TRAINING,
  VALIDATION,
  describe_bottleneck,
  parse_shard_name,
)
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.records.tfrecord import read_records
from beam_retrain.transforms.core.run.output_folder import read_info
from beam_retrain.transforms.sources.find import find_source

_STEPS_PER_LOOK = 100
_STEPS_TO_WARM_UP = 5


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--bottlenecks", required=True, type=Path, help="what `beam-retrain bottlenecks` wrote")
  parser.add_argument("--data", required=True, help="the images that it read")
  parser.add_argument("--output", required=True, type=Path, help="JSON file to write")
  parser.add_argument("--steps", type=int, default=4000)
  parser.add_argument("--batch_size", type=int, default=100)
  parser.add_argument("--learning_rate", type=float, default=0.01)
  parser.add_argument("--flip_left_right", action="store_true")
  for name in ("random_crop", "random_scale", "random_brightness"):
    parser.add_argument(f"--{name}", type=int, default=0, metavar="PERCENT")
  flags = parser.parse_args()
  info = read_info(str(flags.bottlenecks), "bottlenecks")
  input_px, labels = info.trunk.input_px, info.labels
  embed = load_saved_model(str(flags.bottlenecks / "trunk")).embed
  classes, pictures = _read(flags.bottlenecks, flags.data, SplitPercentages.from_settings(info.settings))

  # As there: bottlenecks of images that are not distorted are made once.
  plain = {split: _embed(embed, pictures[split], input_px) for split in pictures}
  mean, deviation = plain[TRAINING].mean(axis=0), plain[TRAINING].std(axis=0)
  deviation[deviation == 0] = 1
  known = {split: (vectors - mean) / deviation for split, vectors in plain.items()}
  kernel = tf.Variable(tf.zeros([len(mean), len(labels)]))
  bias = tf.Variable(tf.zeros([len(labels)]))

  @tf.function
  def take_step(images: tf.Tensor, of_images: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
    vectors = (embed(images) - mean) / deviation
    with tf.GradientTape() as tape:
      losses = tf.nn.sparse_softmax_cross_entropy_with_logits(of_images, vectors @ kernel + bias)
      loss = tf.reduce_mean(losses)
    for variable, gradient in zip((kernel, bias), tape.gradient(loss, (kernel, bias)), strict=True):
      variable.assign_sub(rate * gradient)
    return loss

  def accuracy(split: str) -> float:
    predicted = (known[split] @ kernel.numpy() + bias.numpy()).argmax(axis=1)
    return float(np.mean(predicted == classes[split]))

  batches = iter(_stream(pictures[TRAINING], classes[TRAINING], input_px, flags))
  for _ in range(_STEPS_TO_WARM_UP):
    take_step(*next(batches), tf.constant(0.0))
  start = time.perf_counter()
  for step in range(flags.steps):
    take_step(*next(batches), tf.constant(flags.learning_rate))
    if (step + 1) % _STEPS_PER_LOOK == 0:
      print(f"step {step + 1}: validation accuracy {accuracy(VALIDATION):.1%}", flush=True)
  seconds = time.perf_counter() - start
  result = {"steps_seconds": seconds, "testing_accuracy": accuracy(TESTING)}
  flags.output.write_text(json.dumps(result) + "\n")


def _read(
  bottlenecks: Path, data: str, percentages: SplitPercentages
) -> tuple[dict[str, np.ndarray], dict[str, list[bytes]]]:
  """Returns per split the class indices, int32 [n], and the images' bytes."""
  split_and_class = {}
  for path in sorted((bottlenecks / RECORDS_FOLDER).glob("*.tfrecord")):
    given = parse_shard_name(path.name)[0]
    with path.open("rb") as file:
      for record in read_records(file, path.name):
        described = describe_bottleneck(record)
        split_and_class[described.key] = (percentages.split_of(described.key, given=given), described.class_index)
  splits = (TRAINING, VALIDATION, TESTING)
  classes: dict[str, list[int]] = {split: [] for split in splits}
  pictures: dict[str, list[bytes]] = {split: [] for split in splits}
  for image in find_source(data).read_keys(split_and_class):
    split, class_index = split_and_class[image.key]
    classes[split].append(class_index)
    pictures[split].append(image.encoded)
  return {split: np.array(found, np.int32) for split, found in classes.items()}, pictures


def _embed(embed: tf.types.experimental.GenericFunction, pictures: list[bytes], input_px: int) -> np.ndarray:
  """Returns float32 [n, D]."""
  batches = tf.data.Dataset.from_tensor_slices(pictures).batch(100)
  images = batches.map(lambda batch: preprocess(batch, input_px), num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)
  return np.concatenate([embed(batch).numpy() for batch in images])


def _stream(pictures: list[bytes], classes: np.ndarray, input_px: int, flags: argparse.Namespace) -> tf.data.Dataset:
  """Element: (float32 [n, S, S, 3], int32 [n]): drawn uniformly over classes, then over the class's images; each
  distorted at random."""
  rng = np.random.default_rng(0)
  rows_of_class = [np.flatnonzero(classes == number) for number in range(classes.max() + 1)]
  margin, count = 1 + flags.random_crop / 100, flags.batch_size

  def draw() -> Iterator[tuple[list[bytes], np.ndarray, np.ndarray, np.ndarray]]:
    while True:
      rows = [rng.choice(rows_of_class[number]) for number in rng.integers(len(rows_of_class), size=count)]
      sides = (input_px * margin * rng.uniform(1, 1 + flags.random_scale / 100, count)).astype(np.int32)
      corners = rng.integers(0, (sides - input_px + 1)[:, None], (count, 2))
      mirrored = rng.integers(2, size=count) * flags.flip_left_right
      brightness = rng.uniform(1 - flags.random_brightness / 100, 1 + flags.random_brightness / 100, count)
      geometry = np.column_stack([sides, corners, mirrored]).astype(np.int32)
      yield [pictures[row] for row in rows], geometry, brightness.astype(np.float32), classes[rows]

  def decode(
    encoded: tf.Tensor, geometry: tf.Tensor, brightness: tf.Tensor, of_images: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor]:
    images = tf.map_fn(
      lambda one: distort(decode_rgb(one[0]), one[1], one[2], input_px),
      (encoded, geometry, brightness),
      fn_output_signature=tf.TensorSpec([input_px, input_px, 3], tf.float32),
      parallel_iterations=8,
    )
    return images, of_images

  signature = (
    tf.TensorSpec([count], tf.string),
    tf.TensorSpec([count, 4], tf.int32),
    tf.TensorSpec([count], tf.float32),
    tf.TensorSpec([count], tf.int32),
  )
  drawn = tf.data.Dataset.from_generator(draw, output_signature=signature)
  return drawn.map(decode, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


if __name__ == "__main__":
  main()
