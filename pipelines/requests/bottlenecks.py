"""The request and the flags of `bottlenecks`, partly shared with `plan`."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from beam_retrain.pipelines.models.execution import LEAST_IMAGES
from beam_retrain.pipelines.models.trunk_sources import BUNDLED
from beam_retrain.pipelines.models.trunk_sources import HELP as TRUNK_HELP
from beam_retrain.pipelines.options.arguments import add_max_bad_fraction, add_model_flags, positive_int
from beam_retrain.pipelines.options.distortions import DistortionFlags, add_distortion_flags
from beam_retrain.pipelines.options.precision import add_precision_flags
from beam_retrain.pipelines.options.request import JobRequest
from beam_retrain.pipelines.options.splits import (
  SplitFlags,
  add_on_leak,
  add_retrain_names,
  add_split_flags,
  retrain_names_setting,
)
from beam_retrain.transforms.bottlenecks.model_handler import BATCH_SIZE
from beam_retrain.transforms.core.records.leaks import OnLeak
from beam_retrain.transforms.core.records.quarantine import MAX_PIXELS
from beam_retrain.transforms.core.records.schema import PREPROCESSING_VERSION
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.argparse_internals import FlagGroup
from beam_retrain.transforms.core.runtimes.variant import AUTO
from beam_retrain.transforms.sources.find import list_formats

if TYPE_CHECKING:
  from beam_retrain.transforms.compat.text_bottlenecks import Texts


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrunkRequest(JobRequest, SplitFlags):
  """Flags that `bottlenecks` and `plan` share: images and a trunk."""

  input: str = ""
  trunk: str = BUNDLED
  trunk_weights: str | None = None
  trunk_input_px: int | None = None
  precision: str = AUTO
  runtime: str = AUTO
  classes: int = 10
  retrain_names: bool = False
  batch_size: int | None = None
  trunk_threads: int | None = None
  max_pixels: int = MAX_PIXELS


@dataclasses.dataclass(frozen=True, kw_only=True)
class BottlenecksRequest(TrunkRequest, DistortionFlags):
  """The flags of `bottlenecks`; see their help."""

  command: ClassVar[str] = "bottlenecks"
  description: ClassVar[str] = (
    "Runs labelled images through a frozen trunk, once, and stores one vector (bottleneck) per image.\n"
    "Then tensorflow-transform learns the scaling of the vectors from the training images.\n\n"
    "A killed run resumes when it is started again: finished shards are kept. With --reuse, the trunk does not run\n"
    "over images, compared by their bytes, that an earlier output has; the output is as complete as without. With\n"
    "--retry_from, images that an earlier run left out are tried again, and the rest is taken from it."
  )
  epilog: ClassVar[str] = (
    "example:\n  beam-retrain bottlenecks --input flower_photos --trunk bundled --output flowers/bottlenecks\n\n"
    "Any Beam option may follow, for example --runner=FlinkRunner, or\n"
    "  --direct_running_mode=multi_processing --direct_num_workers=2   for two processes on this machine."
  )

  paths: ClassVar[tuple[str, ...]] = ("input", "output", "reuse", "retry_from", "bottleneck_dir")

  output: str
  reuse: tuple[str, ...] = ()
  retry_from: str | None = None
  bottleneck_dir: str | None = None
  on_leak: str = str(OnLeak.WARN)
  max_bad_fraction: float = 0.0

  @classmethod
  def add_flags(cls, parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
      "--input",
      metavar="DIR",
      help=f"{list_formats()}; recognised automatically",
    )
    parser.add_argument(
      "--output", required=True, metavar="DIR", help="output folder; new, empty, or of an earlier run"
    )
    _add_earlier_flags(parser)
    add_trunk_flags(parser)
    add_precision_flags(parser)
    add_split_flags(parser)
    add_on_leak(parser)
    add_distortion_flags(parser)
    add_retrain_names(parser)
    add_model_flags(
      parser,
      f"the earlier run's, if it resumes one; the fastest in a trial, for at least {LEAST_IMAGES:,} images; else"
      f" {BATCH_SIZE}",
    )
    add_max_bad_fraction(parser)

  def settings(
    self,
    labels: Sequence[str],
    percentages: SplitPercentages,
    trunk_fingerprint: str,
    batch_size: int,
    texts: Texts | None = None,
  ) -> dict[str, Any]:
    """Returns what decides the output's bytes, JSON values.

    `input` must be absolute. Flags that came later are left out at their default, so that older outputs stay valid.
    """
    return {
      "input": self.input,
      "trunk_fingerprint": trunk_fingerprint,
      "preprocessing": PREPROCESSING_VERSION,
      **percentages.to_settings(),
      "max_pixels": self.max_pixels,
      "batch_size": batch_size,
      "labels": list(labels),
      **retrain_names_setting(self.retrain_names),
      **({"on_leak": self.on_leak} if self.on_leak != OnLeak.WARN else {}),
      **({"distortions": self.distortions.to_settings()} if self.distortions else {}),
      **({"bottleneck_dir": texts.to_settings()} if texts else {}),
    }


def add_trunk_flags(parser: FlagGroup) -> None:
  """Adds `trunk`, `trunk_weights`, `trunk_input_px` and `classes`."""
  parser.add_argument("--trunk", help=f"{TRUNK_HELP} (default: %(default)s)")
  parser.add_argument(
    "--trunk_weights", metavar="FILE", help="local weights of a keras: trunk, if they cannot be downloaded"
  )
  parser.add_argument(
    "--trunk_input_px",
    type=positive_int,
    metavar="PX",
    help="input size of a trunk that takes any (default: the trunk's own)",
  )
  parser.add_argument(
    "--classes", type=positive_int, metavar="N", help="classes of an IDX folder (default: %(default)d)"
  )


def _add_earlier_flags(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group("existing bottlenecks")
  group.add_argument(
    "--reuse",
    action="append",
    metavar="DIR",
    help="take bottlenecks from DIR, the output of an earlier run of the same trunk, and run the trunk over other"
    " images only; DIR is not changed; may be repeated",
  )
  group.add_argument(
    "--retry_from",
    metavar="DIR",
    help="repeat the run that wrote DIR after some of its images have been repaired: good images' bottlenecks are taken"
    " from there, and the trunk (DIR/trunk) runs over the others only. --input and all other settings are those of"
    " DIR; DIR is not changed, and its run may have ended with exit code 3",
  )
  group.add_argument(
    "--bottleneck_dir",
    metavar="DIR",
    help="take bottlenecks from the text files that retrain.py wrote to its --bottleneck_dir, and run the trunk over"
    " images whose file is missing or damaged. The numbers are then retrain.py's: TensorFlow 1 resized images slightly"
    " differently from the exported model; for class folders only",
  )
