"""Writes a trained head as SavedModel, frozen graph and arrays."""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
from collections.abc import Callable, Sequence

import tensorflow as tf

from beam_retrain.trainer.export import frozen_graph, output_dir, saved_model
from beam_retrain.trainer.export.numpy_head import numpy_head
from beam_retrain.trainer.export.stored_trunk import StoredTrunk
from beam_retrain.trainer.fit.head import LinearHead
from beam_retrain.transforms.core.models.head import HEAD_FILE, Head, encode_head
from beam_retrain.transforms.core.records.schema import FROZEN_GRAPH_FILE, LABELS_FILE, RETRAINED_LABELS_FILE
from beam_retrain.transforms.core.run.run_info import write_labels
from beam_retrain.transforms.core.system import local_files


@dataclasses.dataclass(frozen=True)
class Exporter:
  """Exports a head; loads the trunk when it is first needed.

  Attributes:
    transform: float32 [N, D] -> float32 [N, D].
    labels: class index -> label.
  """

  trunk_folder: str
  transform: Callable[[tf.Tensor], tf.Tensor]
  labels: Sequence[str]
  input_px: int
  dimensions: int
  final_tensor_name: str

  @functools.cached_property
  def trunk(self) -> StoredTrunk:
    return StoredTrunk(self.trunk_folder)

  def assemble(self, weights: frozen_graph.Weights) -> tf.Module:
    """Returns the model without its trunk."""
    return saved_model.build_exported(
      labels=self.labels,
      transform=self.transform,
      weights=weights,
      input_px=self.input_px,
      dimensions=self.dimensions,
    )

  @functools.cached_property
  def freeze(self) -> Callable[[frozen_graph.Weights], bytes]:
    """A function from a head's weights to the frozen graph's file."""
    return frozen_graph.freeze_for_any_head(
      lambda weights: frozen_graph.freeze_behind(
        self.trunk, self.assemble(weights).score_bottlenecks, self.final_tensor_name
      ),
      self.dimensions,
      len(self.labels),
    )

  def flatten(self, head: LinearHead) -> Head:
    return numpy_head(self.transform, head, self.dimensions)

  def write(self, head: LinearHead, output: str) -> Head:
    """Writes all but the TensorFlow Lite files; returns the head's arrays."""
    flat = self.flatten(head)
    exported = self.assemble(head.get_weights())
    with local_files.atomic_folder(os.path.join(output, output_dir.SAVED_MODEL)) as folder:
      saved_model.save_exported(exported, folder, self.trunk)
    local_files.write_bytes(os.path.join(output, FROZEN_GRAPH_FILE), self.freeze(head.get_weights()))
    local_files.write_bytes(os.path.join(output, HEAD_FILE), encode_head(flat))
    self._copy_prepared(output)
    for name in (LABELS_FILE, RETRAINED_LABELS_FILE):
      write_labels(output, self.labels, name=name)
    return flat

  def _copy_prepared(self, output: str) -> None:
    """Copies the prepared trunk, which computed the bottlenecks."""
    prepared = os.path.join(self.trunk_folder, output_dir.PREPARED)
    if os.path.isdir(prepared):  # early versions have none
      with local_files.atomic_folder(os.path.join(output, output_dir.TRUNK)) as folder:
        shutil.copytree(prepared, os.path.join(folder, output_dir.PREPARED))
