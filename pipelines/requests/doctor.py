"""The flags of `doctor`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from beam_retrain.pipelines.options.request import JobRequest
from beam_retrain.transforms.core.run.flags import option, positive_int
from beam_retrain.transforms.core.runtimes.trunk_info import BUNDLED, TRUNK_HELP

SECS, DATAFLOW_SECS = 60, 900  # time limits of the tiny job

_DESCRIPTION = """\
Checks the engine that the flags name with a tiny job, whose workers report on themselves. Prints a line for each check:
`ok`, a `warning`, or a `problem` with its remedy. Give the same flags as for the real job.

It checks Java, the job server's jar and the master; which of Beam's local runners DirectRunner uses here; the number
and hosts of the worker processes; their versions of Python, Beam, TensorFlow, OpenVINO and beam-retrain, and their
processors; whether they read and write the same paths and buckets as this machine; their clocks, temporary files and
memory. It leaves no file and no job behind."""

_EPILOG = """\
examples:
  beam-retrain doctor --output /shared/flowers/bottlenecks --runner=FlinkRunner --flink_master=localhost:8081 \\
    --environment_type=EXTERNAL --environment_config=localhost:50000
  beam-retrain doctor --input s3://bucket/flowers --output s3://bucket/bottlenecks --runner=SparkRunner ...
  beam-retrain doctor --direct_running_mode=multi_processing --direct_num_workers=2

The exit code is 0 without problems, else 2."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoctorRequest(JobRequest):
  command: ClassVar[str] = "doctor"
  module: ClassVar[str] = "beam_retrain.pipelines.doctor.command"
  description: ClassVar[str] = _DESCRIPTION
  epilog: ClassVar[str] = _EPILOG

  trunk: str = option(BUNDLED, f"{TRUNK_HELP}; not downloaded (default: %(default)s)")
  input: tuple[str, ...] = option(
    (),
    "what the job's workers read: images, a model, or stored bottlenecks; may be repeated",
    action="append",
    metavar="DIR",
  )
  output: str | None = option(None, "the job's output folder; a file next to it is written and deleted", metavar="DIR")
  timeout_secs: int | None = option(
    None,
    f"time limit of the tiny job in seconds (default: {SECS}, Dataflow {DATAFLOW_SECS})",
    type=positive_int,
    metavar="N",
  )
