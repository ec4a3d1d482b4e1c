"""The command line of `bottlenecks`: its flags, read and checked before any work. No job is run here."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, StandardOptions

from beam_retrain.pipelines.models.execution import LEAST_IMAGES, is_local
from beam_retrain.pipelines.models.trunk_sources import BUNDLED
from beam_retrain.pipelines.models.trunk_sources import HELP as TRUNK_HELP
from beam_retrain.pipelines.options.arguments import (
  ArgumentParser,
  add_max_bad_fraction,
  add_model_flags,
  parse_job,
  positive_int,
  refuse_unreachable,
)
from beam_retrain.pipelines.options.precision import add_precision_flags
from beam_retrain.pipelines.options.retrain_names import add_retrain_names, retrain_names_setting
from beam_retrain.pipelines.options.splits import add_split_flags, read_percentages
from beam_retrain.pipelines.requests.retry import Retry, add_retry_from, apply_retry, given_flags, read_retry
from beam_retrain.pipelines.requests.text_import import add_bottleneck_dir
from beam_retrain.transforms.bottlenecks.distorted import add_distortion_flags, distortions_setting, read_distortions
from beam_retrain.transforms.bottlenecks.model_handler import BATCH_SIZE
from beam_retrain.transforms.compat.text_bottlenecks import Texts
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.augment import Distortions
from beam_retrain.transforms.core.records.schema import PREPROCESSING_VERSION, TESTING, TRAINING
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.io import files
from beam_retrain.transforms.leaks.policy import add_on_leak, on_leak_setting
from beam_retrain.transforms.sources.base import Source
from beam_retrain.transforms.sources.find import find_source


@dataclasses.dataclass(frozen=True)
class Request:
  """What the user asked for; every flag has been looked at.

  Attributes:
    flags: as they were parsed, paths absolute.
    options: Beam's.
    source: the images.
    percentages: how many images are for testing and for validation.
    retry: the run that is done again; None: none.
    distortions: of the training images; None: none.
  """

  flags: argparse.Namespace
  options: PipelineOptions
  source: Source
  percentages: SplitPercentages
  retry: Retry | None = None
  distortions: Distortions | None = None

  def settings(self, trunk_fingerprint: str, batch_size: int, texts: Texts | None = None) -> dict[str, Any]:
    """Returns what decides the output's bytes, JSON values; `texts`: what is imported."""
    return {
      "input": self.flags.input,
      "trunk_fingerprint": trunk_fingerprint,
      "preprocessing": PREPROCESSING_VERSION,
      **self.percentages.to_settings(),
      "max_pixels": self.flags.max_pixels,
      "batch_size": batch_size,
      "labels": self.source.labels,
      **retrain_names_setting(self.flags.retrain_names),
      **on_leak_setting(self.flags.on_leak),
      **distortions_setting(self.distortions),
      **({"bottleneck_dir": texts.to_settings()} if texts else {}),
    }


def read_request(argv: Sequence[str]) -> Request:
  """Reads the command line and looks for what it names.

  Raises:
    InputError: something that the user gave cannot be used.
  """
  parser = make_parser()
  flags, options = parse_job(parser, argv)
  refuse_unreachable(options, flags.input, flags.output, flags.reuse, flags.retry_from)
  retry = None
  if flags.retry_from is not None:
    retry = read_retry(files.absolute(flags.retry_from))
    apply_retry(retry, flags, given_flags(make_parser(), argv))
  elif flags.input is None:
    parser.error("the following arguments are required: --input")
  distortions = read_distortions(flags)
  typed_input = retry.typed_input if retry else flags.input
  flags.input, flags.output = files.absolute(flags.input), files.absolute(flags.output)
  _refuse_unwritable(flags.output, options)
  flags.reuse = [files.absolute(folder) for folder in flags.reuse]
  if flags.bottleneck_dir is not None:
    flags.bottleneck_dir = files.absolute(flags.bottleneck_dir)
  source = find_source(flags.input, flags.classes, retrain_names=flags.retrain_names)
  percentages = read_percentages(flags, typed_input, source)
  source.plan((TRAINING, TESTING), percentages)  # finds what is missing before the old output is touched
  for folder in flags.reuse:
    _refuse_overlap(folder, flags.output, "--reuse")
  if retry:
    _refuse_overlap(retry.folder, flags.output, "--retry_from")
    retry.check_labels(source)
  return Request(flags, options, source, percentages, retry, distortions)


