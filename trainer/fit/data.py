"""Loads the transform and the records of a `bottlenecks` output.

Memory holds the data once, or a temporary file does: tf.data parses a batch of records at a time, which is transformed
and written to its final place.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from beam_retrain.trainer.fit.vectors import Vectors, make_vectors
from beam_retrain.transforms.core.errors import InputError, first_line, listed
from beam_retrain.transforms.core.images.augment import DISTORTED, key_of_original
from beam_retrain.transforms.core.models.subgraph import extract_subgraph
from beam_retrain.transforms.core.records.schema import (
  BOTTLENECK,
  CLASS_INDEX,
  KEY,
  LABEL,
  RECORDS_FOLDER,
  SHA256,
  TESTING,
  TRAINING,
  VALIDATION,
  parse_shard_name,
)
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.records.tfrecord import read_records
from beam_retrain.transforms.core.records.trained_on import TrainedOn, starts_of
from beam_retrain.transforms.core.run.stats import read_stats
from beam_retrain.transforms.core.system.plain_path import plain_path

RECORDS_PER_BATCH = 1024
_FILES = (TRAINING, VALIDATION, TESTING)  # validation files exist only if the data set names such images


@dataclasses.dataclass(frozen=True)
class Bottlenecks:
  """All bottlenecks of a data set."""

  vectors: Vectors  # float32 [N, D], transformed; an array, or in a file
  classes: np.ndarray  # int32 [N], class indices
  rows: dict[str, np.ndarray]  # split -> int64 [n], rows of `vectors`; `DISTORTED` has variants of training images
  labels: Sequence[str]
  sha256: str  # of keys, classes and untransformed vectors, 64 hex digits
  images: np.ndarray | None = None  # uint64 [N], as in `starts_of`; None if a record has no SHA-256

  @property
  def dimensions(self) -> int:
    return int(self.vectors.shape[1])

  @property
  def learned_rows(self) -> np.ndarray:
    """int64 [n]: the training images and their distorted variants."""
    variants = self.rows.get(DISTORTED)
    return self.rows[TRAINING] if variants is None else np.concatenate([self.rows[TRAINING], variants])

  @property
  def trained_on(self) -> TrainedOn | None:
    """The images for training, and for choosing the round."""
    if self.images is None:
      return None
    return TrainedOn.make(self.images[np.concatenate([self.rows[TRAINING], self.rows[VALIDATION]])])

  def counts(self, split: str) -> np.ndarray:
    """Returns int64 [C], the images of each class in a split."""
    return np.bincount(self.classes[self.rows[split]], minlength=len(self.labels))


def load_bottlenecks(
  folder: str,
  *,
  labels: Sequence[str],
  dimensions: int,
  percentages: SplitPercentages,
  transform: Callable[[tf.Tensor], tf.Tensor],
  memory_limit: int | None = None,
) -> Bottlenecks:
  """Loads the records of a finished `bottlenecks` output.

  `transform` maps float32 [n, D] to float32 [n, D]; `percentages` divide the training files' records into training and
  validation; for `memory_limit` see `make_vectors`. Raises InputError if records are missing, damaged or of another
  trunk, or a class has no training or validation image.
  """
  files = {split: shard_files(os.path.join(folder, RECORDS_FOLDER), split) for split in _FILES}
  expected = _expected_counts(folder)
  if DISTORTED in expected:
    files[DISTORTED] = shard_files(os.path.join(folder, DISTORTED), TRAINING)
  total = sum(expected.values())
  vectors = make_vectors((total, dimensions), memory_limit)
  classes = np.empty(total, np.int32)
  splits = [*files, ""]
  split_of_row = np.empty(total, np.uint8)  # of `splits`
  images: np.ndarray | None = np.empty(total, np.uint64)
  checksum = hashlib.sha256()
  filled = 0
  for split, paths in files.items():
    start = filled
    for keys, batch_classes, batch, digests in _read_batches(paths, dimensions):
      end = filled + len(keys)
      if end - start > expected[split]:
        raise _wrong_count(folder, split, f"more than {expected[split]}", expected[split])
      if not (batch_classes.min() >= 0 and batch_classes.max() < len(labels)):
        raise InputError(f"{folder}: a {split} record has a class index beyond labels.txt: run `bottlenecks` again.")
      checksum.update(b"".join(keys))
      checksum.update(batch_classes.data)
      checksum.update(batch.data)
      classes[filled:end] = batch_classes
      vectors[filled:end] = transform(tf.constant(batch)).numpy()
      split_of_row[filled:end] = [splits.index(_split_of(key.decode(), split, percentages)) for key in keys]
      images = _add_images(images, filled, digests)
      filled = end
    if filled - start != expected[split]:
      raise _wrong_count(folder, split, str(filled - start), expected[split])
  rows = {split: np.flatnonzero(split_of_row == number) for number, split in enumerate(files)}
  loaded = Bottlenecks(vectors, classes, rows, labels, checksum.hexdigest(), images)
  _validate_classes(loaded, percentages)
  return loaded


def _add_images(images: np.ndarray | None, place: int, digests: Sequence[bytes]) -> np.ndarray | None:
  if images is not None:
    try:
      images[place : place + len(digests)] = starts_of([digest.decode() for digest in digests])
    except ValueError:
      return None
  return images


def _split_of(key: str, of_file: str, percentages: SplitPercentages) -> str:
  """Returns a record's split; empty for variants of validation images."""
  if of_file != DISTORTED:
    return percentages.split_of(key, given=of_file)
  return DISTORTED if percentages.split_of(key_of_original(key), given=TRAINING) == TRAINING else ""


