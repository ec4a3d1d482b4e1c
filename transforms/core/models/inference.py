"""Runs images through a trunk or an exported model, in padded batches.

An image that cannot be decoded or computed is quarantined alone. Both kinds of model take the same form: `preprocess`
(bytes -> float images) runs one thread ahead, and two threads take turns to call `infer` (float images -> arrays), so
that the next batch is computed while Python handles the last one's output.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.decode_plain import MISSING_PIXELS, decode_plain
from beam_retrain.transforms.core.images.encode import encode_pixels
from beam_retrain.transforms.core.images.headers import (
  MAX_PIXELS,
  Fault,
  explain,
  find_missing_pixels,
  jpegs_like_missing_pixels,
  probe_image,
)
from beam_retrain.transforms.core.models.head import Head
from beam_retrain.transforms.core.models.saved_model import load_saved_model
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import Image
from beam_retrain.transforms.core.runtimes.prepared import find_prepared, load_prepared
from beam_retrain.transforms.core.runtimes.trunk_info import BATCH_SIZE
from beam_retrain.transforms.core.system.imports import load_tensorflow
from beam_retrain.transforms.core.system.machine import available_cores, is_out_of_memory
from beam_retrain.transforms.core.system.prefetch import batched, map_ahead, prefetch

T = TypeVar("T")
Outputs = dict[str, np.ndarray]

PLAIN_PIXELS = 2_000 * 299**2
"""Pixels, interpolated between, that a model decodes without TensorFlow, which is faster, but takes seconds to load.

