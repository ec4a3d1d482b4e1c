"""Sample images and their bottlenecks, computed in this process for checks."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Sequence

import numpy as np

from beam_retrain.transforms.core.images.headers import MAX_PIXELS, Fault, probe_image
from beam_retrain.transforms.core.models.inference import Inferred, LoadedModel, infer_images
from beam_retrain.transforms.core.records.quarantine import Reason
from beam_retrain.transforms.core.records.schema import PREPROCESSING_VERSION, Image
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.run_info import versions
from beam_retrain.transforms.core.runtimes.variant import processor_name
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
  found = source.read_sample(splits, percentages, count, max_files=RECORD_FILES)
  return [item for item in found if isinstance(item, Image) and not _is_too_large(item, max_pixels)]


def _is_too_large(image: Image, max_pixels: int) -> bool:
  looked = probe_image(image.encoded, max_pixels)
  return isinstance(looked, Fault) and looked.reason == Reason.TOO_LARGE


def embed(model: LoadedModel, sample: Sequence[Image]) -> dict[str, np.ndarray]:
  """Returns key -> bottleneck, float32 [D], if finite.

  Args:
    model: gives `bottleneck`.
    sample: images of any size.
  """
  found = infer_images(sample, model, max_pixels=sys.maxsize)
  return {item.image.key: item.outputs["bottleneck"] for item in found if isinstance(item, Inferred)}


def decode(model: LoadedModel, sample: Sequence[Image]) -> list[tuple[Image, np.ndarray]]:
  """Returns each decodable image with its pixels, float32 [S, S, 3], 0..1."""
  seeing = dataclasses.replace(model, infer=lambda pixels: {"pixels": np.asarray(pixels)})
  found = infer_images(sample, seeing, max_pixels=sys.maxsize)
  return [(item.image, item.outputs["pixels"]) for item in found if isinstance(item, Inferred)]


def digest_of_check(of: Sequence[str], sample: Sequence[Image]) -> str:
  """Returns a digest, 64 hex digits, of all that decides a check."""
  decides = [list(of), [image.sha256 for image in sample], PREPROCESSING_VERSION, versions(), processor_name()]
  return hashlib.sha256(json.dumps(["check", *decides], sort_keys=True).encode()).hexdigest()
