"""Plans a training: checks the request against the bottlenecks. No TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from beam_retrain.trainer.export.tflite_options import TfliteOptions
from beam_retrain.trainer.options import TrainRequest
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.run_info import RunInfo, read_info, read_labels
from beam_retrain.transforms.core.runtimes.trunk_info import TrunkInfo


@dataclasses.dataclass(frozen=True)
class Job:
  """A planned training.

  Attributes:
    labels: class index -> label.
    percentages: the planned splits, with the requested validation percentage.
  """

  request: TrainRequest
  bottlenecks: str
  output: str
  info: RunInfo
  trunk: TrunkInfo
  labels: Sequence[str]
  percentages: SplitPercentages
  tflite: TfliteOptions


def plan(request: TrainRequest, copies: Mapping[str, str]) -> Job:
  """Checks all that needs no TensorFlow; writes nothing."""
  request.validate()
  bottlenecks, output = (_local(path, copies) for path in (request.input, request.output))
  info = read_info(bottlenecks, "bottlenecks")
  return Job(
    request,
    bottlenecks=bottlenecks,
    output=output,
    info=info,
    trunk=info.trunk,
    percentages=_split_percentages(request, info),
    labels=read_labels(bottlenecks),
    tflite=request.resolve_tflite(str(info.settings.get("input", ""))),
  )


def _local(path: str, copies: Mapping[str, str]) -> str:
  local = copies.get(path, path)
  if "://" in local:
    raise InputError(f"{local} is remote: use `beam-retrain train`, which copies such a folder; the trainer does not.")
  return local


def _split_percentages(request: TrainRequest, info: RunInfo) -> SplitPercentages:
  try:
    planned = SplitPercentages.from_settings(info.settings)
  except ValueError as error:
    raise InputError(
      f"{request.input} was written by another version of beam-retrain: {error}: run `bottlenecks` again."
    ) from error
  validation = planned.validation if request.validation_percentage is None else request.validation_percentage
  if validation != planned.validation and planned.legacy_root is not None:
    raise InputError(
      f"--validation_percentage {validation:g}: with --split_hash legacy it also decides which images are for testing:"
      f" leave it out, or run `bottlenecks` with it (it was {planned.validation:g} there)."
    )
  try:
    return dataclasses.replace(planned, validation=validation)
  except ValueError as error:
    raise InputError(f"--validation_percentage: {error}.") from error
