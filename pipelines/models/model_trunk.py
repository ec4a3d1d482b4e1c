"""A trained model's trunk in evaluations, and its agreement with float32."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from beam_retrain.pipelines.models.sample import digest_of_check, embed
from beam_retrain.pipelines.models.trained import Model
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.core.metrics.statistics import cosines
from beam_retrain.transforms.core.models.choose_variant import choose_serving_variant
from beam_retrain.transforms.core.models.head import decode_head
from beam_retrain.transforms.core.models.inference import load_model
from beam_retrain.transforms.core.records.schema import Image
from beam_retrain.transforms.core.runtimes.variant import AUTO, FLOAT32
from beam_retrain.transforms.io import cache, files
from beam_retrain.transforms.io.transfer import download


@dataclasses.dataclass(frozen=True)
class Agreement:
  """Agreement of a model's predictions with those in float32.

  Attributes:
    least_cosine: smallest cosine between an image's two bottlenecks, -1..1.
    same_answers: number of images with the same predicted label.
  """

  images: int
  least_cosine: float
  same_answers: int

  def __str__(self) -> str:
    return (
      f"on {self.images:,} of them the smallest cosine with float32 is {self.least_cosine:.6f}, and"
      f" {self.same_answers:,} predictions are the same"
    )


class ModelTrunk:
  """A model's trunk, in the variant that runs here.

  Raises:
    InputError: see `choose_serving_variant`.
  """

  def __init__(self, model: Model, precision: str = AUTO, runtime: str = AUTO):
    own = model.info.trunk
    self.model = model
    self.serving = choose_serving_variant(
      model.path, own.variant, model.preprocessing, model.has_prepared, precision, runtime
    )
    self.info = own.with_variant(self.serving.variant)

  @property
  def fingerprint(self) -> str:
    """Key of its stored bottlenecks, 64 hex digits."""
    return self.info.fingerprint

  def to_scores(self, **how: Any) -> ImageModelHandler:
    if self.serving.is_prepared:
      return ImageModelHandler(self.model.trunk, head=self.model.head, **how)
    return ImageModelHandler(self.model.saved_model, **how)

  def to_bottlenecks(self, **how: Any) -> ImageModelHandler:
    if self.serving.is_prepared:
      return ImageModelHandler(self.model.trunk, **how)
    return ImageModelHandler(self.model.saved_model, trunk_only=True, **how)

  def check(self, sample: Sequence[Image], threads: int) -> Agreement | None:
    """Compares its predictions with float32, and caches the result.

    Returns None for float32 itself, or if no image can be used.

    Args:
      threads: in this process; 0: the runtime's choice.
    """
    if self.serving.variant.precision == FLOAT32:
      return None
    digest = digest_of_check([self.model.fingerprint, self.fingerprint], sample)
    if kept := cache.read_source(digest):
      return Agreement(**kept)
    ours = embed(load_model(download(self.model.trunk), threads), sample)
    exact = embed(load_model(download(self.model.saved_model), threads, trunk_only=True), sample)
    keys = sorted(ours.keys() & exact.keys())
    if not keys:
      return None
    tables = [np.stack([found[key] for key in keys]) for found in (ours, exact)]
    head = decode_head(files.read_bytes(self.model.head), self.model.head)
    answers = [head.score(table).argmax(axis=1) for table in tables]
    agreement = Agreement(len(keys), float(cosines(*tables).min()), int((answers[0] == answers[1]).sum()))
    cache.write_source(digest, dataclasses.asdict(agreement))
    return agreement

  def to_info(self, agreement: Agreement | None) -> dict[str, Any]:
    """Returns its entries in `metrics.json`."""
    return {
      "runtime": self.serving.variant.runtime,
      "precision": self.serving.variant.precision,
      **({"why": self.serving.why} if self.serving.why else {}),
      **({"sample": dataclasses.asdict(agreement)} if agreement else {}),
    }

  def describe(self, agreement: Agreement | None) -> str:
    return f"{self.serving}{f': {agreement}' if agreement else ''}"
