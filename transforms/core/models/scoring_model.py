"""A trunk and a head together, as a model: images in, scores out. No Beam."""

from __future__ import annotations

import dataclasses
from typing import Any

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.head import Head
from beam_retrain.transforms.core.models.inference import LoadedModel, Outputs


def with_head(trunk: LoadedModel, head: Head, path: str) -> LoadedModel:
  """Returns the model that gives `scores`, float32 [N, C], 0..1, for each batch of images.

  A image's scores are those that its stored bottleneck would get: the head is the same numpy.

  Args:
    trunk: gives `bottleneck`, float32 [N, D].
    head: for D numbers.
    path: the head's, for the error, which comes with the first batch.
  """

  def infer(images: Any) -> Outputs:
    vectors = trunk.infer(images)["bottleneck"]
    if vectors.shape[1] != len(head.scale):
      raise InputError(
        f"{path} takes {len(head.scale)} numbers for a image, the model's trunk gives {vectors.shape[1]}: it belongs"
        " to another model."
      )
    return {"scores": head.score(vectors)}

  return dataclasses.replace(trunk, infer=infer)
