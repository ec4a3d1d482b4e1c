"""Sample images, and the agreement of a trunk with float32 on them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from beam_retrain.transforms.core.images.headers import MAX_PIXELS, Fault, probe_image
from beam_retrain.transforms.core.metrics.statistics import cosines
from beam_retrain.transforms.core.models.head import decode_head
from beam_retrain.transforms.core.models.inference import Inferred, LoadedModel, infer_images
from beam_retrain.transforms.core.records.quarantine import Reason
from beam_retrain.transforms.core.records.schema import PREPROCESSING_VERSION, Image
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.run_info import versions
from beam_retrain.transforms.core.runtimes.variant import Variant, processor_name
from beam_retrain.transforms.io import cache, files
from beam_retrain.transforms.sources.base import Source

IMAGES = 64
RECORD_FILES = 4


def sample_images(
  source: Source,
  splits: Sequence[str],
  percentages: SplitPercentages | None,
  count: int = IMAGES,
  max_pixels: int = MAX_PIXELS,
) -> list[Image]:
  """Returns `count` images, or all if fewer; reproducible.

  Args:
    source, splits, percentages: see `Source.plan`.
    max_pixels: larger images, height x width, are left out.
  """
  items = source.read_sample(splits, percentages, count, max_files=RECORD_FILES)
  return [item for item in items if isinstance(item, Image) and not _is_too_large(item, max_pixels)]


def _is_too_large(image: Image, max_pixels: int) -> bool:
  info = probe_image(image.encoded, max_pixels)
  return isinstance(info, Fault) and info.reason == Reason.TOO_LARGE


def decode(model: LoadedModel, sample: Sequence[Image]) -> list[tuple[Image, np.ndarray]]:
  """Returns each decodable image with its pixels, float32 [S, S, 3], 0..1."""
  pixels_only = dataclasses.replace(model, infer=lambda pixels: {"pixels": np.asarray(pixels)})
  return [(item.image, item.outputs["pixels"]) for item in _infer(pixels_only, sample)]


def _infer(model: LoadedModel, sample: Sequence[Image]) -> Iterator[Inferred]:
  """Yields the images, of any size, that can be used."""
  items = infer_images(sample, model, max_pixels=sys.maxsize)
  return (item for item in items if isinstance(item, Inferred))


@dataclasses.dataclass(frozen=True)
class Agreement:
  """Agreement of a trunk's variant with float32 on a sample."""

  images: int
  least_cosine: float  # smallest between an image's two bottlenecks, -1..1
  same_answers: int | None = None  # of a trained model: images with the same predicted label

  def __str__(self) -> str:
    text = f"on {self.images:,} of the images the smallest cosine with float32 is {self.least_cosine:.6f}"
    return text if self.same_answers is None else f"{text}, and {self.same_answers:,} predictions are the same"

  def to_json(self) -> dict[str, float]:
    return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


def variant_entries(variant: Variant, why: str, agreement: Agreement | None) -> dict[str, str | dict[str, float]]:
  """Returns a variant's entries in `info.json` and `metrics.json`."""
  return {
    "runtime": variant.runtime,
    "precision": variant.precision,
    **({"why": why} if why else {}),
    **({"sample": agreement.to_json()} if agreement else {}),
  }


def check_agreement(
  fingerprints: Sequence[str],
  load: Callable[[], LoadedModel],
  load_float32: Callable[[], LoadedModel],
  sample: Sequence[Image],
  head: str = "",
) -> Agreement | None:
  """Compares a trunk with itself in float32; None without a usable image.

  Caches the result for the next run over the same images.

  Args:
    fingerprints: of all that decides the bottlenecks and predictions.
    head: `head.npz` of a trained model, whose predictions are compared too.
  """
  decides = [list(fingerprints), [image.sha256 for image in sample], PREPROCESSING_VERSION, versions()]
  text = json.dumps(["check", *decides, processor_name()], sort_keys=True)
  digest = hashlib.sha256(text.encode()).hexdigest()
  if kept := cache.read_source(digest):
    return Agreement(**kept)
  ours, exact = (
    {item.image.key: item.outputs["bottleneck"][None] for item in _infer(load_model(), sample)}
    for load_model in (load, load_float32)
  )
  if not exact:
    return None
  # A bottleneck that is not finite, unlike float32's, counts as the worst cosine.
  least = min(float(cosines(ours[key], vector)[0]) if key in ours else -1.0 for key, vector in exact.items())
  same = None
  if head:
    score = decode_head(files.read_bytes(head), head).score
    same = sum(bool(score(ours[key]).argmax() == score(exact[key]).argmax()) for key in ours.keys() & exact.keys())
  agreement = Agreement(len(exact), least, same)
  cache.write_source(digest, agreement.to_json())
  return agreement
