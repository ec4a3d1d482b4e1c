"""The model for TensorFlow Lite: float, and with a trunk of 8-bit weights and arithmetic.

Input `images`, float32 [N, S, S, 3], 0..1; output `scores`, float32 [N, C], softmax; N may be resized. The int8 file
takes and gives the same, so that one replaces the other.

The z-score of the transform graph is folded into the head's kernel and bias, in float64, and in the int8 file this one
layer and its softmax stay in float: where standard deviations are far apart (10**-6 to 1, of a full-size Inception v3),
so are the numbers of the kernel, and of 8-bit numbers of one common scale few are left. All in int8, that model's
accuracy on MNIST was 16.7 %; this way 91.1 %, float 91.9 %. The layer is a ten-thousandth of the arithmetic.
"""

from __future__ import annotations

import hashlib
import heapq
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from beam_retrain.trainer.export.tflite_flags import TfliteRequest, labels_file
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.decode import preprocess
from beam_retrain.transforms.core.images.lookup import find_again
from beam_retrain.transforms.core.models.head import Head
from beam_retrain.transforms.core.models.tflite import LiteModel, quiet_interpreter
from beam_retrain.transforms.core.records.schema import (
  RECORDS_FOLDER,
  TESTING,
  TRAINING,
  describe_bottleneck,
  parse_shard_name,
)
from beam_retrain.transforms.core.records.splits import SplitPercentages, stable_hash
from beam_retrain.transforms.core.records.tfrecord import read_records
from beam_retrain.transforms.core.run.progress_line import CountProgress
from beam_retrain.transforms.core.system import local_files
from beam_retrain.transforms.core.system.prefetch import batched

_SALT = b"beam-retrain-calibration-1:"
_BATCH_SIZE = 32
_HEAD_OPERATIONS = ["FULLY_CONNECTED", "SOFTMAX"]


class Image(NamedTuple):
  """A image to be found again: its class index, and the SHA-256 of its bytes, 64 hex digits."""

  class_index: int
  sha256: str


def draw_calibration(bottlenecks: str, percentages: SplitPercentages, request: TfliteRequest) -> list[bytes]:
  """Returns the bytes of the training images with the smallest salted hashes of their keys, in that order.

  Raises:
    InputError: they are not where the request says.
  """
  hashed = (
    (stable_hash(key, _SALT), key, image)
    for key, image in _describe(bottlenecks, TRAINING)
    if percentages.split_of(key, given=TRAINING) == TRAINING
  )
  drawn = {key: image for _, key, image in heapq.nsmallest(request.calibration_images, hashed)}
  found = dict(_find(request.images, drawn))
  return [found[key] for key in drawn]


def write_tflite(
  request: TfliteRequest,
  *,
  output: str,
  embed: Callable[[tf.Tensor], tf.Tensor],
  head: Head,
  input_px: int,
  labels: Iterable[str],
  calibration: Iterable[bytes],
  bottlenecks: str,
) -> dict[str, Any]:
  """Writes the files that were asked for, each with its labels beside it, and measures the int8 one.

  Args:
    request: which files.
    output: the model's folder; paths are told relative to it.
    embed: the trunk, float32 [N, S, S, 3] -> float32 [N, D]; its weights are constants.
    head: the transform graph and the head as numbers.
    input_px: S.
    labels: class index -> label.
    calibration: see `draw_calibration`.
    bottlenecks: what `bottlenecks` wrote: whose testing images the int8 file is measured on.

  Returns:
    What `metrics.json` says of them: `float` and `int8`, as far as asked for, with `file`, `bytes`, `sha256`; of int8
    also `calibration_images`, `testing_images`, and `testing_accuracy`, 0..1, None where there are no such images.
  """
  scores = _fold(embed, head, input_px)
  lines = "".join(f"{label}\n" for label in labels).encode()
  written: dict[str, Any] = {}
  if request.float_file:
    written["float"] = _write(request.float_file, _convert(scores), lines, output)
  if request.int8_file:
    images = list(calibration)
    written["int8"] = _write(request.int8_file, _convert(scores, images), lines, output)
    wanted = dict(_describe(bottlenecks, TESTING))
    written["int8"] |= {
      "calibration_images": len(images),
      "testing_images": len(wanted),
      "testing_accuracy": _accuracy(LiteModel(request.int8_file), wanted, request.images) if wanted else None,
    }
  return written


