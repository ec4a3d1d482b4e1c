"""A Beam `ModelHandler` for trunks and exported models.

Beam's own TensorFlow handlers cannot load a SavedModel under Keras 3.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from apache_beam.ml.inference import base
from apache_beam.ml.inference.base import ModelHandler
from apache_beam.utils.shared import Shared

from beam_retrain.transforms.core.arguments import AnyPath, as_path
from beam_retrain.transforms.core.images.headers import MAX_PIXELS
from beam_retrain.transforms.core.models.head import decode_head
from beam_retrain.transforms.core.models.inference import (
  BATCH_SIZE,
  Inferred,
  LoadedModel,
  infer_images,
  load_model,
  load_with_oom_fallback,
  with_head,
)
from beam_retrain.transforms.core.printing import print
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import SAVED_MODEL_FOLDER, Image
from beam_retrain.transforms.core.runtimes.prepared import CARD_FILE, PREPARED_FOLDER, find_prepared, foreign_reason
from beam_retrain.transforms.core.runtimes.trunk_info import PreparedInfo
from beam_retrain.transforms.core.runtimes.variant import FLOAT32, instructions, kind_of
from beam_retrain.transforms.core.system.machine import Threads
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.beam_internals import see_resource
from beam_retrain.transforms.io.transfer import download
from beam_retrain.transforms.shards.progress import TRUNK_LOADS, count_here

see_resource(base)

BATCH_METRIC = "trunk_batch_pictures"
"""Distribution of the trunk's batch size, updated after each shard."""


class ImageModelHandler(ModelHandler[Image, "Inferred | Quarantined", LoadedModel]):
  """Runs a SavedModel over images, loaded once per process; for `RunInference` too.

  Attributes:
    path: folder of a trunk (`B/trunk`) or an exported model (`M/saved_model`), readable by the workers; a remote one is
      downloaded to each machine.
    batch_size: images per call of the graph; halved if memory runs out.
    threads: of the graph, per process; 0: the available cores divided by `processes`.
    processes: worker processes per machine; 0: one per core.
    max_pixels: largest height x width that is decoded.
    trunk_only: run only the trunk of an exported model.
    head: `head.npz` to put on the trunk, for `scores` instead of bottlenecks.
    exact: whether all machines must run a prepared trunk as it was prepared, for bottlenecks with the same bits. Else a
      machine of another kind runs its SavedModel in float32, by TensorFlow.

  Raises:
    InputError: when it is loaded, the model cannot be used, or not on this machine.
  """

  def __init__(
    self,
    path: AnyPath,
    *,
    batch_size: int = BATCH_SIZE,
    threads: int = 0,
    processes: int = 1,
    max_pixels: int = MAX_PIXELS,
    trunk_only: bool = False,
    head: AnyPath = "",
    exact: bool = False,
  ):
    super().__init__()
    if batch_size < 1:
      raise ValueError(f"batch_size is {batch_size}, must be at least 1")
    self._path = as_path(path)
    self.batch_size = batch_size
    self.thread_limits = Threads(threads, processes)
    self.max_pixels = max_pixels
    self._trunk_only = trunk_only
    self._head = as_path(head, "head")
    self._exact = exact
    self._shared = Shared()
    self._loads = 0

  def load_model(self) -> LoadedModel:
    files.check_seen(self._path)
    self._loads += 1

    path, head, use_prepared = self._path, self._head, True
    if not self._exact and (saved := self._saved_model_instead()):
      # An exported model has the head inside.
      path, head, use_prepared = saved, head if saved == path else "", False
    trunk_only = self._trunk_only or (path != self._path and not self._head)

    def load(batch_size: int) -> LoadedModel:
      return load_model(
        download(path),
        self.thread_limits.here,
        trunk_only=trunk_only,
        batch_size=batch_size,
        use_prepared=use_prepared,
      )

    loaded = load_with_oom_fallback(load, self.batch_size)
    return with_head(loaded, decode_head(files.read_bytes(head), head), head) if head else loaded

  def _saved_model_instead(self) -> str:
    """Returns the SavedModel to run instead of a foreign trunk, or ""."""
    prepared = find_prepared(download(self._path))
    reason = foreign_reason(prepared) if prepared else ""
    if not reason:
      return ""
    # Beside the prepared trunk, or of a trained model.
    for folder in (self._path, files.join(files.split(self._path)[0], SAVED_MODEL_FOLDER)):
      if files.exists(files.join(folder, "saved_model.pb")):
        print(f"{self._path}: {reason}; so it runs in float32 by TensorFlow, from {folder}", file=sys.stderr)
        return folder
    return ""

  def kind(self) -> str:
    """Returns what decides the bits of the model's results on this machine."""
    card = files.join(self._path, PREPARED_FOLDER, CARD_FILE)
    precision = PreparedInfo.parse(files.read_bytes(card).decode()).variant.precision if files.exists(card) else FLOAT32
    return kind_of(precision, instructions())

  def load_once(self) -> LoadedModel:
    """Returns the process's copy of the model; loads it if necessary."""
    # By the tag, another model in the same process replaces the one kept alive.
    model: LoadedModel = self._shared.acquire(self.load_model, tag=f"{self._path} {self._head}")
    return model

  def count_loads(self) -> None:
    """Counts the model's loads; call it on the bundle's thread."""
    # The model is loaded on the decoding thread.
    if self._loads:
      count_here(TRUNK_LOADS, self._loads)
      self._loads = 0

  def run_inference(
    self, batch: Sequence[Image], model: LoadedModel, inference_args: Mapping[str, Any] | None = None
  ) -> Iterable[Inferred | Quarantined]:
    return list(self.infer(batch, model))

  def infer(
    self, images: Iterable[Image | Quarantined], model: LoadedModel | Callable[[], LoadedModel]
  ) -> Iterator[Inferred | Quarantined]:
    """Yields one item per input, in order; decodes ahead on one thread.

    `model` may also be a function, such as `load_once`, called at the first image that can be decoded.
    """
    return infer_images(images, model, batch_size=self.batch_size, max_pixels=self.max_pixels)

  def get_num_bytes(self, batch: Sequence[Image]) -> int:
    return sum(len(image.encoded) for image in batch)

  def batch_elements_kwargs(self) -> Mapping[str, int]:
    return {"min_batch_size": self.batch_size, "max_batch_size": self.batch_size}

  def get_metrics_namespace(self) -> str:
    return "beam_retrain"