A photo costs a millisecond more than with TensorFlow at 299 x 299, an image of 28 x 28 pixels a tenth of one.
"""
_PER_MEGAPIXEL = 299**2  # that it takes as long to interpolate between as to decode a megapixel
_MOST_DECODERS = 8  # as TensorFlow's in `decode.preprocess`: each holds a whole image
CALLS_AT_ONCE = 2
"""Batches that a trunk computes at the same time."""

_REFUSED = Fault(Reason.MODEL_ERROR, "the model refused it")
_NOT_FINITE = Fault(Reason.MODEL_ERROR, "the model gave values that are not finite")


class Inferred(NamedTuple):
  """An image and its outputs: name -> array without the batch dimension."""

  image: Image
  outputs: Outputs


@dataclasses.dataclass(frozen=True)
class LoadedModel:
  """A loaded model; no tuple, since `Shared` keeps weak references."""

  # N encoded images -> float32 [N, S, S, 3], 0..1; raises if any of them cannot be decoded
  preprocess: Callable[[Sequence[bytes]], Any]
  # float32 [N, S, S, 3] -> output name -> array [N, ...]; may be called by two threads at a time
  infer: Callable[[Any], Outputs]
  input_px: int = 0  # S; 0 if unknown
  # a faster `preprocess` for small images of one size, see `decode.preprocess_alike`
  preprocess_alike: Callable[[Sequence[bytes]], Any] | None = None
  # returns how many images `infer` computes at a time, see `load_with_oom_fallback`; None: all
  largest_batch: Callable[[], int] | None = None

  batch_size: int = BATCH_SIZE  # of calls that waste nothing

  decoders: int = 1  # threads that decode large images

  # how many pixels `decode_plain` has interpolated between, and what large images count as
  plain: list[int] = dataclasses.field(default_factory=lambda: [0], compare=False)

  def decode_plain(self, images: Sequence[Image]) -> np.ndarray | None:
    """Returns what `decode` does, of plain images alone, without TensorFlow; else None."""
    # Without `preprocess_alike`, an exported model brings a preprocessing of its own.
    if self.preprocess_alike is None or self.plain[0] >= PLAIN_PIXELS:
      return None
    between = sum(min(image.height, self.input_px) * min(image.width, self.input_px) for image in images)
    megapixels = sum(image.height * image.width >> 20 for image in images)
    self.plain[0] += between + megapixels * _PER_MEGAPIXEL
    return decode_plain([image.decodable for image in images], self.input_px, self.decoders if megapixels > 1 else 1)

  def decode(self, images: Sequence[Image]) -> Any:
    """Returns the input of `infer`; raises if an image cannot be decoded."""
    encoded = [image.decodable for image in images]
    if self.preprocess_alike is not None and self._are_alike(images):
      return self.preprocess_alike(encoded)
    return self.preprocess(encoded)

  @functools.cached_property
  def missing_pixels(self) -> np.ndarray:
    """Returns the values of pixels that a JPEG lacks."""
    return np.unique(_last_pixels(self.preprocess(jpegs_like_missing_pixels())))

  def _are_alike(self, images: Sequence[Image]) -> bool:
    """Whether the images have one known size that `preprocess_alike` takes."""
    sizes = {(image.height, image.width) for image in images}
    height, width = next(iter(sizes))
    alike = len(sizes) == 1 and 0 < height <= self.input_px and 0 < width <= self.input_px
    # The first frame of a GIF may be smaller than its header says.
    return alike and all(image.format in ("jpeg", "png") for image in images)


def infer_images(
  images: Iterable[Image | Quarantined],
  model: LoadedModel | Callable[[], LoadedModel],
  *,
  batch_size: int = 0,
  max_pixels: int = MAX_PIXELS,
) -> Iterator[Inferred | Quarantined]:
  """Yields one item per input, in order; passes quarantined ones through.

  Reading and decoding run one thread ahead of the graph, and the graph ahead of the consumer. A model that is given as
  a function is loaded at the first image that may be decoded.

  Args:
    batch_size: images per call; a smaller rest is padded. 0: the model's own.
    max_pixels: largest height x width that is decoded.
  """
  load = model if callable(model) else lambda: model
  batch_size = batch_size or (BATCH_SIZE if callable(model) else model.batch_size)
  checked = (_check(image, max_pixels) for image in images)
  batches = (_decode_batch(items, load, batch_size) for items in batched(checked, batch_size))
  for results in map_ahead(_infer_batch, prefetch(batches, depth=1), CALLS_AT_ONCE):
    yield from results


class _Batch(NamedTuple):
  items: Sequence[Image | Quarantined]
  model: LoadedModel | None = None  # None without images
  pixels: Any = None  # float32 [batch_size, S, S, 3]: the images among `items`, then padding
  is_plain: bool = False  # by `decode_plain`


def _check(image: Image | Quarantined, max_pixels: int) -> Image | Quarantined:
  if isinstance(image, Quarantined):
    return image
  info = probe_image(image.encoded, max_pixels)
  if isinstance(info, Fault):
    return quarantine(image, info)
  return Image(image.key, image.label, image.encoded, *info)


def _decode_batch(items: Sequence[Image | Quarantined], load: Callable[[], LoadedModel], batch_size: int) -> _Batch:
  """Decodes a batch; quarantines the images that cannot be decoded."""
  if not any(isinstance(item, Image) for item in items):
    return _Batch(items)
  model = load()  # outside the `try`: its errors do not quarantine images
  try:
    batch = _decode(items, model, batch_size)
  except Exception:  # at least one image cannot be decoded: try each alone
    batch = _decode([_decodable(item, model) for item in items], model, batch_size)
  whole = _whole(batch)
  return batch if whole == batch.items else _decode(whole, model, batch_size)


def _whole(batch: _Batch) -> Sequence[Image | Quarantined]:
  """Quarantines JPEGs whose data end too early.

  They end grey; the few whole ones that do are found by `find_missing_pixels`.
  """
  if batch.model is None or batch.pixels.ndim != 4 or not any(_is_jpeg(item) for item in batch.items):
    return batch.items
  missing = MISSING_PIXELS if batch.is_plain else batch.model.missing_pixels
  # float32 [N, 3] == [M, 1, 1]
  are_suspect = (_last_pixels(batch.pixels) == missing[:, None, None]).any(axis=0).all(axis=1)
  if not are_suspect.any():
    return batch.items
  suspects = iter(are_suspect.tolist())
  return [
    quarantine(item, fault)
    if isinstance(item, Image) and next(suspects) and _is_jpeg(item) and (fault := find_missing_pixels(item.decodable))
    else item
    for item in batch.items
  ]


def _last_pixels(pixels: Any) -> np.ndarray:
  """Returns the pixels at the lower right, float32 [N, 3]."""
  # TensorFlow's slice costs ten times as much as numpy's, but brings these pixels alone from a GPU.
  return np.asarray(pixels[:, -1, -1]) if "GPU" in pixels.device else np.asarray(memoryview(pixels))[:, -1, -1]


def _is_jpeg(item: Image | Quarantined) -> bool:
  return isinstance(item, Image) and item.format == "jpeg"


def _decode(items: Sequence[Image | Quarantined], model: LoadedModel, batch_size: int) -> _Batch:
  images = [item for item in items if isinstance(item, Image)]
  if not images:
    return _Batch(items)
  # So that the graph sees one shape only. To decode a large image once more would cost as much each time.
  fill = images[-1] if max(images[-1].height, images[-1].width) <= model.input_px else _fill()
  padding = [fill] * (batch_size - len(images))
  if (pixels := model.decode_plain(images + padding)) is not None:
    return _Batch(items, model, pixels, is_plain=True)
  return _Batch(items, model, model.decode(images + padding))


@functools.cache
def _fill() -> Image:
  """Returns an image of one pixel."""
  return Image("", "", encode_pixels(np.zeros((1, 1), np.uint8), "png"), "png", 1, 1)


def _decodable(item: Image | Quarantined, model: LoadedModel) -> Image | Quarantined:
  if isinstance(item, Image):
    try:
      model.decode([item])
    except Exception as error:
      if is_out_of_memory(error):
        raise
      return quarantine(item, explain(item.decodable))
  return item


def _infer_batch(batch: _Batch) -> list[Inferred | Quarantined]:
  """Raises the model's error if all images fail or memory runs out."""
  count = sum(isinstance(item, Image) for item in batch.items)
  rows = iter(_infer_rows(batch.model, batch.pixels, count) if batch.model else ())
  results: list[Inferred | Quarantined] = []
  for item in batch.items:
    if isinstance(item, Quarantined):
      results.append(item)
    else:
      outputs = next(rows)
      results.append(quarantine(item, outputs) if isinstance(outputs, Fault) else Inferred(item, outputs))
  return results


