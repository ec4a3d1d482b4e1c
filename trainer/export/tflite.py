"""Exports the model to TensorFlow Lite: float, and with an int8 trunk.

Both files have the input `images`, float32 [N, S, S, 3], 0..1, and the output `scores`, float32 [N, C], softmax; N may
be resized.

The z-score of the transform graph is folded into the head's kernel and bias, in float64. In the int8 file this layer
and its softmax stay in float: a full-size Inception v3's standard deviations, from 10**-6 to 1, give a kernel of which
8-bit numbers with one scale keep little. That model's accuracy on MNIST was 16.7 % with the head in int8, 91.1 %
without, 91.9 % in float. The layer is a ten-thousandth of the arithmetic.
"""

from __future__ import annotations

import hashlib
import heapq
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from beam_retrain.trainer.export.exporter import Exporter
from beam_retrain.trainer.export.output_files import Int8File, LiteFile
from beam_retrain.trainer.export.tflite_options import TfliteOptions, labels_file
from beam_retrain.trainer.fit.data import shard_files
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.decode import decoder, preprocess
from beam_retrain.transforms.core.models.head import Head
from beam_retrain.transforms.core.models.saved_model import load_saved_model
from beam_retrain.transforms.core.models.tflite import LiteModel, quiet_interpreter
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import (
  RECORDS_FOLDER,
  TESTING,
  TRAINING,
  Bottleneck,
  describe_bottleneck,
)
from beam_retrain.transforms.core.records.splits import SplitPercentages, stable_hash
from beam_retrain.transforms.core.records.tfrecord import read_records
from beam_retrain.transforms.core.run.output_folder import find_info
from beam_retrain.transforms.core.run.progress_line import ProgressLine
from beam_retrain.transforms.core.system import local_files
from beam_retrain.transforms.core.system.prefetch import batched

_SALT = b"beam-retrain-calibration-1:"
_BATCH_SIZE = 32
_HEAD_OPERATIONS = ["FULLY_CONNECTED", "SOFTMAX"]


def draw_calibration(bottlenecks: str, percentages: SplitPercentages, images: str, count: int) -> list[bytes]:
  """Returns the training images with the smallest salted hashes of their keys.

  `images` is the folder, or CSV manifest, with the images.
  """
  training = (
    record
    for record in _describe(bottlenecks, TRAINING)
    if percentages.split_of(record.key, given=TRAINING) == TRAINING
  )
  drawn = heapq.nsmallest(count, training, key=lambda record: (stable_hash(record.key, _SALT), record.key))
  encoded = dict(_find(images, drawn, bottlenecks))
  return [encoded[record.key] for record in drawn]


def write_tflite(
  options: TfliteOptions,
  exporter: Exporter,
  head: Head,
  *,
  output: str,
  bottlenecks: str,
  calibration: list[bytes],
) -> dict[str, LiteFile]:
  """Writes the requested files and their labels, the paths relative to `output`.

  Measures the int8 one on the testing images of `bottlenecks`. Returns kind, `float` or `int8`, -> file.
  """
  written: dict[str, LiteFile] = {}
  if not (options.tflite_output_file or options.tflite_int8_output_file):
    return written
  scores = _fold(load_saved_model(exporter.trunk_folder).embed, head, exporter.input_px)
  lines = "".join(f"{label}\n" for label in exporter.labels).encode()
  if path := options.tflite_output_file:
    written["float"] = _write(path, _convert(scores), lines, output)
  if path := options.tflite_int8_output_file:
    file = _write(path, _convert(scores, calibration), lines, output)
    testing = list(_describe(bottlenecks, TESTING))
    images = str(options.tflite_calibration_input)
    accuracy = _accuracy(LiteModel(path), testing, images, bottlenecks) if testing else None
    written["int8"] = Int8File(
      **vars(file), calibration_images=len(calibration), testing_images=len(testing), testing_accuracy=accuracy
    )
  return written


