"""The requests of `bottlenecks` and `plan`: the flags that they share."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from beam_retrain.pipelines.options.flags import (
  LEAST_IMAGES,
  DistortionFlags,
  IdxFlags,
  batch_size_option,
  check_split_hash,
  classes_option,
  corrections_option,
  precision_option,
  runtime_option,
)
from beam_retrain.pipelines.options.request import JobRequest
from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.records.quarantine import OnLeak
from beam_retrain.transforms.core.records.schema import LEAKS_FILE
from beam_retrain.transforms.core.records.splits import LEGACY, SPLIT_HASHES, STABLE, SplitPercentages
from beam_retrain.transforms.core.run.flags import (
  max_bad_option,
  max_pixels_option,
  option,
  positive_int,
  trunk_threads_option,
)
from beam_retrain.transforms.core.run.request import NO_FLAG
from beam_retrain.transforms.core.runtimes.trunk_info import BATCH_SIZE, BUNDLED, TRUNK_HELP

if TYPE_CHECKING:
  from beam_retrain.transforms.sources.base import Source

_FORMATS = (
  "a CSV manifest, file_name,label[,split]; the output folder of `beam-retrain convert`; a folder of MNIST-style IDX"
  " files; WebDataset tars, or a folder of them, maybe in training/ and testing/ (NAME.jpg beside NAME.cls or NAME.txt)"
  "; or a folder with one folder of images per class, maybe in training/ and testing/ (JPEG, PNG, BMP, GIF, WebP; any"
  " size)"
)

_SPLITS, _EXISTING = ("splits",), ("existing bottlenecks",)  # groups of flags


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrunkRequest(JobRequest, IdxFlags):
  """Flags that `bottlenecks` and `plan` share: images, their splits, a trunk."""

  first: ClassVar[tuple[str, ...]] = (
    *("trunk", "trunk_weights", "trunk_input_px", "classes", "class_names", "transpose", "precision", "runtime"),
    *("batch_size", "max_pixels", "trunk_threads", "retrain_names"),
    *("testing_percentage", "validation_percentage", "split_hash"),
  )

  input: str = ""
  trunk: str = option(BUNDLED, f"{TRUNK_HELP} (default: %(default)s)")
  trunk_weights: str | None = option(
    None, "local weights of a keras: trunk, if they cannot be downloaded", metavar="FILE"
  )
  trunk_input_px: int | None = option(
    None, "input size of a trunk that takes any (default: the trunk's own)", type=positive_int, metavar="PX"
  )
  precision: str = precision_option(of_model=False)
  runtime: str = runtime_option(of_model=False)
  classes: int | None = classes_option()
  testing_percentage: float = option(
    10.0,
    "percent of the images for testing, by a stable hash of their names, if there is no folder testing/"
    " (default: %(default)g)",
    type=float,
    group=_SPLITS,
  )
  validation_percentage: float = option(
    10.0,
    "percent of the images for validation, unless a manifest names them (default: %(default)g)",
    type=float,
    group=_SPLITS,
  )
  split_hash: str = option(
    STABLE,
    "stable: by names within --input, so that the folder can move. legacy: as retrain.py, which hashed the path"
    " including --image_dir as typed: type --input the same way; for class folders only (default: %(default)s)",
    choices=SPLIT_HASHES,
    group=_SPLITS,
  )
  retrain_names: bool = option(
    False,
    "read class folders as retrain.py did: a label is the folder's name in lower case, with one space for"
    " whatever is not a-z or 0-9, and only files named .jpg, .jpeg or .png are images",
  )
  batch_size: int | None = batch_size_option(str(BATCH_SIZE))
  trunk_threads: int | None = trunk_threads_option()
  max_pixels: int = max_pixels_option()

  def find_source(self, path: str) -> tuple[Source, SplitPercentages]:
    """Returns the images in an absolute path, and how they are split.

    Raises InputError if there are none, nothing is left to train on, or the split hash does not apply to them.
    """
    from beam_retrain.transforms.sources.find import find_source

    source = find_source(
      path,
      self.classes,
      retrain_names=self.retrain_names,
      class_names=self.class_names,
      transpose=self.transpose,
    )
    return source, self.split(source)

  def split(self, source: Source) -> SplitPercentages:
    """Returns how the images are split; raises InputError as above."""
    root = self.input if self.split_hash == LEGACY else None  # as typed
    validation = 0.0 if source.has_validation else self.validation_percentage  # its own ones are kept
    try:
      percentages = SplitPercentages(self.testing_percentage, validation, root)
    except ValueError as error:
      raise InputError(f"{error}.") from error
    check_split_hash(source, percentages, f"leave out {flag('split_hash')} legacy")
    return percentages


@dataclasses.dataclass(frozen=True, kw_only=True)
class BottlenecksRequest(TrunkRequest, DistortionFlags):
  command: ClassVar[str] = "bottlenecks"
  module: ClassVar[str] = "beam_retrain.pipelines.bottlenecks"
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

  paths: ClassVar[tuple[str, ...]] = (
    "input",
    "output",
    "reuse",
    "retry_from",
    "bottleneck_dir",
    "class_names",
    "corrections",
  )

  first: ClassVar[tuple[str, ...]] = (
    *("input", "output", "reuse", "retry_from", "bottleneck_dir", *TrunkRequest.first, "on_leak"),
    *(field.name for field in dataclasses.fields(DistortionFlags)),
  )

  input: str = option("", f"{_FORMATS}; recognised automatically", metavar="DIR")
  output: str = option(help="output folder; new, empty, or of an earlier run", metavar="DIR")
  batch_size: int | None = batch_size_option(
    f"the earlier run's, if it resumes one; the fastest in a trial, for at least {LEAST_IMAGES:,} images; else"
    f" {BATCH_SIZE}, or fewer if the trunk's input is large"
  )
  reuse: tuple[str, ...] = option(
    (),
    "take bottlenecks from DIR, the output of an earlier run of the same trunk, and run the trunk over other"
    " images only; DIR is not changed; may be repeated",
    metavar="DIR",
    group=_EXISTING,
  )
  retry_from: str | None = option(
    None,
    "repeat the run that wrote DIR after some of its images have been repaired: take good images' bottlenecks"
    " from there, and run the trunk (DIR/trunk) over the others only. --input and all other settings are those of"
    " DIR; DIR is not changed, and its run may have ended with exit code 3",
    metavar="DIR",
    group=_EXISTING,
  )
  bottleneck_dir: str | None = option(
    None,
    "take bottlenecks from the text files that retrain.py wrote to its --bottleneck_dir, and run the trunk over"
    " images whose file is missing or damaged. The numbers are then retrain.py's: TensorFlow 1 resized images"
    " slightly differently from the exported model; for class folders only",
    metavar="DIR",
    group=_EXISTING,
  )
  on_leak: str = option(
    str(OnLeak.WARN),
    "what to do about identical images (by their bytes) with different labels, or in training and testing:"
    f" `warn` lists them in {LEAKS_FILE} and counts them in stats.json; `drop` also leaves out all copies with"
    " different labels, and the training copies of testing images; `fail` ends with exit code 1 before the trunk runs"
    " (default: %(default)s)",
    choices=[str(value) for value in OnLeak],
    group=("split audit",),
  )
  corrections: str | None = corrections_option()
  max_bad_fraction: float = max_bad_option()
  # The request whose output this one's becomes when it is finished, if it is another's.
  stands_for: BottlenecksRequest | None = dataclasses.field(default=None, metadata=NO_FLAG)
