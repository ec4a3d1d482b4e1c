"""Trunk metadata: `trunk` in `info.json`, `trunk.json`, and `card.json`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from beam_retrain.transforms.core.runtimes.variant import OPENVINO, Variant
from beam_retrain.transforms.core.system.small_files import parse_json

HUB_INCEPTION_V3 = "https://tfhub.dev/google/imagenet/inception_v3/feature_vector/5"
BUNDLED = "bundled"
INCEPTION_V3 = "inception_v3"
WEIGHTS = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
WEIGHTS_ADDRESS = f"https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/{WEIGHTS}"
"""Where Keras has the weights of `keras:InceptionV3`."""
TRUNK_HELP = (
  "bundled (small, part of the package, trained on rendered glyphs), inception_v3 (TF Hub's feature vector, 299 x 299,"
  " 2,048 numbers), any TF Hub handle, the path of a SavedModel folder, or keras:InceptionV3 (or another name of"
  " keras.applications)"
)

BATCH_SIZE = 32
"""Images per call of a trunk, by default."""

_FEW = 4
_FULL_PX = 112  # side of images of which a whole `BATCH_SIZE` is needed

BOTTLENECKS_BATCH_SIZE = 1024
"""Stored bottlenecks per call of a head."""


def default_batch(runtime: str, input_px: int) -> int:
  """Returns the untried batch size for images of this side.

  OpenVINO runs 4 images of 299 pixels as fast as 32. Of larger batches a job of a hundred images has few: it waits for
  the last, fills it up, and has work for one of two streams. TensorFlow takes longer for a call. The number of threads
  does not count: all machines take the same batches.
  """
  if runtime != OPENVINO:
    return BATCH_SIZE
  return min(BATCH_SIZE, max(_FEW, BATCH_SIZE * _FULL_PX**2 // input_px**2))


@dataclasses.dataclass(frozen=True)
class TrunkInfo:
  """The trunk that computed bottlenecks."""

  handle: str  # value of `--trunk`
  fingerprint: str  # SHA-256, 64 hex digits, of weights, architecture, input scaling and variant
  input_px: int  # S, side of its square input
  dimensions: int  # D, length of a bottleneck
  base_fingerprint: str  # without the variant
  variant: Variant = dataclasses.field(default_factory=Variant)
  bottlenecks_request: str = ""  # in a trained model's `info.json`, the request of its bottlenecks

  def __str__(self) -> str:
    return f"{self.handle} in {self.variant}, {self.fingerprint[:12]}"

  @classmethod
  def from_json(cls, values: Mapping[str, Any]) -> TrunkInfo:
    """Inverse of `to_json`; raises KeyError, TypeError or ValueError.

    Also reads files from before variants existed.
    """
    return parse_json(cls, {"base_fingerprint": values["fingerprint"], **values, "variant": values})

  def to_json(self) -> dict[str, str | int]:
    own = {name: getattr(self, name) for name in ("handle", "fingerprint", "input_px", "dimensions")}
    request = {"bottlenecks_request": self.bottlenecks_request} if self.bottlenecks_request else {}
    return {**own, "base_fingerprint": self.base_fingerprint, **self.variant.to_json(), **request}

  def with_variant(self, variant: Variant) -> TrunkInfo:
    return dataclasses.replace(self, fingerprint=variant.fingerprint(self.base_fingerprint), variant=variant)


NO_TRUNK = TrunkInfo("", "", 0, 0, "")
"""In the `info.json` of a stage without a trunk."""


@dataclasses.dataclass(frozen=True)
class PreparedInfo:
  """Contents of a prepared trunk's `card.json`."""

  variant: Variant
  fingerprint: str
  input_px: int
  dimensions: int
  versions: Mapping[str, str]  # package -> version, of what prepared it
  files: Mapping[str, str]  # file name -> SHA-256, 64 hex digits
  input: str = ""  # for TensorFlow, name of the graph's tensor
  output: str = ""
  machine: str = ""  # kind of processor that prepared it, such as x86_64; empty before 0.5

  @classmethod
  def parse(cls, text: str) -> PreparedInfo:
    """Inverse of `encode`; raises ValueError or TypeError."""
    values = json.loads(text)
    return parse_json(cls, {**values, "variant": values})

  def encode(self) -> str:
    values = dataclasses.asdict(self)
    order = ("fingerprint", "input_px", "dimensions", "input", "output", "machine", "versions", "files")
    return json.dumps({**self.variant.to_json(), **{name: values[name] for name in order if values[name]}}, indent=2)