def make_parser() -> argparse.ArgumentParser:
  parser = ArgumentParser(
    prog="beam-retrain bottlenecks",
    description=(
      "Runs labelled images through a frozen trunk, once, and stores one vector (bottleneck) per image.\n"
      "Then tensorflow-transform learns the scaling of the vectors from the training ones.\n\n"
      "A run that was killed goes on where it was: finished shards are kept. With --reuse, images that an earlier\n"
      "output has, by their bytes, cost no run of the trunk; the output is as complete as without. With --retry_from,\n"
      "what an earlier run had to leave out is done again, and the rest is taken from it."
    ),
    epilog=(
      "example:\n  beam-retrain bottlenecks --input flower_photos --trunk bundled --output flowers/bottlenecks\n\n"
      "Any Beam option may follow, for example --runner=FlinkRunner, or\n"
      "  --direct_running_mode=multi_processing --direct_num_workers=2   for two processes on this machine."
    ),
  )
  parser.add_argument(
    "--input",
    metavar="DIR",
    help="a folder of MNIST-style IDX files; of class folders, maybe in training/ and testing/ (JPEG, PNG, BMP, GIF;"
    " any size); what `convert` wrote; or a CSV manifest, file_name,label[,split]. It is recognised by what is there",
  )
  parser.add_argument(
    "--output", required=True, metavar="DIR", help="folder to write; new, empty, or of an earlier run"
  )
  known = parser.add_argument_group("bottlenecks that are there already")
  known.add_argument(
    "--reuse",
    action="append",
    default=[],
    metavar="DIR",
    help="take bottlenecks from DIR, what an earlier run of the same trunk wrote, and run the trunk over the other"
    " images only; DIR is not changed; may be given more than once",
  )
  add_retry_from(known)
  add_bottleneck_dir(known)
  parser.add_argument("--trunk", default=BUNDLED, help=f"{TRUNK_HELP} (default: %(default)s)")
  parser.add_argument(
    "--trunk_weights", metavar="FILE", help="local weights of a keras: trunk, where they cannot be downloaded"
  )
  parser.add_argument(
    "--trunk_input_px",
    type=positive_int,
    metavar="PX",
    help="input size of a trunk that takes any (default: the trunk's own)",
  )
  add_precision_flags(parser)
  add_split_flags(parser)
  add_on_leak(parser)
  add_distortion_flags(parser)
  add_retrain_names(parser)
  parser.add_argument(
    "--classes", type=positive_int, default=10, metavar="N", help="classes of an IDX folder (default: %(default)d)"
  )
  add_model_flags(
    parser,
    f"as in an earlier run into the folder; of {LEAST_IMAGES:,} images or more what a trial finds fastest;"
    f" else {BATCH_SIZE}",
  )
  add_max_bad_fraction(parser)
  return parser


def shared_scratch(options: PipelineOptions) -> str:
  """Returns the folder of this machine and of all workers that `--temp_location` names; empty: it names none."""
  path = options.view_as(GoogleCloudOptions).temp_location
  return files.absolute(path) if path and files.is_local(path) else ""


def _refuse_unwritable(output: str, options: PipelineOptions) -> None:
  """Checks that TensorFlow can write the transform graph, as it does on the workers."""
  if output.startswith("s3://") and not is_local(options) and not shared_scratch(options):
    runner = options.view_as(StandardOptions).runner
    raise InputError(
      f"--output {output}: on {runner} TensorFlow writes the transform graph on the workers, and it cannot write s3://:"
      " name a folder that all workers see with --temp_location, for what it writes on the way."
    )


def _refuse_overlap(store: str, output: str, flag: str) -> None:
  """Checks that the folder to reuse, which `flag` gave, is not the one to replace."""
  if files.overlap(store, output):
    raise InputError(f"--output {output} overlaps with {flag} {store}: give a new folder, the old one is only read.")
