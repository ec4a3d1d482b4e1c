"""Agreement of a trunk in use with the exported model."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image

from beam_retrain.transforms.core.errors import InputError, first_line
from beam_retrain.transforms.core.images.encode import encode_pixels
from beam_retrain.transforms.core.metrics.statistics import cosines
from beam_retrain.transforms.core.models.head import Head
from beam_retrain.transforms.core.models.inference import Inferred, LoadedModel, infer_images
from beam_retrain.transforms.core.records.schema import Image
from beam_retrain.transforms.core.runtimes.prepared import REWRITE
from beam_retrain.transforms.core.runtimes.variant import BOUNDS
from beam_retrain.transforms.core.system.machine import is_out_of_memory

TIE = 0.01
"""Difference of two scores of the exported model, 0..1, below which either label is its answer."""


@dataclasses.dataclass(frozen=True)
class Agreement:
  """Agreement of a trunk with float32 on a sample."""

  images: int
  least_cosine: float  # smallest between an image's two bottlenecks, -1..1
  same_answers: int | None = None  # of a trained model: images with the same predicted label

  def __str__(self) -> str:
    text = f"on a sample of {self.images:,} images the smallest cosine with float32 is {self.least_cosine:.6f}"
    return text if self.same_answers is None else f"{text}, and {self.same_answers:,} predictions are the same"

  def to_json(self) -> dict[str, float]:
    return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

  def fault(self, precision: str) -> str:
    """Returns in words what is beyond the precision's bound, or ""."""
    bound = BOUNDS[precision]
    others = 0 if self.same_answers is None else self.images - self.same_answers
    if self.least_cosine >= bound.least_cosine and others <= math.ceil(bound.other_answers * self.images):
      return ""
    return f"{self}; {precision} needs a cosine of {bound.least_cosine:g} and {1 - bound.other_answers:.0%} of them"


def generated_images(count: int = 16) -> list[Image]:
  """Returns grey images of soft shapes, where there are no others."""
  pixels = np.random.default_rng(0).integers(0, 256, (count, 5, 5), dtype=np.uint8)
  shapes = (np.asarray(PIL.Image.fromarray(one).resize((64, 64), PIL.Image.Resampling.BICUBIC)) for one in pixels)
  return [Image(f"{number}.png", "", encode_pixels(one, "png")) for number, one in enumerate(shapes)]


class Sampled(NamedTuple):
  """What a sample of images shows.

  `answers`: SHA-256 of an image -> classes that are the exported model's answer, several in a tie.
  """

  agreement: Agreement
  answers: Mapping[str, Sequence[int]]

  def compare(self, labels: Sequence[str], predictions: Iterable[tuple[str, str]]) -> Agreement:
    """Returns the agreement of predictions: (SHA-256 of an image, label).

    Images that are gone since the check do not count, unless all are.
    """
    others, left = 0, dict(self.answers)
    for sha256, label in predictions:
      classes = left.pop(sha256, None)
      if classes is not None:
        others += label not in [labels[index] for index in classes]
      if not left:
        break
    images = self.agreement.images - len(left)
    if len(left) == len(self.answers):
      return self.agreement
    return dataclasses.replace(self.agreement, images=images, same_answers=images - others)


def measure(
  load: Callable[[], LoadedModel], load_exact: Callable[[], LoadedModel], sample: Sequence[Image], head: Head | None
) -> Sampled | None:
  """Compares a trunk with another; None if neither can use an image.

  The other is in float32. With `head`, it is the exported model, and its scores are compared with those of the head.
  """
  exact = _infer_all(load_exact, sample)
  ours = exact if load is load_exact else _infer_all(load, sample)
  images = {**exact, **ours}
  if not images:
    return None
  least, same, answers = 1.0, 0, {}
  for key, item in images.items():
    if head:
      scores = exact[key].outputs["scores"] if key in exact else np.zeros(0)
      answers[item.image.sha256] = np.flatnonzero(scores >= scores.max(initial=TIE) - TIE).tolist()
    if key not in ours or key not in exact:  # one of them gives values that are not finite
      least = -1.0
      continue
    vector, other = (each[key].outputs["bottleneck"][None] for each in (ours, exact))
    least = min(least, float(cosines(vector, other)[0]))
    same += bool(head and int(head.score(vector).argmax()) in answers[item.image.sha256])
  return Sampled(Agreement(len(images), least, same if head else None), answers)


def _infer_all(load: Callable[[], LoadedModel], sample: Sequence[Image]) -> dict[str, Inferred]:
  try:
    return {item.image.key: item for item in infer_good(load(), sample)}
  except Exception as error:  # a graph that can be loaded may fail when it runs
    if isinstance(error, InputError) or is_out_of_memory(error):
      raise
    raise InputError(f"the trunk or the model cannot be run ({first_line(error)}): {REWRITE}.") from error


def infer_good(model: LoadedModel, sample: Sequence[Image]) -> Iterator[Inferred]:
  """Yields the images, of any size, that can be used."""
  # Of a few, TensorFlow computes no more: its padding would cost seconds.
  items = infer_images(sample, model, batch_size=min(model.batch_size, len(sample)), max_pixels=sys.maxsize)
  return (item for item in items if isinstance(item, Inferred))