def shard_files(folder: str, split: str) -> list[str]:
  """Returns a split's shards; raises InputError if some are missing."""
  names = os.listdir(folder) if os.path.isdir(folder) else []  # a missing folder fails by its record count
  shards = {name: parsed for name in names if (parsed := parse_shard_name(name)) and parsed[0] == split}
  missing = {of for _, _, of in shards.values()} - {len(shards)}
  if missing:
    raise InputError(f"{folder} has {len(shards)} of {max(missing)} {split} shards: run `bottlenecks` again.")
  return [os.path.join(folder, name) for name in sorted(shards)]


def _expected_counts(folder: str) -> dict[str, int]:
  stats = read_stats(folder)
  expected = {split: stats.splits[split].outputs if split in stats.splits else 0 for split in _FILES}
  return {**expected, DISTORTED: stats.distorted.get("records", 0)} if stats.distorted else expected


def _wrong_count(folder: str, split: str, count: str, expected: int) -> InputError:
  return InputError(
    f"{folder} holds {count} {split} records, but its stats.json says {expected}: run `bottlenecks` again."
  )


def _read_batches(
  files: Sequence[str], dimensions: int
) -> Iterator[tuple[list[bytes], np.ndarray, np.ndarray, list[bytes]]]:
  """Yields (keys, int64 [n], float32 [n, D], SHA-256 hex digests)."""
  features = {
    KEY: tf.io.FixedLenFeature([], tf.string),
    CLASS_INDEX: tf.io.FixedLenFeature([], tf.int64),
    BOTTLENECK: tf.io.FixedLenFeature([dimensions], tf.float32),
    SHA256: tf.io.FixedLenFeature([], tf.string, default_value=""),
  }
  if not files:
    return
  records = tf.data.TFRecordDataset(list(files), buffer_size=1 << 20)
  dataset = records.batch(RECORDS_PER_BATCH).map(lambda batch: tf.io.parse_example(batch, features)).prefetch(1)
  try:
    for batch in dataset.as_numpy_iterator():
      yield list(batch[KEY]), batch[CLASS_INDEX], batch[BOTTLENECK], list(batch[SHA256])
  except tf.errors.OpError as error:
    _raise_on_damage(files)
    first = next(iter(str(error.message).splitlines()), "")
    raise InputError(
      f"{os.path.dirname(files[0])} holds records that are not bottlenecks of {dimensions} numbers ({first}):"
      " run `bottlenecks` again."
    ) from error


def _raise_on_damage(files: Sequence[str]) -> None:
  """Names the first damaged file, which TensorFlow does not."""
  for path in files:
    with open(path, "rb") as file:
      for _ in read_records(file, path):
        pass


def _validate_classes(data: Bottlenecks, percentages: SplitPercentages) -> None:
  remedies = {
    TRAINING: "add images of it",
    VALIDATION: f"add images of it, or raise --validation_percentage above {percentages.validation:g}",
  }
  for split, remedy in remedies.items():
    empty = np.flatnonzero(data.counts(split) == 0)
    if len(empty):
      names = listed([data.labels[index] for index in empty.tolist()], 5)
      raise InputError(f"no {split} image for {len(empty)} of {len(data.labels)} labels ({names}): {remedy}.")


def load_transform(folder: str, labels: Sequence[str], dimensions: int) -> tf.types.experimental.ConcreteFunction:
  """Loads tensorflow-transform's graph: float32 [N, D] -> float32 [N, D].

  The folder is loaded as a plain SavedModel: importing tensorflow_transform would turn `tf.keras` into Keras 2 for the
  whole process. The graph also looks labels up in a table, which only checks the label list here and is then left out,
  so that trainer, exported model and frozen graph share one pure function with constant statistics.
  """
  try:
    with plain_path(os.path.join(folder, "transform_fn")) as plain:
      transform_fn = tf.saved_model.load(plain).transform_fn
    features = {BOTTLENECK: tf.zeros([len(labels), dimensions]), LABEL: tf.constant(list(labels), tf.string)}
    transformed = transform_fn(features)
  except Exception as error:
    raise InputError(
      f"{folder} cannot be used as a transform graph ({first_line(error)}): run `bottlenecks` again."
    ) from error
  if not np.array_equal(transformed[CLASS_INDEX].numpy(), np.arange(len(labels))):
    raise InputError(f"{folder} numbers the labels differently from labels.txt: run `bottlenecks` again.")
  return _bottleneck_only(transform_fn)


def _bottleneck_only(transform_fn: tf.types.experimental.ConcreteFunction) -> tf.types.experimental.ConcreteFunction:
  ((features,), _) = transform_fn.structured_input_signature
  input_index = sorted(features).index(BOTTLENECK)
  output_index = sorted(transform_fn.structured_outputs).index(BOTTLENECK)
  placeholder = transform_fn.inputs[input_index]
  output = transform_fn.outputs[output_index].op.name

  # Without the control inputs, which wait for the label's look-up, the table is left out.
  graph = extract_subgraph(transform_fn.graph.as_graph_def(), output)
  kept = {node.name for node in graph.node}
  # The captured statistics become constants.
  captures = zip(transform_fn.inputs[-len(transform_fn.captured_inputs) :], transform_fn.captured_inputs, strict=True)
  statistics = {inner.op.name: outer.numpy() for inner, outer in captures if inner.op.name in kept}

  @tf.function(input_signature=[tf.TensorSpec(placeholder.shape, tf.float32, name=BOTTLENECK)], autograph=False)
  def transform(bottleneck: tf.Tensor) -> tf.Tensor:
    constants = {name: tf.constant(value) for name, value in statistics.items()}
    (transformed,) = tf.import_graph_def(
      graph,
      input_map={placeholder.op.name: bottleneck, **constants},
      return_elements=[f"{output}:0"],
      name="transform",
    )
    return tf.ensure_shape(transformed, placeholder.shape)

  return transform.get_concrete_function()
