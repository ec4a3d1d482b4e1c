"""`bottlenecks --retry_from`: the same request once more, where images that were quarantined have been repaired."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.jobs.runner import run_pipeline
from beam_retrain.pipelines.models.precision import Choice
from beam_retrain.pipelines.models.trunk_sources import load_stored_trunk, prepare
from beam_retrain.pipelines.options.precision import AUTO
from beam_retrain.transforms.bottlenecks.distorted import distortion_flags
from beam_retrain.transforms.compat.text_bottlenecks import Texts
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.quarantine import DROPPED
from beam_retrain.transforms.core.records.schema import (
  PREPROCESSING_VERSION,
  RECORDS_FOLDER,
  STATS_FILE,
  TESTING,
  TRAINING,
)
from beam_retrain.transforms.core.records.shards import ShardReport
from beam_retrain.transforms.core.records.splits import LEGACY, STABLE, SplitPercentages
from beam_retrain.transforms.core.run.run_info import RunInfo, find_info
from beam_retrain.transforms.core.run.stats import read_stats
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.image_counts import CheckSameImages
from beam_retrain.transforms.shards.work import REPORTS_FOLDER
from beam_retrain.transforms.sources.base import Source

_NOT_WITH = ("reuse", "trunk_weights", "trunk_input_px")


def add_retry_from(group: argparse._ActionsContainer) -> None:
  group.add_argument(
    "--retry_from",
    metavar="DIR",
    help="do again what wrote DIR, some of whose images have been repaired since: what was sound is taken from there,"
    " and the trunk (DIR/trunk) runs over the others only. --input and all else that decides the output are those of"
    " DIR; DIR is not changed, and may be of a run that ended with exit code 3",
  )


@dataclasses.dataclass(frozen=True)
class Retry:
  """A finished run, maybe without COMPLETED for having had too many bad images, that is to be done again.

  Attributes:
    folder: what it wrote.
    info: the contents of its `info.json`.
    inputs: split -> images, of its ledger.
    bad: keys of what it quarantined.
  """

  folder: str
  info: RunInfo
  inputs: Mapping[str, int]
  bad: frozenset[str]

  @property
  def typed_input(self) -> str:
    """`--input` as it was typed, where that decides the split."""
    return str(self.info.settings.get("split_root", self.info.settings["input"]))

  def choose_variant(self) -> Choice:
    """Returns the trunk as it is stored there, in its variant: no weights are looked for.

    Raises:
      InputError: it is not there any more, or this machine cannot run it.
    """
    trunk = load_stored_trunk(files.join(self.folder, "trunk"), self.info.trunk)
    variant = trunk.info.variant
    if reason := variant.unsupported_reason():
      cause = reason.partition(": use")[0]
      raise InputError(f"the bottlenecks in {self.folder} are in {variant}, which cannot be had here: {cause}.")
    return Choice(prepare(trunk, variant), why=f"as for the bottlenecks in {files.shown(self.folder)}")

  def check_labels(self, source: Source) -> None:
    """Checks that the classes are the same.

    Raises:
      InputError: they are not.
    """
    if list(source.labels) != (then := list(self.info.labels)):
      raise InputError(
        f"the labels in {source.path} are {', '.join(source.labels)} today, they were {', '.join(then)} in the run that"
        f" wrote {self.folder}: give --reuse {self.folder} instead of --retry_from, and the flags of that run."
      )

  def check_texts(self, texts: Texts | None) -> None:
    """Checks that the text bottlenecks that are imported, if any are, have not changed.

    Raises:
      InputError: they have.
    """
    if texts and texts.to_settings() != self.info.settings["bottleneck_dir"]:
      raise InputError(
        f"the text bottlenecks in {texts.folder} have changed since the run that wrote {self.folder}: give --reuse"
        f" {self.folder} instead of --retry_from, and the flags of that run."
      )

  def check_images(self, source: Source, percentages: SplitPercentages, options: PipelineOptions) -> None:
    """Runs a job that counts the images.

    Raises:
      InputError: there are more, or fewer, than the ledger has.
    """

    def build(root: beam.Pipeline) -> None:
      shards = root | "Plan" >> source.plan((TRAINING, TESTING), percentages)
      _ = shards | "CheckSameImages" >> CheckSameImages(self.folder, self.inputs)

    run_pipeline(build, options, stage="retry", shards_folder=self.folder)

  def describe(self, output: str) -> str:
    """Returns what a user is told, once the ledger of `output` is closed too."""
    bad = read_bad_keys(output)
    still, new = len(bad & self.bad), len(bad - self.bad)
    line = f"{len(self.bad) - still:,} of {len(self.bad):,} quarantined images sound now, {still:,} still bad"
    return f"{line}; {new:,} that were good have gone bad since" if new else line


def read_retry(folder: str) -> Retry:
  """Reads what a run has left.

  Raises:
    InputError: it was no run of `bottlenecks`, was not finished, or has quarantined nothing; or what it wrote is of no
      use today.
  """
  info = find_info(folder, files)
  if info is None or info.stage != "bottlenecks":
    raise InputError(f"--retry_from {folder} is not what `beam-retrain bottlenecks` wrote: give such a folder.")
  if not files.exists(files.join(folder, STATS_FILE)):
    raise InputError(
      f"--retry_from {folder} is not finished: run the command that wrote it again, it goes on where it was."
    )
  if (found := info.settings["preprocessing"]) != PREPROCESSING_VERSION:
    raise InputError(
      f"the bottlenecks in {folder} were made with another preprocessing ({found!r}) than today's"
      f" ({PREPROCESSING_VERSION!r}): make them again, without --retry_from."
    )
  bad = read_bad_keys(folder)
  if not bad:
    raise InputError(f"--retry_from {folder} has no quarantined images: there is nothing to do again.")
  inputs = {split: counts.inputs for split, counts in read_stats(folder, files).splits.items()}
  return Retry(folder, info, inputs, bad)


def read_bad_keys(folder: str) -> frozenset[str]:
  """Returns the keys of what a run of `bottlenecks` has quarantined, but for what the user has asked to leave out."""
  reports = files.match_in(files.join(folder, RECORDS_FOLDER, REPORTS_FOLDER), "*.json")
  return frozenset(
    entry.key
    for stat in reports
    for entry in ShardReport.from_json(files.read_bytes(stat.path).decode()).quarantined
    if entry.reason not in DROPPED
  )


def apply_retry(retry: Retry, flags: argparse.Namespace, given: Mapping[str, Any]) -> None:
  """Sets the flags to those of the earlier run, in place.

  Args:
    retry: the earlier run.
    flags: as they were parsed.
    given: those of them that the user gave.

  Raises:
    InputError: one that was given contradicts.
  """
  for name in _NOT_WITH:
    if name in given:
      raise InputError(f"--{name} does not go with --retry_from, which takes all from {retry.folder}: leave it out.")
  for name, earlier in _earlier_flags(retry.info).items():
    if given.get(name) is not None and _comparable(name, given[name]) not in (earlier, AUTO):
      typed = f"--{name}" if given[name] is True else f"--{name} {given[name]}"
      raise InputError(
        f"{typed} contradicts --retry_from {retry.folder}, where it was {earlier or 'not given'}: leave it out, or use"
        f" --reuse {retry.folder} with the flags that you want."
      )
    setattr(flags, name, earlier)


def _comparable(name: str, value: Any) -> Any:
  return files.absolute(value) if name in ("input", "bottleneck_dir") else value


def _earlier_flags(info: RunInfo) -> dict[str, Any]:
  settings = info.settings
  texts = settings.get("bottleneck_dir")
  trunk = info.trunk
  return {
    "input": settings["input"],
    "trunk": trunk.handle,
    "precision": trunk.variant.precision,
    "runtime": trunk.variant.runtime,
    "testing_percentage": settings["testing_percentage"],
    "validation_percentage": settings["validation_percentage"],
    "split_hash": LEGACY if "split_root" in settings else STABLE,
    "max_pixels": settings["max_pixels"],
    "batch_size": settings["batch_size"],
    "classes": len(settings["labels"]),
    "on_leak": settings.get("on_leak", "warn"),
    "retrain_names": settings.get("retrain_names", False),
    "bottleneck_dir": texts and texts["path"],
    **distortion_flags(settings),
  }


def given_flags(parser: argparse.ArgumentParser, argv: Sequence[str]) -> dict[str, Any]:
  """Returns the flags that stand on a command line, without the defaults of the others; `parser` is used up."""
  for action in parser._actions:
    action.default, action.required = argparse.SUPPRESS, False
  return vars(parser.parse_known_args(argv)[0])