def _infer_rows(model: LoadedModel, pixels: Any, count: int) -> list[Outputs | Fault]:
  try:
    return _rows(model.infer(pixels), count)
  except Exception:
    alone = [_infer_alone(model, pixels[row : row + 1]) for row in range(count)]
    if all(outputs is _REFUSED for outputs in alone):
      raise
    return alone


def _infer_alone(model: LoadedModel, pixels: Any) -> Outputs | Fault:
  try:
    return _rows(model.infer(pixels), 1)[0]
  except Exception as error:
    if is_out_of_memory(error):
      raise
    return _REFUSED


def _rows(outputs: Outputs, count: int) -> list[Outputs | Fault]:
  finite = np.ones(count, bool)
  for values in outputs.values():
    if values.dtype.kind == "f":
      finite &= np.isfinite(values[:count]).reshape(count, -1).all(axis=1)
  return [
    {name: values[row] for name, values in outputs.items()} if fine else _NOT_FINITE
    for row, fine in enumerate(finite.tolist())
  ]


def quarantine(image: Image, fault: Fault) -> Quarantined:
  return Quarantined(image.key, len(image.encoded), fault.reason, fault.detail)


def load_model(
  path: str, threads: int = 0, *, trunk_only: bool = False, batch_size: int = 0, use_prepared: bool = True
) -> LoadedModel:
  """Loads a trunk or an exported model from its folder.

  Args:
    path: folder of a trunk (`B/trunk`, `M/trunk`), run prepared if it is, or of a SavedModel.
    threads: of this process; 0: the runtime's own choice.
    trunk_only: of an exported model, load the trunk only; its output is `bottleneck` instead of `scores`.
    batch_size: images in most calls of `infer`, see `load_prepared`.
    use_prepared: False to load a trunk's SavedModel, in float32, even if it is prepared.
  """
  if use_prepared and (prepared := find_prepared(path)):
    return load_prepared_model(prepared, threads, batch_size)
  load_tensorflow(threads)
  return _load_saved(path, trunk_only)


def load_float32(path: str, threads: int = 0) -> LoadedModel:
  """Loads the SavedModel in a folder, even beside a prepared trunk.

  Its outputs are `bottleneck` and, of an exported model, `scores`.
  """
  load_tensorflow(threads)
  return _load_saved(path, trunk_only=True, with_scores=True)


