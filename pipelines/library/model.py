"""`Model`: a trained classifier in a program."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from beam_retrain.pipelines.library.images import AnyImage, as_list, embed_all, read_images
from beam_retrain.pipelines.predict import choose_serving, load_classifier, load_trunk_of, rank
from beam_retrain.transforms.core.models.inference import LoadedModel, infer_images
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.run.output_folder import find_output, read_info, read_labels
from beam_retrain.transforms.core.runtimes.variant import AUTO


class Prediction(NamedTuple):
  """A model's answer for one image, or why there is none.

  Attributes:
    image: its path, or its position in the list.
    label: the label with the highest score; empty for an image that cannot be used.
    confidence: its score, 0..1.
    top: (label, score 0..1) of the best, the first being `label`.
    fault: why the image cannot be used, such as `TRUNCATED: the file ends too early`; else empty.
  """

  image: str
  label: str = ""
  confidence: float = 0.0
  top: list[tuple[str, float]] = []  # noqa: RUF012 - of a tuple, never changed
  fault: str = ""


class Model:
  """A trained model: labels images, and gives their bottlenecks.

  Attributes:
    labels: class index -> label.
    dimensions: of a bottleneck.
  """

  def __init__(self, folder: str | os.PathLike[str], *, precision: str = AUTO, runtime: str = AUTO):
    """Opens a folder written by `train` or `run`.

    The model is loaded when it is first used. `precision` and `runtime` are as in `beam-retrain predict`.

    Raises:
      InputError: there is no finished model, or it cannot run so.
    """
    self._folder = find_output(os.fspath(folder), "train")
    info = read_info(self._folder, "train")
    self.labels = list(read_labels(self._folder))
    self.dimensions = info.trunk.dimensions
    self._serving = choose_serving(self._folder, info, precision, runtime)

  def __repr__(self) -> str:
    return f"<Model {self._folder!r}: {len(self.labels)} labels>"

  def predict(self, images: Iterable[AnyImage], top: int = 1) -> list[Prediction]:
    """Labels images, one prediction for each, in order.

    An image that cannot be used has a `fault` instead of a label.
    """
    predictions = []
    for result in infer_images(read_images(as_list(images)), self._classifier):
      if isinstance(result, Quarantined):
        predictions.append(Prediction(result.key, fault=f"{result.reason}: {result.detail}"))
      else:
        best = rank(result.outputs["scores"], self.labels, top)
        predictions.append(Prediction(result.image.key, *best[0], best))
    return predictions

  def embed(self, images: Iterable[AnyImage]) -> np.ndarray:
    """Returns the trunk's bottlenecks, float32 [N, dimensions], unscaled.

    Raises:
      InputError: an image cannot be used.
    """
    return embed_all(as_list(images), self._trunk, self.dimensions)

  @functools.cached_property
  def _classifier(self) -> LoadedModel:
    return load_classifier(self._folder, self._serving)

  @functools.cached_property
  def _trunk(self) -> LoadedModel:
    return load_trunk_of(self._folder, self._serving)
