"""The ways to score images with a model's folder, and their agreement.

The reference is the exported model in the batches of a job, see `beam_retrain.transforms.bottlenecks.model_handler`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from beam_retrain.transforms.core.errors import InputError, first_line
from beam_retrain.transforms.core.images.decode import decoder
from beam_retrain.transforms.core.models.head import HEAD_FILE, decode_head
from beam_retrain.transforms.core.models.inference import load_model, with_head
from beam_retrain.transforms.core.models.saved_model import load_saved_model
from beam_retrain.transforms.core.models.tflite import LiteModel
from beam_retrain.transforms.core.records.schema import FINAL_TENSOR, FROZEN_GRAPH_FILE, SAVED_MODEL_FOLDER
from beam_retrain.transforms.core.run.output_folder import find_info
from beam_retrain.transforms.core.system import local_files

REFERENCE = "exported model"


@dataclasses.dataclass
class ScoringPath:
  """One way to score images, and its differences from the reference."""

  name: str
  score: Callable[[Sequence[bytes]], np.ndarray]  # list of N image bytes -> float32 [N, C], 0..1
  is_exact: bool = True  # whether its scores are the float model's, up to rounding
  # Largest difference of scores, 0..1, that counts as rounding; None: compares labels instead
  bound: float | None = None
  images: int = 0
  largest: float = 0.0  # largest difference of two scores of one label, 0..1; infinite if a score was not finite
  other_labels: int = 0
  beyond: int = 0  # images with a difference above the bound
  first: str = ""  # describes the first of these; without a bound, the first with another label

  def add(self, keys: Sequence[str], encoded: Sequence[bytes], expected: np.ndarray, labels: Sequence[str]) -> None:
    """Scores N images and compares with the reference's scores, float32 [N, C]."""
    scores = self.score(encoded)
    if scores.shape != (len(keys), len(labels)):
      raise InputError(
        f"{self.name} belongs to another model: it gives {scores.shape[-1]} scores per image, but there are"
        f" {len(labels)} labels."
      )
    differences = np.abs(scores.astype(np.float64) - expected)
    differences[~np.isfinite(differences)] = np.inf
    rows = differences.max(axis=1)
    others = scores.argmax(axis=1) != expected.argmax(axis=1)
    beyond = np.zeros(len(keys), bool) if self.bound is None else rows > self.bound
    self.images += len(keys)
    self.largest = max(self.largest, float(rows.max()))
    self.other_labels += int(others.sum())
    self.beyond += int(beyond.sum())
    disagreements = np.flatnonzero(others if self.bound is None else beyond)
    if not self.first and len(disagreements):
      row = disagreements[0]
      answers = (f"{labels[each[row].argmax()]!r} {each[row].max():.4%}" for each in (expected, scores))
      self.first = (
        f"{keys[row]}: {REFERENCE} {next(answers)}, {self.name} {next(answers)}; their scores of"
        f" {labels[differences[row].argmax()]!r} differ by {rows[row]:.6f}"
      )


def serving_signature(model: str) -> ScoringPath:
  """Image bytes into `serving_default`, as on a server."""
  serve = load_saved_model(os.path.join(model, SAVED_MODEL_FOLDER)).signatures["serving_default"]

  def score(encoded: Sequence[bytes]) -> np.ndarray:
    keys = tf.constant([str(number) for number in range(len(encoded))])
    scores: np.ndarray = serve(key=keys, image_bytes=tf.constant(encoded, tf.string))["scores"].numpy()
    return scores

  return ScoringPath("serving signature", score)


def stored_head(model: str) -> ScoringPath:
  """Bottlenecks into the numpy head, as `evaluate --reuse` and `reevaluate` do."""
  path = os.path.join(model, HEAD_FILE)
  trunk = load_model(os.path.join(model, SAVED_MODEL_FOLDER), trunk_only=True)
  scoring = with_head(trunk, decode_head(_read(path), path), path)
  return ScoringPath(
    f"bottleneck, then {HEAD_FILE}", lambda encoded: scoring.infer(scoring.preprocess(encoded))["scores"]
  )


def frozen_graph(model: str) -> ScoringPath:
  """Pixels into `Placeholder` of `retrained_graph.pb`, as scripts for `retrain.py` do."""
  path = os.path.join(model, FROZEN_GRAPH_FILE)
  data = _read(path)
  info = find_info(model)
  output = info.settings.get("final_tensor_name", FINAL_TENSOR) if info else FINAL_TENSOR
  definition = tf.compat.v1.GraphDef()
  try:
    definition.ParseFromString(data)
  except Exception as error:  # protobuf's own, named differently in each of its implementations
    raise InputError(f"{path} is not a frozen graph: run `beam-retrain train` again.") from error
  try:
    imported = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), [])
    images = imported.graph.get_tensor_by_name("Placeholder:0")
    graph = imported.prune(images, imported.graph.get_tensor_by_name(f"{output}:0"))
    input_px = int(images.shape[1])
  except Exception as error:
    first = first_line(error)
    raise InputError(
      f"{path} cannot be run from Placeholder to {output} ({first}): run `beam-retrain train` again."
    ) from error
  decode = decoder(input_px)
  return ScoringPath(FROZEN_GRAPH_FILE, lambda encoded: graph(decode(tf.constant(encoded, tf.string))).numpy())


def lite_file(path: str) -> ScoringPath:
  """A TensorFlow Lite file."""
  model = LiteModel(path)
  decode = decoder(model.input_px)
  name = f"{os.path.basename(path)}{' (int8)' if model.is_quantized else ''}"
  return ScoringPath(
    name, lambda encoded: model.score(decode(tf.constant(encoded, tf.string)).numpy()), not model.is_quantized
  )


def _read(path: str) -> bytes:
  if not os.path.isfile(path):
    raise InputError(f"{path} does not exist: run `beam-retrain train` again to write it.")
  return local_files.read_bytes(path)
