"""Some of a user's pictures, and what a trunk gives for them, in this process: for a check before or after a job."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transforms.core.inference import Inferred, infer_images, load_model
from transforms.core.schema import Image
from transforms.core.splits import SplitPercentages
from transforms.local_shards import read_sample
from transforms.sources import Source

IMAGES = 64
_RECORD_FILES = 4


def sample_pictures(
  source: Source, splits: Sequence[str], percentages: SplitPercentages | None, count: int = IMAGES
) -> list[Image]:
  """Returns so many pictures, or all if there are fewer; the same ones for the same data. Arguments: `Source.plan`."""
  found = read_sample(source, splits, percentages, count, most_files=_RECORD_FILES)
  return [item for item in found if isinstance(item, Image)]


def embed(
  folder: str, sample: Sequence[Image], *, threads: int, max_pixels: int, trunk_only: bool = False
) -> dict[str, np.ndarray]:
  """Returns key -> bottleneck, float32[D], of those pictures that can be decoded, and get finite numbers.

  Args:
    folder: of a trunk, or of an exported model with `trunk_only`.
    sample: the pictures.
    threads: in this process; 0 leaves the runtime's own choice.
    max_pixels: largest height x width that is decoded.
    trunk_only: see `load_model`.
  """
  model = load_model(folder, threads, trunk_only=trunk_only)
  return {
    item.image.key: item.outputs["bottleneck"]
    for item in infer_images(sample, model, max_pixels=max_pixels)
    if isinstance(item, Inferred)
  }
