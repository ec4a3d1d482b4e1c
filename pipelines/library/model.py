"""`Model`: a trained classifier in a program."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from beam_retrain.pipelines.library.evaluation import (
  Evaluation,
  Prediction,
  check_labels,
  evaluate,
  label_images,
  score_images,
  without_label,
)
from beam_retrain.pipelines.library.images import AnyImage, Pixels, as_list, embed_all, read_images, refuse_after_fork
from beam_retrain.pipelines.predict import choose_serving, load_classifier, load_trunk_of, rank
from beam_retrain.transforms.core.arguments import AnyPath, as_path, check_count, naming_arguments
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.head import HEAD_FILE
from beam_retrain.transforms.core.models.inference import LoadedModel, infer_images
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import SAVED_MODEL_FOLDER, TRUNK_FOLDER
from beam_retrain.transforms.core.records.trained_on import TRAINED_ON_FILE, TrainedOn
from beam_retrain.transforms.core.run.output_folder import find_output, read_info, read_labels
from beam_retrain.transforms.core.runtimes.variant import AUTO
from beam_retrain.transforms.core.system import local_files

if TYPE_CHECKING:
  from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler


class Model:
  """A trained model: labels images, gives their bottlenecks, and is evaluated.

  An image is a path, the bytes of a file, an array, uint8 [H, W] or [H, W, 3], or an image of PIL. The model is loaded
  when it is first used, by each process anew.

  Args:
    folder: local, written by `beam-retrain train` or `run`.
    precision: `auto`, as the model's bottlenecks were made, where this machine can; or as of `beam-retrain predict`.
    runtime: likewise.

  Attributes:
    labels: class index -> label.
    dimensions: D, the length of a bottleneck.

  Raises:
    InputError: there is no finished model, or it cannot run so.
  """

  @naming_arguments()
  def __init__(self, folder: AnyPath, *, precision: str = AUTO, runtime: str = AUTO):
    self._folder = find_output(as_path(folder, "folder"), "train")
    info = read_info(self._folder, "train")
    self.labels = list(read_labels(self._folder))
    self.dimensions = info.trunk.dimensions
    self._serving = choose_serving(self._folder, info, precision, runtime)

  def __repr__(self) -> str:
    return f"<Model {self._folder!r}: {len(self.labels)} labels>"

  def __getstate__(self) -> dict[str, object]:
    """Returns what is pickled: without what has been loaded."""
    return {name: value for name, value in vars(self).items() if name not in _LOADED}

  def predict(self, images: Iterable[AnyImage], top: int = 1) -> list[Prediction]:
    """Labels images, one prediction for each, in order.

    An image that cannot be used has a `fault` instead of a label.

    Args:
      images: paths, bytes, arrays or images of PIL; or an array of several, uint8 [N, H, W] or [N, H, W, 3].
      top: labels in each prediction's `top`, by falling score.

    Raises:
      InputError: a single image, one that is none of these, or a `top` below 1.
    """
    check_count("top", top)
    predictions = []
    for result in infer_images(read_images(as_list(images)), self._classifier):
      if isinstance(result, Quarantined):
        predictions.append(without_label(result))
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

  @naming_arguments(input="images")
  def evaluate(
    self,
    images: Iterable[AnyImage] | AnyPath,
    labels: Sequence[str | int] | None = None,
    *,
    split: str = "auto",
  ) -> Evaluation:
    """Labels images and counts, in this process, what is right.

    Gives the figures of `beam-retrain evaluate`, which does the same as a job and writes a report.

    Args:
      images: a folder, or another `--input` of `beam-retrain evaluate`, bottlenecks and the folder of `run` too; or a
        list as of `predict`.
      labels: of a list, one of the model's for each image; numbers where its labels are called so.
      split: of a folder: `auto`, `testing` or `all`, as `--split`.

    Raises:
      InputError: the folder cannot be used, or a label is missing or unknown.
    """
    if isinstance(images, str | os.PathLike):
      refuse_after_fork()
      if labels is not None:
        raise InputError("a folder has its own labels: leave them out, or give a list of images.")
      from beam_retrain.pipelines.library.sources import open_scored  # loads Beam

      scored = open_scored(os.fspath(images), self._folder, split, lambda: self._classifier)
      return evaluate(scored, self.labels, self._trained_on)
    given = as_list(images)
    if labels is None:
      raise InputError(
        "images in a list have no labels: give `labels`, one for each image, or a folder of class folders."
      )
    actual = check_labels(labels, self.labels)
    if len(actual) != len(given):
      raise InputError(f"{len(given)} images have {len(actual)} labels: give one for each image.")
    labelled = label_images(read_images(given), actual)
    scored = score_images(labelled, self._classifier, [isinstance(image, Pixels) for image in given])
    found = evaluate(scored, self.labels, self._trained_on)
    predictions = [one._replace(actual=label) for one, label in zip(found.predictions, actual, strict=True)]
    return dataclasses.replace(found, predictions=predictions)  # bad ones have their label, too

  def handler(self) -> ImageModelHandler:
    """Returns a handler for Beam's `RunInference`; its output is `scores`, float32 [C].

    It runs on machines of another kind, too; see `ImageModelHandler`.
    """
    from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler  # loads Beam

    folder = os.path.abspath(self._folder)
    if not self._serving.is_prepared:
      return ImageModelHandler(os.path.join(folder, SAVED_MODEL_FOLDER))
    return ImageModelHandler(os.path.join(folder, TRUNK_FOLDER), head=os.path.join(folder, HEAD_FILE))

  @functools.cached_property
  def _trained_on(self) -> TrainedOn | None:
    path = os.path.join(self._folder, TRAINED_ON_FILE)
    return TrainedOn.decode(local_files.read_bytes(path), path) if os.path.exists(path) else None

  @functools.cached_property
  def _classifier(self) -> LoadedModel:
    return load_classifier(self._folder, self._serving)

  @functools.cached_property
  def _trunk(self) -> LoadedModel:
    return load_trunk_of(self._folder, self._serving)


_LOADED = {name for name, value in vars(Model).items() if isinstance(value, functools.cached_property)}