def _load_saved(path: str, trunk_only: bool, with_scores: bool = False) -> LoadedModel:
  loaded = load_saved_model(path)
  if trunk_only and not hasattr(loaded, "embed"):
    raise InputError(
      f"the model in {path} was trained with an earlier version and cannot compute bottlenecks: run"
      " `beam-retrain train` again."
    )
  input_px = int((loaded.embed if hasattr(loaded, "embed") else loaded.score_images).input_signature[0].shape[1])

  def infer(images: Any) -> Outputs:
    if trunk_only or not hasattr(loaded, "score_images"):
      vectors = loaded.embed(images)
      scores = loaded.score_bottlenecks(vectors) if with_scores and hasattr(loaded, "score_bottlenecks") else {}
      return {name: values.numpy() for name, values in {"bottleneck": vectors, **scores}.items()}
    return {name: values.numpy() for name, values in loaded.score_images(images).items()}

  if hasattr(loaded, "preprocess"):  # the preprocessing that it was trained with
    return LoadedModel(lambda encoded: loaded.preprocess(_strings(encoded)), infer, input_px)
  return decoding_model(input_px, infer)


def load_prepared_model(folder: str, threads: int = 0, batch_size: int = 0) -> LoadedModel:
  """Loads the prepared trunk in `folder`, which has the `card.json`."""
  trunk = load_prepared(folder, threads, batch_size)
  model = decoding_model(trunk.input_px, lambda images: {"bottleneck": trunk.embed(images)}, threads)
  return dataclasses.replace(model, batch_size=trunk.batch_size)


def with_head(trunk: LoadedModel, head: Head, path: str) -> LoadedModel:
  """Returns a model of images -> `bottleneck` and `scores`.

  Scores are float32 [N, C], 0..1. `path` is the head's, for the error raised with the first batch.
  """

  def infer(images: Any) -> Outputs:
    vectors = trunk.infer(images)["bottleneck"]
    if vectors.shape[1] != len(head.scale):
      raise InputError(
        f"{path} belongs to another model: it takes {len(head.scale)} numbers per image, but the trunk gives"
        f" {vectors.shape[1]}."
      )
    return {"bottleneck": vectors, "scores": head.score(vectors)}

  return dataclasses.replace(trunk, infer=infer)


def decoding_model(input_px: int, infer: Callable[[Any], Outputs], threads: int = 0) -> LoadedModel:
  """Returns a model of a graph and the current preprocessing.

  TensorFlow, with its `threads`, is loaded for the first images that need it.
  """

  @functools.cache
  def graphs() -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    load_tensorflow(threads)
    import tensorflow as tf

    from beam_retrain.transforms.core.images.decode import decoder, preprocess_alike

    # Traced once per batch length.
    alike = tf.function(lambda encoded: preprocess_alike(encoded, input_px), autograph=False)
    return decoder(input_px), alike

  return LoadedModel(
    lambda encoded: graphs()[0](_strings(encoded)),
    infer,
    input_px,
    lambda encoded: graphs()[1](_strings(encoded)),
    decoders=min(_MOST_DECODERS, threads or available_cores()),
  )


def _strings(encoded: Sequence[bytes]) -> Any:
  import tensorflow as tf

  return tf.constant(encoded, tf.string)


def load_with_oom_fallback(load: Callable[[int], LoadedModel], batch_size: int) -> LoadedModel:
  """Loads a model that halves its batches when memory runs out.

  `load` is called again for each smaller size, down to one image; larger batches are then split. Results change by the
  last bits of float32 at most.
  """
  halving = _Halving(load, batch_size)
  return dataclasses.replace(halving.model, infer=halving.infer, largest_batch=lambda: halving.batch_size)


class _Halving:
  def __init__(self, load: Callable[[int], LoadedModel], batch_size: int):
    self._load = load
    self._lock = threading.Lock()
    self.batch_size = batch_size
    self.model = load(batch_size)

  def infer(self, pixels: Any) -> Outputs:
    while True:
      with self._lock:
        model, size = self.model, self.batch_size
      try:
        return _in_parts(model, pixels, size)
      except Exception as error:
        if size == 1 or not is_out_of_memory(error):
          raise
      with self._lock:
        if self.batch_size == size:  # else another thread has halved it
          self.batch_size = size // 2
          self.model = self._load(self.batch_size)


def _in_parts(model: LoadedModel, pixels: Any, size: int) -> Outputs:
  count = int(pixels.shape[0])
  if count <= size:
    return model.infer(pixels)
  parts = [model.infer(pixels[start : start + size]) for start in range(0, count, size)]
  return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