def _fold(embed: Callable[[tf.Tensor], tf.Tensor], head: Head, input_px: int) -> tf.types.experimental.ConcreteFunction:
  kernel, bias = (array.astype(np.float32) for array in head.fold())

  @tf.function(input_signature=[tf.TensorSpec([None, input_px, input_px, 3], tf.float32, name="images")])
  def score(images: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"scores": tf.nn.softmax(tf.matmul(embed(images), kernel) + bias)}

  return score.get_concrete_function()


def _convert(scores: tf.types.experimental.ConcreteFunction, calibration: list[bytes] | None = None) -> bytes:
  """Returns the file's contents; with calibration images, the trunk is int8."""
  converter = tf.lite.TFLiteConverter.from_concrete_functions([scores], tf.Module())
  convert = converter.convert
  if calibration is not None:
    input_px = int(scores.inputs[0].shape[1])

    def representative() -> Iterator[list[tf.Tensor]]:
      for encoded in calibration:
        yield [preprocess(tf.constant([encoded]), input_px)]

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    # Fail rather than leave other operations in float.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    # Only the debugger can exclude operations.
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=_HEAD_OPERATIONS)

    def convert() -> bytes:
      debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=representative, debug_options=options
      )
      quantized: bytes = debugger.get_nondebug_quantized_model()
      return quantized

  with quiet_interpreter():
    converted: bytes = convert()
  return converted


def _write(path: str, data: bytes, labels: bytes, output: str) -> LiteFile:
  os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
  local_files.write_bytes(path, data)
  local_files.write_bytes(labels_file(path), labels)
  return LiteFile(os.path.relpath(path, output), len(data), hashlib.sha256(data).hexdigest())


def _accuracy(model: LiteModel, records: Sequence[Bottleneck], folder: str, bottlenecks: str) -> float:
  right = 0
  classes = {record.key: record.class_index for record in records}
  decode = decoder(model.input_px)
  with ProgressLine("int8 accuracy", total=len(records)) as progress:
    for batch in batched(_find(folder, records, bottlenecks), _BATCH_SIZE):
      images = decode(tf.constant([encoded for _, encoded in batch])).numpy()
      predicted = model.score(images).argmax(axis=1)
      right += int(np.sum(predicted == [classes[key] for key, _ in batch]))
      progress.add(len(batch))
  return right / len(records)


def _describe(bottlenecks: str, split: str) -> Iterator[Bottleneck]:
  """Yields the records of a split's files, without their vectors."""
  for path in shard_files(os.path.join(bottlenecks, RECORDS_FOLDER), split):
    with open(path, "rb") as file:
      yield from map(describe_bottleneck, read_records(file, path))


def _find(folder: str, records: Iterable[Bottleneck], bottlenecks: str) -> Iterator[tuple[str, bytes]]:
  """Yields (key, bytes) of every record's image once, in the folder's order.

  IDX files are read as for `bottlenecks`, the folder that holds the records.
  """
  from beam_retrain.transforms.sources.find import find_source  # loads Beam, which training does without

  remedy = "pass the folder with the unchanged images that `bottlenecks` read as --tflite_calibration_input."
  checksums = {record.key: record.sha256 for record in records}
  wanted = len(checksums)
  info = find_info(bottlenecks)
  idx_settings = {name: value for name in ("class_names", "transpose") if info and (value := info.settings.get(name))}
  for image in find_source(folder, min_classes=1, **idx_settings).read_keys(frozenset(checksums)):
    if isinstance(image, Quarantined) or not (checksum := checksums.pop(image.key, None)):
      continue
    if image.sha256 != checksum:
      raise InputError(f"{image.key} in {folder} has changed since its bottleneck was computed: {remedy}")
    yield image.key, image.encoded
  if checksums:
    raise InputError(f"{folder} lacks {len(checksums)} of {wanted} images, {min(checksums)} for example: {remedy}")
