"""Images as programs have them: paths, bytes, arrays, images of PIL."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from PIL import Image as Pillow

from beam_retrain.pipelines.predict import read_image
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.inference import LoadedModel, infer_images
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import Image

_Bytes = bytes | bytearray | memoryview
_Path = str | os.PathLike
Pixels = np.ndarray | Pillow.Image
AnyImage = str | os.PathLike[str] | _Bytes | Pixels
"""The path of an image file, its bytes, uint8 [H, W] or [H, W, 3], or an image of PIL, without its EXIF orientation."""

_used_in = 0  # the process in which images have first gone through a model


def as_list(images: Iterable[AnyImage]) -> list[AnyImage]:
  """Returns the images, checked before any of them is read.

  An array of several is uint8 [N, H, W] or [N, H, W, 3].

  Raises:
    InputError: it is a single image, or one is nothing that can be an image.
  """
  refuse_after_fork()
  if isinstance(images, np.ndarray):
    is_paths = images.ndim == 1 and images.dtype.kind in "UO"
    is_one = not is_paths and (images.ndim < 3 or (images.ndim == 3 and images.shape[2] <= 4))
  else:
    is_one = isinstance(images, _Path | _Bytes | Pillow.Image | io.IOBase)  # a file would give its lines
  if is_one or not isinstance(images, Iterable):
    raise InputError("give a list of images, even of one: paths, bytes, arrays or images of PIL.")
  listed = list(images)
  for position, image in enumerate(listed):
    _check(image, position)
  return listed


def refuse_after_fork() -> None:
  """Raises InputError where TensorFlow would wait forever.

  It has threads, which a forked process lacks.
  """
  global _used_in
  if _used_in not in (0, os.getpid()):
    raise InputError(
      "a model was used before this process was forked, and would hang here: start processes by"
      " multiprocessing.get_context('spawn')."
    )
  _used_in = os.getpid()


def _check(image: object, position: int) -> None:
  if isinstance(image, np.ndarray):
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or not image.size:
      raise InputError(f"image {position} is {image.dtype} {list(image.shape)}: give uint8 [H, W] or [H, W, 3].")
  elif isinstance(image, Pillow.Image):
    if image.mode[0] in "IF" or 0 in image.size:
      raise InputError(f"image {position} is of PIL's mode {image.mode}, size {image.size}: give it as 'L' or 'RGB'.")
  elif not isinstance(image, _Path | _Bytes):
    raise InputError(
      f"image {position} is of type {type(image).__name__}: give a path, bytes, uint8 [H, W] or [H, W, 3], or an image"
      " of PIL."
    )


def read_images(images: Iterable[AnyImage]) -> Iterator[Image | Quarantined]:
  """Reads images; their keys are their paths, or else their positions."""
  for position, image in enumerate(images):
    if isinstance(image, _Bytes):
      yield Image(str(position), "", bytes(image))
    elif isinstance(image, Pixels):
      yield _encode(image, str(position))
    else:
      yield read_image(os.fsdecode(image))


def _encode(image: Pixels, key: str) -> Image | Quarantined:
  file = io.BytesIO()
  try:
    if isinstance(image, Pillow.Image):  # its file may be read only now
      image = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    Pillow.fromarray(image).save(file, "PNG", compress_level=1)
  except (OSError, ValueError) as error:
    return Quarantined(key, 0, Reason.UNREADABLE, str(error))
  return Image(key, "", file.getvalue())


def embed_all(images: Sequence[AnyImage], model: LoadedModel, dimensions: int) -> np.ndarray:
  """Returns the bottlenecks, float32 [N, dimensions].

  Raises:
    InputError: an image cannot be used.
  """
  vectors = np.empty((len(images), dimensions), np.float32)
  for row, result in enumerate(infer_images(read_images(images), model)):
    if isinstance(result, Quarantined):
      raise InputError(f"image {result.key} cannot be used: {result.reason}, {result.detail}.")
    vectors[row] = result.outputs["bottleneck"]
  return vectors
