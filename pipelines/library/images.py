"""Images as programs have them: paths, encoded bytes, arrays of pixels."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from PIL import Image as Pillow

from beam_retrain.pipelines.predict import read_image
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.inference import LoadedModel, infer_images
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import Image

AnyImage = str | os.PathLike[str] | bytes | np.ndarray
"""The path of an image file, its bytes, or uint8 [H, W] or [H, W, 3]."""


def as_list(images: Iterable[AnyImage]) -> list[AnyImage]:
  """Returns the images; refuses one where several are meant.

  Raises:
    InputError: a single path, bytes or pixels.
  """
  if isinstance(images, str | bytes | os.PathLike) or (isinstance(images, np.ndarray) and images.ndim < 4):
    raise InputError("give a list of images, even of one: paths, bytes or arrays.")
  return list(images)


def read_images(images: Iterable[AnyImage]) -> Iterator[Image | Quarantined]:
  """Reads images; their keys are their paths, or else their positions."""
  for position, image in enumerate(images):
    if isinstance(image, bytes):
      yield Image(str(position), "", image)
    elif isinstance(image, np.ndarray):
      yield Image(str(position), "", _encode(image, position))
    else:
      yield read_image(os.fspath(image))


def _encode(pixels: np.ndarray, position: int) -> bytes:
  if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
    raise InputError(f"image {position} is {pixels.dtype} {list(pixels.shape)}: give uint8 [H, W] or [H, W, 3].")
  file = io.BytesIO()
  Pillow.fromarray(pixels).save(file, "PNG", compress_level=1)
  return file.getvalue()


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
