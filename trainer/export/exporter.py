"""Exports a trained head: as SavedModel, frozen graph and arrays.

The SavedModel takes image bytes and returns labels:

| function            | in                                   | out                                              |
|---------------------|--------------------------------------|--------------------------------------------------|
| `preprocess`        | string [N], image bytes              | float32 [N, S, S, 3], 0..1                       |
| `embed`             | float32 [N, S, S, 3], 0..1           | float32 [N, D]: the trunk alone                  |
| `score_images`      | float32 [N, S, S, 3], 0..1           | `scores`                                         |
| `score_bottlenecks` | float32 [N, D], as the trunk gives   | `scores`                                         |
| `serving_default`   | `key`, `image_bytes`: string [N]     | `key`, `label`, `confidence`, `top_labels`, ...  |
| `bottlenecks`       | `key` string [N], `bottleneck`       | the same                                         |

`scores` is float32 [N, C], 0..1, in the order of `labels`; `confidence` float32 [N] is the highest of them and `label`
string [N] its label; `top_labels` string [N, K] and `top_scores` float32 [N, K] are the K best, best first, and K is
min(5, C). The last two functions are the signatures: they return all of these, and the `key` unchanged. They are
composed of the functions above, so that all paths compute the same.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from beam_retrain.trainer.export import frozen_graph
from beam_retrain.trainer.export.stored_trunk import StoredTrunk
from beam_retrain.trainer.fit.head import LinearHead
from beam_retrain.transforms.core.images.decode import preprocess
from beam_retrain.transforms.core.models.head import HEAD_FILE, Head, encode_head
from beam_retrain.transforms.core.records.schema import (
  FROZEN_GRAPH_FILE,
  LABELS_FILE,
  RETRAINED_LABELS_FILE,
  SAVED_MODEL_FOLDER,
  TRUNK_FOLDER,
)
from beam_retrain.transforms.core.run.output_folder import write_labels
from beam_retrain.transforms.core.runtimes.prepared import PREPARED_FOLDER
from beam_retrain.transforms.core.system import local_files
from beam_retrain.transforms.core.system.plain_path import plain_path

_TOP = 5
_SCORES_DIFFER_BY = 1e-3  # at most, as rounding
_FAR = 1024.0  # far from 0, so that the difference of two values keeps all digits of float32


@dataclasses.dataclass(frozen=True)
class Exporter:
  """Exports a head; loads the trunk when it is first needed."""

  trunk_folder: str
  transform: Callable[[tf.Tensor], tf.Tensor]  # float32 [N, D] -> float32 [N, D]
  labels: Sequence[str]  # class index -> label
  input_px: int
  dimensions: int
  final_tensor_name: str

  @functools.cached_property
  def trunk(self) -> StoredTrunk:
    return StoredTrunk(self.trunk_folder)

  def assemble(self, weights: frozen_graph.Weights) -> tf.Module:
    """Returns the functions above, with a placeholder for the trunk."""
    keys = tf.TensorSpec([None], tf.string, name="key")
    encoded = tf.TensorSpec([None], tf.string, name="image_bytes")
    pixels = tf.TensorSpec([None, self.input_px, self.input_px, 3], tf.float32, name="images")
    vectors = tf.TensorSpec([None, self.dimensions], tf.float32, name="bottleneck")
    kernel, bias = weights
    module = tf.Module()
    # The names of the inner functions are in the file, and decide the order of its functions: they stay.
    module.labels = tf.Variable(list(self.labels), trainable=False, name="labels")

    @tf.function(input_signature=[encoded], autograph=False)
    def preprocess_pictures(image_bytes: tf.Tensor) -> tf.Tensor:
      return preprocess(image_bytes, self.input_px)

    @tf.function(input_signature=[pixels], autograph=False)
    def embed_pictures(images: tf.Tensor) -> tf.Tensor:
      return tf.zeros([tf.shape(images)[0], self.dimensions])  # replaced by the trunk when it is saved

    @tf.function(input_signature=[vectors], autograph=False)
    def score_bottlenecks(bottleneck: tf.Tensor) -> dict[str, tf.Tensor]:
      logits = tf.matmul(self.transform(bottleneck), tf.constant(kernel)) + tf.constant(bias)
      return {"scores": tf.nn.softmax(logits)}

    @tf.function(input_signature=[pixels], autograph=False)
    def score_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
      return score_bottlenecks(embed_pictures(images))

    @tf.function(input_signature=[keys, encoded], autograph=False)
    def serve_images(key: tf.Tensor, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
      return self._decide(key, score_images(preprocess_pictures(image_bytes))["scores"])

    @tf.function(input_signature=[keys, vectors], autograph=False)
    def serve_bottlenecks(key: tf.Tensor, bottleneck: tf.Tensor) -> dict[str, tf.Tensor]:
      return self._decide(key, score_bottlenecks(bottleneck)["scores"])

    module.preprocess = preprocess_pictures
    module.embed = embed_pictures
    module.score_images = score_images
    module.score_bottlenecks = score_bottlenecks
    module.serve_images = serve_images
    module.serve_bottlenecks = serve_bottlenecks
    return module

  def _decide(self, key: tf.Tensor, scores: tf.Tensor) -> dict[str, tf.Tensor]:
    top_scores, top_classes = tf.math.top_k(scores, k=min(_TOP, len(self.labels)))
    top_labels = tf.gather(tf.constant(list(self.labels), tf.string), top_classes)
    return {
      "key": key,
      "label": top_labels[:, 0],
      "confidence": top_scores[:, 0],
      "top_labels": top_labels,
      "top_scores": top_scores,
      "scores": scores,
    }

  def save(self, module: tf.Module, folder: str) -> None:
    """Writes the result of `assemble`, with the trunk, as a SavedModel."""
    signatures = {"serving_default": module.serve_images, "bottlenecks": module.serve_bottlenecks}
    os.makedirs(folder, exist_ok=True)
    with plain_path(folder) as plain:
      tf.saved_model.save(module, plain, signatures=signatures)
      self.trunk.put_into(plain, "embed")

  @functools.cached_property
  def _frozen(self) -> tuple[tf.compat.v1.GraphDef, list[tf.compat.v1.NodeDef]]:
    """The frozen graph, and the two constants of its head.

    Freezing an Inception v3 takes seconds and hundreds of megabytes; replacing the constants takes neither and gives
    the same bytes.
    """
    rng = np.random.default_rng(0)
    classes = len(self.labels)
    # Random weights mark the head's constants: no trunk has the same.
    marks = [rng.normal(size=shape).astype(np.float32) for shape in ((self.dimensions, classes), (classes,))]
    scores = self.assemble(marks).score_bottlenecks
    graph = frozen_graph.freeze_behind(self.trunk, scores, self.final_tensor_name)
    return graph, [frozen_graph.find_constant(graph, mark) for mark in marks]

  def freeze(self, weights: frozen_graph.Weights) -> bytes:
    """Returns the file of the frozen graph."""
    graph, constants = self._frozen
    for constant, values in zip(constants, weights, strict=True):
      constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values))
    return graph.SerializeToString(deterministic=True)

  def flatten(self, head: LinearHead) -> Head:
    """Returns the transform's scale and offset, the head's kernel and bias.

    Raises ValueError if the transform does more than scale and shift each number.
    """
    offset = self.transform(tf.zeros([1, self.dimensions])).numpy()[0]
    scale = (self.transform(tf.fill([1, self.dimensions], _FAR)).numpy()[0] - offset) / np.float32(_FAR)
    probe = np.linspace(-3, 3, 5 * self.dimensions, dtype=np.float32).reshape(5, self.dimensions)
    if not np.allclose(self.transform(tf.constant(probe)).numpy(), probe * scale + offset, rtol=1e-4, atol=1e-4):
      raise ValueError("the transform graph does more than scale and shift each number")
    return Head(scale, offset, *head.get_weights())

  def _check(self, exported: tf.Module, flat: Head) -> None:
    """Raises ValueError unless `head.npz` scores as the exported model does."""
    vectors = (np.random.default_rng(0).normal(size=(64, self.dimensions)) - flat.offset) / np.where(
      flat.scale, flat.scale, 1
    )
    scores = exported.score_bottlenecks(tf.constant(vectors, tf.float32))["scores"].numpy()
    if not np.allclose(scores, flat.score(vectors.astype(np.float32)), atol=_SCORES_DIFFER_BY):
      raise ValueError("the exported model's scores differ from those of its head alone")

  def write(self, head: LinearHead, output: str) -> Head:
    """Writes all but the TensorFlow Lite files; returns the head's arrays."""
    flat = self.flatten(head)
    exported = self.assemble(head.get_weights())
    self._check(exported, flat)
    with local_files.atomic_folder(os.path.join(output, SAVED_MODEL_FOLDER)) as folder:
      self.save(exported, folder)
    local_files.write_bytes(os.path.join(output, FROZEN_GRAPH_FILE), self.freeze(head.get_weights()))
    local_files.write_bytes(os.path.join(output, HEAD_FILE), encode_head(flat))
    prepared = os.path.join(self.trunk_folder, PREPARED_FOLDER)  # computed the bottlenecks
    if os.path.isdir(prepared):  # early versions have none
      with local_files.atomic_folder(os.path.join(output, TRUNK_FOLDER)) as folder:
        shutil.copytree(prepared, os.path.join(folder, PREPARED_FOLDER), copy_function=local_files.link_or_copy)
    for name in (LABELS_FILE, RETRAINED_LABELS_FILE):
      write_labels(output, self.labels, name=name)
    return flat
