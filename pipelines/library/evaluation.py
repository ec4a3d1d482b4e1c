"""`Evaluation`: how well a model labels images, in a program."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.labels import normalise
from beam_retrain.transforms.core.metrics import label_stats
from beam_retrain.transforms.core.metrics.figures import Accuracy, Interval, LabelRow, ModelMetrics
from beam_retrain.transforms.core.metrics.label_stats import LabelCounts
from beam_retrain.transforms.core.metrics.predictions import Scored, predict
from beam_retrain.transforms.core.models.inference import LoadedModel, infer_images
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import Image
from beam_retrain.transforms.core.records.trained_on import TrainedOn


class Prediction(NamedTuple):
  """A model's answer for one image, or why there is none.

  Attributes:
    image: its path, or its position in the list; in a folder that is evaluated, its key.
    label: the label with the highest score; empty for an image that cannot be used.
    confidence: its score, 0..1.
    top: (label, score 0..1) of the best, the first being `label`.
    fault: why the image cannot be used, such as `TRUNCATED: the file ends too early`; else empty.
    actual: its own label, if the model was evaluated.
    trained_on: whether the evaluated model was trained on it; None if that is unknown.
  """

  image: str
  label: str = ""
  confidence: float = 0.0
  top: list[tuple[str, float]] = []  # noqa: RUF012 - of a tuple, never changed
  fault: str = ""
  actual: str = ""
  trained_on: bool | None = None


def without_label(image: Quarantined) -> Prediction:
  """Returns the prediction of an image that cannot be used."""
  return Prediction(image.key, fault=f"{image.reason}: {image.detail}")


@dataclasses.dataclass(frozen=True)
class LabelFigures(LabelRow):
  """Figures of one label over all images; None without any.

  `support` images have the label, `predicted` were given it, `correct` both. `recall_interval` and `precision_interval`
  are of 95 % (Wilson). `most_confused_with` is the wrong label given most often.

  Attributes:
    unseen: `total`, `correct`, `accuracy` and `accuracy_interval` of its images that the model was not trained on; None
      if that is unknown.
  """

  unseen: Accuracy | None = None


@dataclasses.dataclass(frozen=True, repr=False)
class Evaluation:
  """Figures of a model, the same as those of `beam-retrain evaluate`.

  `total`, `correct`, `accuracy` and `interval` are of the images that the model was not trained on; of all where it was
  trained on all, or that is unknown. `per_label`, `confusion` and `mistakes` are of all images: where the model was
  trained on some, look at `unseen` of a label and `trained_on` of a prediction. Rates are 0..1, None without images.

  Attributes:
    metrics: all figures, see `ModelMetrics`: averages, log loss, calibration, `trained_on`, `unseen`, ...
    predictions: one for each image, in order, with up to three labels in `top`; those that cannot be used, too.
  """

  metrics: ModelMetrics
  predictions: list[Prediction]

  def __repr__(self) -> str:
    if self.accuracy is None:
      return "<Evaluation: no images>"
    low, high = self.interval
    return (
      f"<Evaluation: accuracy {self.accuracy:.2%} ({self.correct} of {self.total};"
      f" 95 % interval {100 * low:.1f} to {100 * high:.1f})>"
    )

  @property
  def total(self) -> int:
    return self.metrics.main.total

  @property
  def correct(self) -> int:
    return self.metrics.main.correct

  @property
  def accuracy(self) -> float | None:
    return self.metrics.main.accuracy

  @property
  def interval(self) -> Interval:
    """The accuracy's 95 % interval (Wilson): (low, high), 0..1."""
    return self.metrics.main.accuracy_interval or (0.0, 1.0)

  @functools.cached_property
  def per_label(self) -> dict[str, LabelFigures]:
    """Label -> `support`, `correct`, `recall`, ..., over all images, and `unseen`."""
    unseen = self.metrics.unseen.per_label if self.metrics.unseen else {}
    return {row.label: LabelFigures(**vars(row), unseen=unseen.get(row.label)) for row in self.metrics.rows}

  @functools.cached_property
  def confusion(self) -> np.ndarray:
    """All images by actual and by predicted label: int64 [C, C]."""
    return np.array(self.metrics.confusion, np.int64)

  @property
  def mistakes(self) -> list[Prediction]:
    """Wrong predictions of all images, the most confident first."""
    wrong = (one for one in self.predictions if not one.fault and one.label != one.actual)
    return sorted(wrong, key=lambda one: -one.confidence)

  @property
  def bad(self) -> list[Prediction]:
    """Images that cannot be used, each with its `fault`."""
    return [one for one in self.predictions if one.fault]


ScoredImage = Scored | Quarantined


def score_images(
  images: Iterable[Image | Quarantined], model: LoadedModel, without_bytes: Sequence[bool] = ()
) -> Iterator[ScoredImage]:
  """Yields the scores of labelled images, in order.

  `without_bytes`: whether each was given as pixels, of which nobody knows whether a model was trained on them.
  """
  flags = itertools.chain(without_bytes, itertools.repeat(False))
  for result, is_pixels in zip(infer_images(images, model), flags, strict=False):
    if isinstance(result, Quarantined):
      yield result
    else:
      image = result.image
      yield Scored(image.key, image.label, "" if is_pixels else image.sha256, result.outputs["scores"])


def check_labels(given: Sequence[str | int], labels: Sequence[str]) -> list[str]:
  """Returns the labels of images, as the model spells them.

  Raises:
    InputError: the model does not know one.
  """
  names = [normalise(str(label)) for label in given]
  for position, name in enumerate(names):
    if name not in labels:
      raise InputError(
        f"image {position} has the label {given[position]!r}, which is none of the model's {len(labels)}:"
        f" {', '.join(labels)}."
      )
  return names


def label_images(images: Iterable[Image | Quarantined], actual: Sequence[str]) -> Iterator[Image | Quarantined]:
  """Gives images their labels."""
  for image, label in zip(images, actual, strict=True):
    yield image if isinstance(image, Quarantined) else dataclasses.replace(image, label=label)


def evaluate(scored: Iterable[ScoredImage], labels: Sequence[str], trained_on: TrainedOn | None) -> Evaluation:
  """Counts and keeps predictions as the job of `evaluate` does."""
  counts, predictions = LabelCounts(), []
  for item in scored:
    if isinstance(item, Quarantined):
      predictions.append(without_label(item))
      continue
    made = predict(item, labels)
    is_known = item.sha256 in trained_on if trained_on and item.sha256 else None
    label_stats.add(counts, made.outcome, is_known)
    predictions.append(Prediction(item.key, *made.top[0], list(made.top), actual=item.actual, trained_on=is_known))
  return Evaluation(label_stats.extract(counts, labels), predictions)
