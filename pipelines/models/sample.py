"""Sample images, and the agreement of a trunk with float32 on them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

import numpy as np

from beam_retrain.transforms.core.images.headers import MAX_PIXELS, Fault, probe_image
from beam_retrain.transforms.core.models.agreement import BOUNDS, Agreement, Sampled, infer_good, measure
from beam_retrain.transforms.core.models.head import decode_head
from beam_retrain.transforms.core.models.inference import LoadedModel, decoding_model
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

  Images of more than `max_pixels`, height x width, are left out; for the others see `Source.plan`.
  """
  items = source.read_sample(splits, percentages, count, max_files=RECORD_FILES)
  return [item for item in items if isinstance(item, Image) and not _is_too_large(item, max_pixels)]


def _is_too_large(image: Image, max_pixels: int) -> bool:
  info = probe_image(image.encoded, max_pixels)
  return isinstance(info, Fault) and info.reason == Reason.TOO_LARGE


def decode(input_px: int, sample: Sequence[Image]) -> list[tuple[Image, np.ndarray]]:
  """Returns each decodable image with its pixels, float32 [S, S, 3], 0..1."""
  pixels_only = decoding_model(input_px, lambda pixels: {"pixels": np.asarray(pixels)})
  return [(item.image, item.outputs["pixels"]) for item in infer_good(pixels_only, sample)]


def variant_entries(variant: Variant, why: str, agreement: Agreement | None) -> dict[str, str | dict[str, float]]:
  """Returns a variant's entries in `info.json` and `metrics.json`."""
  return {
    "runtime": variant.runtime,
    "precision": variant.precision,
    **({"why": why} if why else {}),
    **({"sample": agreement.to_json(), "bound": BOUNDS[variant.precision]._asdict()} if agreement else {}),
  }


def check_agreement(
  contents: Sequence[str],
  load: Callable[[], LoadedModel],
  load_float32: Callable[[], LoadedModel],
  sample: Sequence[Image],
  head: str = "",
  data_set: str = "",
  precision: str = "",
) -> Sampled | None:
  """Returns what `measure` does, from the cache if it knows.

  It is about the arithmetic of a trunk on one machine, of which other images of a kind tell the same. So where it
  chooses nothing, but may refuse, an earlier check of the same data set stands while half of the sample is as it was:
  each night brings images, and to check them TensorFlow is loaded. A check that refused is made again.

  Args:
    contents: digests of the contents of all that decides the bottlenecks and predictions.
    head: path of the `head.npz` of a trained model, whose predictions are compared too.
    data_set: path of the images, if an earlier check of them may stand; with `head` and the trunk's `precision`.
  """
  images, others = [image.sha256 for image in sample], [PREPROCESSING_VERSION, versions(), processor_name()]
  digests = [
    hashlib.sha256(json.dumps(["check", list(contents), name, *others], sort_keys=True).encode()).hexdigest()
    for name in (images, data_set)
    if name
  ]
  for digest, least in zip(digests, (0, len(images) / 2), strict=False):
    kept = cache.read_source(digest)
    if kept and len(kept["answers"].keys() & set(images)) >= least:
      return Sampled(Agreement(**kept["agreement"]), kept["answers"])
  sampled = measure(load, load_float32, sample, decode_head(files.read_bytes(head), head) if head else None)
  if sampled:
    refused = data_set and sampled.agreement.fault(precision)
    for digest in digests[:1] if refused else digests:
      cache.write_source(digest, {"agreement": sampled.agreement.to_json(), "answers": sampled.answers})
  return sampled