def _fold(embed: Callable[[tf.Tensor], tf.Tensor], head: Head, input_px: int) -> tf.types.experimental.ConcreteFunction:
  """softmax((b * scale + offset) @ kernel + bias) = softmax(b @ (scale * kernel) + (offset @ kernel + bias))."""
  kernel = head.kernel.astype(np.float64)
  folded_kernel = (head.scale.astype(np.float64)[:, np.newaxis] * kernel).astype(np.float32)
  folded_bias = (head.offset.astype(np.float64) @ kernel + head.bias).astype(np.float32)

  @tf.function(input_signature=[tf.TensorSpec([None, input_px, input_px, 3], tf.float32, name="images")])
  def score(images: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"scores": tf.nn.softmax(tf.matmul(embed(images), folded_kernel) + folded_bias)}

  return score.get_concrete_function()


def _convert(scores: tf.types.experimental.ConcreteFunction, calibration: list[bytes] | None = None) -> bytes:
  """Returns the file's contents; with images for calibration, in int8 but for the head."""
  converter = tf.lite.TFLiteConverter.from_concrete_functions([scores], tf.Module())
  convert = converter.convert
  if calibration is not None:
    input_px = int(scores.inputs[0].shape[1])

    def representative() -> Iterator[list[tf.Tensor]]:
      for encoded in calibration:
        yield [preprocess(tf.constant([encoded]), input_px)]

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    # Nothing else may stay behind in float unseen.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    # The debugger is the only way to leave operations out; nothing is debugged.
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


def _write(path: str, data: bytes, labels: bytes, output: str) -> dict[str, Any]:
  os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
  local_files.write_bytes(path, data)
  local_files.write_bytes(labels_file(path), labels)
  return {
    "file": os.path.relpath(path, output),
    "bytes": len(data),
    "sha256": hashlib.sha256(data).hexdigest(),
  }


def _accuracy(model: LiteModel, wanted: Mapping[str, Image], folder: str) -> float:
  """Returns which part, 0..1, of the images is given its own label."""
  right = 0
  decode = tf.function(
    lambda encoded: preprocess(encoded, model.input_px), input_signature=[tf.TensorSpec([None], tf.string)]
  )
  with CountProgress("int8 accuracy", total=len(wanted)) as progress:
    for batch in batched(_find(folder, wanted), _BATCH_SIZE):
      images = decode(tf.constant([encoded for _, encoded in batch])).numpy()
      predicted = model.score(images).argmax(axis=1)
      right += int(np.sum(predicted == [wanted[key].class_index for key, _ in batch]))
      progress.add(len(batch))
  return right / len(wanted)


def _describe(bottlenecks: str, split: str) -> Iterator[tuple[str, Image]]:
  """Yields (key, image) of each bottleneck record of a split's files."""
  folder = os.path.join(bottlenecks, RECORDS_FOLDER)
  for name in sorted(os.listdir(folder)):
    parsed = parse_shard_name(name)
    if parsed and parsed[0] == split:
      path = os.path.join(folder, name)
      with open(path, "rb") as file:
        for record in read_records(file, path):
          described = describe_bottleneck(record)
          yield described.key, Image(described.class_index, described.sha256)


def _find(folder: str, wanted: Mapping[str, Image]) -> Iterator[tuple[str, bytes]]:
  """Yields (key, bytes) of every image that is wanted, once, in the order of the data set.

  Raises:
    InputError: one is missing, or is another image than the bottleneck was made of.
  """
  remedy = "give with --tflite_calibration_input the folder of the images that `bottlenecks` read, as they were."
  left = dict(wanted)
  for key, encoded in find_again(folder, wanted):
    image = left.pop(key, None)
    if image and hashlib.sha256(encoded).hexdigest() != image.sha256:
      raise InputError(f"{key} in {folder} is another image than its bottleneck was made of: {remedy}")
    if image:
      yield key, encoded
  if left:
    raise InputError(f"{folder} is without {len(left)} of {len(wanted)} images, {min(left)} for example: {remedy}")
