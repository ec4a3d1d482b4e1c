"""`bottlenecks --retry_from`: repeats a run after quarantined images were repaired."""

from __future__ import annotations

import dataclasses

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.jobs.runner import run_pipeline
from beam_retrain.pipelines.models.precision import Choice
from beam_retrain.pipelines.models.trunk_sources import load_stored_trunk, prepare
from beam_retrain.pipelines.options.flags import DistortionFlags
from beam_retrain.pipelines.requests.bottlenecks import BottlenecksRequest
from beam_retrain.transforms.core.corrections import CORRECTIONS_FILE
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.quarantine import DROPPED
from beam_retrain.transforms.core.records.schema import (
  PREPROCESSING_VERSION,
  RECORDS_FOLDER,
  REPORTS_FOLDER,
  STATS_FILE,
  TRUNK_FOLDER,
)
from beam_retrain.transforms.core.records.splits import LEGACY, STABLE, SplitPercentages
from beam_retrain.transforms.core.run.output_folder import check_contents, find_info, is_completed
from beam_retrain.transforms.core.run.run_info import RunInfo
from beam_retrain.transforms.core.run.stats import read_stats
from beam_retrain.transforms.core.runtimes.variant import AUTO
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.checks import check_same
from beam_retrain.transforms.shards.work import read_report_file
from beam_retrain.transforms.sources.base import Source
from beam_retrain.transforms.sources.idx import count_classes

_NOT_WITH = ("reuse", "trunk_weights", "trunk_input_px")
_PATHS = ("input", "bottleneck_dir", "class_names", "corrections")
_SAME = ("input", "testing_percentage", "validation_percentage", "max_pixels", "batch_size")


@dataclasses.dataclass(frozen=True)
class Retry:
  """An earlier run to repeat; it may have ended without COMPLETED."""

  folder: str
  info: RunInfo
  bad: frozenset[str]  # keys of its quarantined images

  def apply(self, request: BottlenecksRequest) -> BottlenecksRequest:
    """Returns the request with the earlier run's settings.

    Raises:
      InputError: a given flag contradicts them.
    """
    for name in _NOT_WITH:
      if name in request.given:
        raise InputError(f"--{name} cannot be used with --retry_from, which repeats {self.folder}: leave it out.")
    settings, trunk = self.info.settings, self.info.trunk
    distortions = settings.get("distortions", {}).items()
    values = {
      **{name: settings[name] for name in _SAME},
      "trunk": trunk.handle,
      "precision": trunk.variant.precision,
      "runtime": trunk.variant.runtime,
      "split_hash": LEGACY if "split_root" in settings else STABLE,
      "classes": count_classes(settings["labels"]),
      "class_names": settings.get("class_names"),
      "transpose": settings.get("transpose", False),
      "corrections": files.join(self.folder, CORRECTIONS_FILE) if settings.get("corrections") else None,
      "on_leak": settings.get("on_leak", "warn"),
      "retrain_names": settings.get("retrain_names", False),
      "bottleneck_dir": settings.get("bottleneck_dir", {}).get("path"),
      **dataclasses.asdict(DistortionFlags()),
      **{f"distortion_{name}" if name in ("copies", "seed") else name: value for name, value in distortions},
    }
    for name, then in values.items():
      given = getattr(request, name) if name in request.given else None
      comparable = files.absolute(given) if given and name in _PATHS else given
      if comparable not in (then, None, AUTO):
        typed = f"--{name}" if given is True else f"--{name} {given}"
        raise InputError(
          f"{typed} contradicts --retry_from {self.folder}, where it was {then or 'not given'}: leave it out, or use"
          f" --reuse {self.folder} with the flags that you want."
        )
    return dataclasses.replace(request, **values)

  @property
  def percentages(self) -> SplitPercentages:
    return SplitPercentages.from_settings(self.info.settings)

  def choose_variant(self) -> Choice:
    """Returns the trunk stored there, in its variant, without looking for weights.

    Raises:
      InputError: it is missing, or this machine cannot run it.
    """
    trunk = load_stored_trunk(files.join(self.folder, TRUNK_FOLDER), self.info.trunk)
    variant = trunk.info.variant
    if reason := variant.unsupported_reason():
      cause = reason.partition(": use")[0]
      raise InputError(f"the bottlenecks in {self.folder} are in {variant}, which this machine cannot run: {cause}.")
    return Choice(prepare(trunk, variant), why=f"as for the bottlenecks in {files.shown(self.folder)}")

  def check_unchanged(self, info: RunInfo, source: Source, splits: tuple[str, ...], options: PipelineOptions) -> None:
    """Raises InputError if settings or the number of images have changed."""
    for name, then in self.info.settings.items():
      if (today := info.settings.get(name)) != then:
        what = {"labels": f"the labels in {source.path}", "bottleneck_dir": "the text bottlenecks"}.get(name, name)
        before, after = (", ".join(value) if isinstance(value, list) else value for value in (then, today))
        raise InputError(
          f"{what} have changed since the run that wrote {self.folder}, from {before} to {after}: use --reuse"
          f" {self.folder} instead of --retry_from, with the flags of that run."
        )
    inputs = {split: counts.inputs for split, counts in read_stats(self.folder, files).splits.items()}

    def build(root: beam.Pipeline) -> None:
      _ = (
        root
        | "Plan" >> source.plan(splits, self.percentages)
        # Shard
        | "CountImages" >> beam.Map(lambda shard: (shard.split, sum(1 for _ in shard.names())))
        # (split, int)
        | "SumImages" >> beam.CombinePerKey(sum)
        | "CollectCounts" >> beam.combiners.ToDict()
        | "CompareCounts" >> beam.Map(check_same, self.folder, inputs)
      )

    run_pipeline(build, options, stage="retry", shards_folder=self.folder)

  def describe(self, output: str) -> str:
    """Returns what happened to the bad images, after the job."""
    bad = _read_bad_keys(output)
    still, new = len(bad & self.bad), len(bad - self.bad)
    line = f"{len(self.bad) - still:,} of {len(self.bad):,} quarantined images are good now, {still:,} still bad"
    return f"{line}; {new:,} that were good are bad now" if new else line


def read_retry(folder: str) -> Retry:
  """Reads the output of the run to repeat.

  Raises InputError if it is not of `bottlenecks`, not finished, has no quarantined images, or another preprocessing.
  """
  info = find_info(folder, files)
  if info is None or info.stage != "bottlenecks":
    raise InputError(f"--retry_from {folder} is not an output of `beam-retrain bottlenecks`: give such a folder.")
  if is_completed(folder, files):
    check_contents(folder, info, files)
  if not files.exists(files.join(folder, STATS_FILE)):
    raise InputError(f"--retry_from {folder} is not finished: run the command that wrote it again, to resume it.")
  if (version := info.settings.get("preprocessing")) != PREPROCESSING_VERSION:
    raise InputError(
      f"the bottlenecks in {folder} were made with the preprocessing {version!r}, not {PREPROCESSING_VERSION!r}: make"
      " them again, without --retry_from."
    )
  if not (bad := _read_bad_keys(folder)):
    raise InputError(f"--retry_from {folder} has no quarantined images: there is nothing to retry.")
  return Retry(folder, info, bad)


def _read_bad_keys(folder: str) -> frozenset[str]:
  """Returns the keys of quarantined images, without those dropped on request."""
  reports = files.match_in(files.join(folder, RECORDS_FOLDER, REPORTS_FOLDER), "*.json")
  return frozenset(
    entry.key for stat in reports for entry in read_report_file(stat.path).quarantined if entry.reason not in DROPPED
  )
