"""The doors: every way by which the product, and Pillow, make pixels of a file.

The pixels of the first three are as the trunk sees them: float32 [S, S, 3], 0..255. `batch` is what the jobs do:
header, decoding, padded batches, with the trunk as `predict` loads it. `exported` is the same with the exported
SavedModel, whose own graph decodes. `alone` is that SavedModel without beam-retrain, as on a server.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image as Pillow

from beam_retrain.pipelines.predict import PredictRequest, plan, predict
from beam_retrain.transforms.core.images.thumbnails import SIDE_PX, thumbnail
from beam_retrain.transforms.core.models.inference import LoadedModel, infer_images, load_model
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import Image
from beam_retrain.transforms.core.run.output_folder import read_labels


class Seen(NamedTuple):
  """What a door makes of a file: scores and perhaps pixels, or a reason and a sentence."""

  pixels: np.ndarray | None = None
  scores: np.ndarray | None = None
  reason: str = ""
  detail: str = ""


class Doors:
  """All doors of one trained model, the output of `train`."""

  def __init__(self, model: str):
    self._folder = tempfile.TemporaryDirectory(prefix="zoo-")
    (Path(self._folder.name) / "0").write_bytes(b"")
    with contextlib.redirect_stderr(io.StringIO()):
      self._job = plan(PredictRequest(model=model, images=(f"{self._folder.name}/0",), top=len(read_labels(model))))
    self._batch = _with_pixels(self._job.model)
    self._exported = _with_pixels(load_model(f"{model}/saved_model"))
    self._alone = _load_alone(f"{model}/saved_model")
    self.input_px = self._exported.input_px

  def batch(self, files: Sequence[bytes]) -> list[Seen]:
    return list(_through(files, self._batch))

  def exported(self, files: Sequence[bytes]) -> list[Seen]:
    return list(_through(files, self._exported))

  def predict(self, files: Sequence[bytes]) -> list[Seen]:
    """Labels files of a folder, as the command does; its scores are in the order of the labels."""
    paths = [str(Path(self._folder.name) / str(number)) for number in range(len(files))]
    for path, data in zip(paths, files, strict=True):
      Path(path).write_bytes(data)
    bad: list[Quarantined] = []
    with contextlib.redirect_stderr(io.StringIO()):
      ranked = dict(predict(self._job._replace(paths=paths), bad, []))
    seen = {result.key: Seen(reason=str(result.reason), detail=result.detail) for result in bad}
    for path, scores in ranked.items():
      found = dict(scores)
      seen[path] = Seen(scores=np.array([found[label] for label in self._job.labels]))
    return [seen[path] for path in paths]

  def alone(self, data: bytes) -> Seen:
    """Returns the exported model's scores, or the first line of its error."""
    try:
      return Seen(scores=self._alone(data))
    except Exception as error:
      return Seen(reason=type(error).__name__, detail=str(error).splitlines()[0])


def _load_alone(folder: str) -> Callable[[bytes], np.ndarray]:
  import tensorflow as tf

  loaded = tf.saved_model.load(folder)
  serve = loaded.signatures["serving_default"]
  key = tf.constant(["a"])
  return lambda data: serve(key=key, image_bytes=tf.constant([data]))["scores"].numpy()[0]


def _with_pixels(model: LoadedModel) -> LoadedModel:
  def infer(pixels: Any) -> dict[str, np.ndarray]:
    return {**model.infer(pixels), "pixels": np.asarray(pixels)}

  return dataclasses.replace(model, infer=infer)


def _through(files: Sequence[bytes], model: LoadedModel) -> Iterator[Seen]:
  images = (Image(key=str(number), label="", encoded=data) for number, data in enumerate(files))
  for result in infer_images(images, model):
    if isinstance(result, Quarantined):
      yield Seen(reason=str(result.reason), detail=result.detail)
    else:
      yield Seen(result.outputs["pixels"] * 255, result.outputs["scores"])


def drawn(data: bytes) -> np.ndarray | None:
  """Returns the report's thumbnail, uint8 [H, W, 3]."""
  uri = thumbnail(data)
  return None if uri is None else read(base64.b64decode(uri.partition(",")[2]))


def read(data: bytes) -> np.ndarray | None:
  """Returns what Pillow shows of a file, uint8 [H, W, 3]; None if it refuses."""
  try:
    with warnings.catch_warnings(action="ignore"), Pillow.open(io.BytesIO(data)) as image:
      return np.asarray(image.convert("RGB"))
  except Exception:
    return None


def read_exactly(data: bytes) -> np.ndarray | None:
  """Returns what Pillow shows of a PNG or BMP; None if it refuses, or is no measure of it.

  Out of damaged data any two decoders of JPEG or WebP make something else; of a GIF, Pillow shows the screen.
  """
  try:
    with warnings.catch_warnings(action="ignore"), Pillow.open(io.BytesIO(data), formats=("PNG", "BMP")) as image:
      return None if image.mode.startswith("I") else np.asarray(image.convert("RGB"))
  except Exception:
    return None


def resized(pixels: np.ndarray, input_px: int) -> np.ndarray:
  """Returns uint8 [H, W, 3] as the trunk would see it: float32 [input_px, input_px, 3], 0..255."""
  import tensorflow as tf

  return tf.image.resize(pixels, [input_px, input_px], method="bilinear", antialias=False).numpy()


def as_drawn(pixels: np.ndarray) -> np.ndarray:
  """Returns uint8 [H, W, 3] at the size of a thumbnail."""
  image = Pillow.fromarray(pixels)
  image.thumbnail((SIDE_PX, SIDE_PX))
  return np.asarray(image)


def apart(one: np.ndarray | None, other: np.ndarray | None) -> float:
  """Returns the largest difference of two images in grey levels; infinite for two sizes, or where one is missing."""
  if one is None or other is None or one.shape != other.shape:
    return float("inf")
  return float(np.abs(one.astype(np.float32) - other.astype(np.float32)).max())
