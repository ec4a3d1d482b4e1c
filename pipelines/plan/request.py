"""The request and the flags of `plan`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from beam_retrain.pipelines.requests.bottlenecks import BottlenecksRequest, TrunkRequest
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.flags import option, positive_int

if TYPE_CHECKING:
  from apache_beam.options.pipeline_options import PipelineOptions

  from beam_retrain.transforms.sources.base import Source

_DESCRIPTION = """\
Estimates the time, memory, disk and shards that `bottlenecks` will take over these images. Leaves nothing behind but
the prepared trunk in the cache, which the job then uses.

It lists the input once, runs the whole job over a few dozen of the images in a temporary folder, runs the trunk over
more for a few seconds, and adds up: every figure is measured by the job's own code on this machine. The machine should
be as busy as it will be during the job. Give the flags that you will give to `bottlenecks`."""

_EPILOG = """\
examples:
  beam-retrain plan --input flower_photos --trunk inception_v3
  beam-retrain plan --input flower_photos --trunk inception_v3 --workers 20 --pictures 5000000

It does not plan distortions, --reuse and --retry_from. It cannot know how long an engine (--runner) takes to start,
how fast the workers' disks and networks are, or which of the other images are damaged."""


class PlannedInput(NamedTuple):
  options: PipelineOptions
  source: Source
  percentages: SplitPercentages
  engine: str  # the runner, or empty if it works within the command


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanRequest(TrunkRequest):
  command: ClassVar[str] = "plan"
  module: ClassVar[str] = "beam_retrain.pipelines.plan.command"
  description: ClassVar[str] = _DESCRIPTION
  epilog: ClassVar[str] = _EPILOG

  first: ClassVar[tuple[str, ...]] = ("input", "workers", "pictures", "json", *TrunkRequest.first)

  input: str = option(help="images in any form that `bottlenecks` takes; only read", metavar="DIR")
  workers: int = option(
    1,
    "machines that share the work, each with as many cores as are available here (default: %(default)d)",
    type=positive_int,
    metavar="N",
  )
  pictures: int | None = option(
    None, "plan for N images like those in --input (default: the number in --input)", type=positive_int, metavar="N"
  )
  json: bool = option(False, "print one JSON object instead of the table")

  def find_input(self) -> PlannedInput:
    from beam_retrain.pipelines.engines.runners import is_in_process, runner_name
    from beam_retrain.pipelines.options.engine import check_paths
    from beam_retrain.transforms.io import files

    options = self.pipeline_options(check_engine=False)
    path = files.absolute(self.input)
    check_paths(options, path)
    engine = "" if is_in_process(options) else runner_name(options)
    return PlannedInput(options, *self.find_source(path), engine)

  def of_sample(self, images: str, output: str, engine: str) -> BottlenecksRequest:
    """Returns the request of the job over a sample, on this machine.

    Args:
      engine: as of `PlannedInput`; its options are left out.
    """
    return BottlenecksRequest(
      input=images,
      output=output,
      trunk=self.trunk,
      trunk_weights=self.trunk_weights,
      trunk_input_px=self.trunk_input_px,
      precision=self.precision,
      runtime=self.runtime,
      batch_size=self.batch_size,
      trunk_threads=self.trunk_threads,
      max_pixels=self.max_pixels,
      validation_percentage=0.0,
      max_bad_fraction=1.0,
      beam_options=() if engine else self.beam_options,
    )
