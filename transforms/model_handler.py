"""The trunk, or a whole exported model, behind Beam's `ModelHandler`: loaded once per process, fixed padded batches.

Beam's own TensorFlow handlers cannot load a SavedModel folder under Keras 3. Both kinds of model come in the same form here:
`preprocess` (bytes -> float images), which may run one thread ahead, and `infer` (float images -> arrays).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from apache_beam.ml.inference.base import ModelHandler
from apache_beam.utils.shared import Shared

from transforms.core.images import MAX_PIXELS, Fault, explain, look
from transforms.core.prefetch import prefetch
from transforms.core.quarantine import Quarantined, Reason
from transforms.core.quiet_tensorflow import load_tensorflow
from transforms.core.schema import Image

T = TypeVar("T")
Outputs = dict[str, np.ndarray]

BATCH_SIZE = 32


class Inferred(NamedTuple):
  """A picture and what the model gave for it: output name -> array without the batch dimension."""

  image: Image
  outputs: Outputs


@dataclasses.dataclass(frozen=True)
class LoadedModel:
  """A model as a worker uses it. No tuple: `Shared` keeps weak references, which a tuple cannot have.

  Attributes:
    preprocess: list of N picture bytes -> float32 [N, S, S, 3], 0..1; raises where any of them cannot be decoded.
    infer: float32 [N, S, S, 3] -> output name -> array [N, ...].
  """

  preprocess: Callable[[Sequence[bytes]], Any]
  infer: Callable[[Any], Outputs]


class ImageModelHandler(ModelHandler[Image, "Inferred | Quarantined", LoadedModel]):
  """Runs a SavedModel over pictures; also for `RunInference` in anyone's pipeline.

  Attributes:
    path: folder of a trunk (`B/trunk`) or of an exported model (`M/saved_model`), readable by the workers.
    batch_size: pictures per call of the graph; a smaller rest is padded, so that the graph sees one shape only.
    threads: TensorFlow's threads in this process; 0 leaves TensorFlow's own choice.
    max_pixels: largest height x width that is decoded.
  """

  def __init__(self, path: str, *, batch_size: int = BATCH_SIZE, threads: int = 0, max_pixels: int = MAX_PIXELS):
    super().__init__()
    if batch_size < 1:
      raise ValueError(f"batch_size is {batch_size}, must be at least 1")
    self._path = path
    self._batch_size = batch_size
    self._threads = threads
    self._max_pixels = max_pixels
    self._shared = Shared()

  def load_model(self) -> LoadedModel:
    return load_model(self._path, self._threads)

  def load_once(self) -> LoadedModel:
    """Returns the process's one copy of the model, loading it where nobody has yet."""
    # The path is the tag: another model in the same process replaces the one that is kept alive.
    model: LoadedModel = self._shared.acquire(self.load_model, tag=self._path)
    return model

  def run_inference(
    self, batch: Sequence[Image], model: LoadedModel, inference_args: Mapping[str, Any] | None = None
  ) -> Iterable[Inferred | Quarantined]:
    return list(self.infer(batch, model))

  def infer(self, images: Iterable[Image | Quarantined], model: LoadedModel) -> Iterator[Inferred | Quarantined]:
    """Yields one item per input, in order. Reading and decoding go on one thread ahead of the graph."""
    checked = (self._check(image) for image in images)
    batches = (self._prepare(items, model) for items in _batched(checked, self._batch_size))
    for prepared in prefetch(batches, depth=2):
      yield from _infer_prepared(prepared, model)

  def _check(self, image: Image | Quarantined) -> Image | Quarantined:
    if isinstance(image, Quarantined):
      return image
    looked = look(image.encoded, self._max_pixels)
    if isinstance(looked, Fault):
      return quarantine(image, looked)
    return Image(image.key, image.label, image.encoded, looked.format, looked.height, looked.width)

  def _prepare(self, items: Sequence[Image | Quarantined], model: LoadedModel) -> _Prepared:
    """Decodes what can be decoded of a batch; the rest is named."""
    try:
      encoded = [item.encoded for item in items if isinstance(item, Image)]
      return _Prepared(items, model.preprocess(_padded(encoded, self._batch_size)) if encoded else None)
    except Exception:  # somewhere in here is a picture that cannot be decoded: find it, and decode the others
      items = [_decodable(item, model) for item in items]
      encoded = [item.encoded for item in items if isinstance(item, Image)]
      return _Prepared(items, model.preprocess(_padded(encoded, self._batch_size)) if encoded else None)

  def get_num_bytes(self, batch: Sequence[Image]) -> int:
    return sum(len(image.encoded) for image in batch)

  def batch_elements_kwargs(self) -> Mapping[str, Any]:
    return {"min_batch_size": self._batch_size, "max_batch_size": self._batch_size}

  def get_metrics_namespace(self) -> str:
    return "beam_retrain"


class _Prepared(NamedTuple):
  items: Sequence[Image | Quarantined]
  pixels: Any  # float32 [batch_size, S, S, 3]: the pictures among `items`, then padding; None where there is none


def _decodable(item: Image | Quarantined, model: LoadedModel) -> Image | Quarantined:
  if isinstance(item, Image):
    try:
      model.preprocess([item.encoded])
    except Exception:
      return quarantine(item, explain(item.encoded))
  return item


def _infer_prepared(prepared: _Prepared, model: LoadedModel) -> Iterator[Inferred | Quarantined]:
  outputs = model.infer(prepared.pixels) if prepared.pixels is not None else {}
  rows = itertools.count()
  for item in prepared.items:
    if isinstance(item, Quarantined):
      yield item
      continue
    row = next(rows)
    result = {name: values[row] for name, values in outputs.items()}
    if all(np.isfinite(value).all() for value in result.values() if value.dtype.kind == "f"):
      yield Inferred(item, result)
    else:
      yield quarantine(item, Fault(Reason.MODEL_ERROR, "the model gave values that are not finite"))


def quarantine(image: Image, fault: Fault) -> Quarantined:
  return Quarantined(image.key, len(image.encoded), fault.reason, fault.detail)


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
  iterator = iter(items)
  while batch := list(itertools.islice(iterator, size)):
    yield batch


def _padded(encoded: list[bytes], size: int) -> list[bytes]:
  return encoded + [encoded[-1]] * (size - len(encoded))


def load_model(path: str, threads: int = 0) -> LoadedModel:
  """Loads a trunk or an exported model; what it is can be seen from its functions.

  Raises:
    InputError: the folder cannot be loaded, or is neither.
  """
  load_tensorflow()
  import tensorflow as tf

  from transforms.core.preprocessing import preprocess
  from transforms.core.trunk import load_saved_model

  if threads:
    try:
      tf.config.threading.set_intra_op_parallelism_threads(threads)
      tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
      pass  # TensorFlow has started already in this process: its threads are what they are
  loaded = load_saved_model(path)
  if hasattr(loaded, "score_images"):
    decode, graph = loaded.preprocess, loaded.score_images
  else:
    input_px = int(loaded.embed.input_signature[0].shape[1])
    decode = tf.function(
      lambda encoded: preprocess(encoded, input_px), input_signature=[tf.TensorSpec([None], tf.string)]
    )
    def graph(images: tf.Tensor) -> dict[str, tf.Tensor]:
      return {"bottleneck": loaded.embed(images)}

  def infer(images: tf.Tensor) -> Outputs:
    return {name: values.numpy() for name, values in graph(images).items()}

  return LoadedModel(lambda encoded: decode(tf.constant(encoded, tf.string)), infer)
