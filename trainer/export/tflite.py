"""Exports the model to TensorFlow Lite: float, and with an int8 trunk.

Both files have the input `images`, float32 [N, S, S, 3], 0..1, and the output `scores`, float32 [N, C], softmax; N may
be resized.

The z-score of the transform graph is folded into the head's kernel and bias, in float64. In the int8 file this layer
and its softmax stay in float: a full-size Inception v3's standard deviations, from 10**-6 to 1, give a kernel of which
8-bit numbers with one scale keep little. That model's accuracy on MNIST was 16.7 % with the head in int8, 91.1 %
without, 91.9 % in float. The layer is a ten-thousandth of the arithmetic.
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from beam_retrain.trainer.export.metrics import Int8Measures, LiteFile
from beam_retrain.trainer.export.tflite_options import TfliteOptions, labels_file
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.decode import preprocess
from beam_retrain.transforms.core.models.head import Head
from beam_retrain.transforms.core.models.tflite import LiteModel, quiet_interpreter
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import (
  RECORDS_FOLDER,
  TESTING,
  TRAINING,
  describe_bottleneck,
  parse_shard_name,
)
from beam_retrain.transforms.core.records.splits import SplitPercentages, stable_hash
from beam_retrain.transforms.core.records.tfrecord import read_records
from beam_retrain.transforms.core.run.progress_line import ProgressLine
from beam_retrain.transforms.core.system import local_files
from beam_retrain.transforms.core.system.prefetch import batched

_SALT = b"beam-retrain-calibration-1:"
_BATCH_SIZE = 32
_HEAD_OPERATIONS = ["FULLY_CONNECTED", "SOFTMAX"]


class ImageRef(NamedTuple):
  """An image's class index and SHA-256, 64 hex digits."""

  class_index: int
  sha256: str


def draw_calibration(bottlenecks: str, percentages: SplitPercentages, images: str, count: int) -> list[bytes]:
  """Returns the training images with the smallest salted hashes of their keys.

  Args:
    percentages: decides which images are training images.
    images: folder, or CSV manifest, with the images.
  """
  hashed = (
    (stable_hash(key, _SALT), key, image)
    for key, image in _describe(bottlenecks, TRAINING)
    if percentages.split_of(key, given=TRAINING) == TRAINING
  )
  drawn = {key: image for _, key, image in heapq.nsmallest(count, hashed)}
  encoded = dict(_find(images, drawn))
  return [encoded[key] for key in drawn]


def write_tflite(
  options: TfliteOptions,
  *,
  output: str,
  embed: Callable[[tf.Tensor], tf.Tensor],
  head: Head,
  input_px: int,
  labels: Iterable[str],
  calibration: Iterable[bytes],
  bottlenecks: str,
) -> dict[str, LiteFile]:
  """Writes the requested files and their labels; measures the int8 one.

  Args:
    output: the model's folder; reported paths are relative to it.
    embed: the trunk, float32 [N, S, S, 3] -> float32 [N, D]; its weights are constants.
    labels: class index -> label.
    bottlenecks: the output folder of `bottlenecks`; the int8 file is measured on its testing images.

  Returns:
    Kind, `float` or `int8`, -> the written file.
  """
  scores = _fold(embed, head, input_px)
  lines = "".join(f"{label}\n" for label in labels).encode()
  written: dict[str, LiteFile] = {}
  if path := options.tflite_output_file:
    written["float"] = _write(path, _convert(scores), lines, output)
  if path := options.tflite_int8_output_file:
    images = list(calibration)
    file = _write(path, _convert(scores, images), lines, output)
    testing = dict(_describe(bottlenecks, TESTING))
    accuracy = _accuracy(LiteModel(path), testing, str(options.tflite_calibration_input)) if testing else None
    int8 = Int8Measures(len(images), len(testing), accuracy)
    written["int8"] = dataclasses.replace(file, int8=int8)
  return written


def _fold(embed: Callable[[tf.Tensor], tf.Tensor], head: Head, input_px: int) -> tf.types.experimental.ConcreteFunction:
  kernel, bias = (array.astype(np.float32) for array in head.fold())

  @tf.function(input_signature=[tf.TensorSpec([None, input_px, input_px, 3], tf.float32, name="images")])
  def score(images: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"scores": tf.nn.softmax(tf.matmul(embed(images), kernel) + bias)}

  return score.get_concrete_function()


def _convert(scores: tf.types.experimental.ConcreteFunction, calibration: list[bytes] | None = None) -> bytes:
  """Returns the file's contents, given calibration images in int8.

  The head stays in float.
  """
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
    # Only the debugger can exclude operations; nothing is debugged.
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


def _accuracy(model: LiteModel, wanted: Mapping[str, ImageRef], folder: str) -> float:
  right = 0
  decode = tf.function(
    lambda encoded: preprocess(encoded, model.input_px), input_signature=[tf.TensorSpec([None], tf.string)]
  )
  with ProgressLine("int8 accuracy", total=len(wanted)) as progress:
    for batch in batched(_find(folder, wanted), _BATCH_SIZE):
      images = decode(tf.constant([encoded for _, encoded in batch])).numpy()
      predicted = model.score(images).argmax(axis=1)
      right += int(np.sum(predicted == [wanted[key].class_index for key, _ in batch]))
      progress.add(len(batch))
  return right / len(wanted)


def _describe(bottlenecks: str, split: str) -> Iterator[tuple[str, ImageRef]]:
  """Yields (key, image) of each bottleneck record in a split's files."""
  folder = os.path.join(bottlenecks, RECORDS_FOLDER)
  for name in sorted(os.listdir(folder)):
    parsed = parse_shard_name(name)
    if parsed and parsed[0] == split:
      path = os.path.join(folder, name)
      with open(path, "rb") as file:
        for record in read_records(file, path):
          described = describe_bottleneck(record)
          yield described.key, ImageRef(described.class_index, described.sha256)


def _find(folder: str, wanted: Mapping[str, ImageRef]) -> Iterator[tuple[str, bytes]]:
  """Yields (key, bytes) of every wanted image once, in order.

  Raises InputError if one is missing or has changed since its bottleneck was computed.
  """
  from beam_retrain.transforms.sources.find import find_source  # loads Beam, which training does without

  remedy = "pass the folder with the unchanged images that `bottlenecks` read as --tflite_calibration_input."
  left = dict(wanted)
  for found in find_source(folder, min_classes=1).read_keys(wanted):
    if isinstance(found, Quarantined) or not (image := left.pop(found.key, None)):
      continue
    if found.sha256 != image.sha256:
      raise InputError(f"{found.key} in {folder} has changed since its bottleneck was computed: {remedy}")
    yield found.key, found.encoded
  if left:
    raise InputError(f"{folder} lacks {len(left)} of {len(wanted)} images, {min(left)} for example: {remedy}")
