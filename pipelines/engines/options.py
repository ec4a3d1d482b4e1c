"""Options of the Java job servers, which Beam Python does not know.

Beam asks the job server for them only on submission, and drops unknown ones with a line in a log: a typo in
`--number_of_execution_retries` would show only when a worker dies. So it is an error before the job. The names are
those that DescribePipelineOptions of the job servers 2.62.0 lists (the engine tests ask again), without streaming's.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from beam_retrain.pipelines.engines.runners import PORTABLE
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.argparse_internals import flags_of

_PORTABLE = (("load_balance_bundles", "retain_docker_containers"), ("environment_expiration_millis",))
# Runner -> switches, options with a value.
ENGINE_OPTIONS = {
  "FlinkRunner": (
    (
      *_PORTABLE[0],
      *("disable_metrics", "faster_copy", "object_reuse", "operator_chaining", "re_iterable_group_by_key_result"),
      "use_data_stream_for_batch",
    ),
    (
      *_PORTABLE[1],
      *("execution_mode_for_batch", "execution_retry_delay", "file_input_split_max_size_m_b", "flink_conf_dir"),
      *("max_bundle_size", "max_bundle_time_mills", "number_of_execution_retries", "state_backend"),
      "state_backend_storage_path",
    ),
  ),
  "SparkRunner": (
    (*_PORTABLE[0], "cache_disabled", "enable_spark_metric_sinks"),
    (*_PORTABLE[1], "bundle_size", "storage_level"),
  ),
}


def add_engine_options(parser: argparse.ArgumentParser) -> None:
  """Adds the options of all job servers to a parser of Beam's."""
  present = set(flags_of(parser))
  for switches, valued in ENGINE_OPTIONS.values():
    for name in (*switches, *valued):
      if f"--{name}" not in present:
        parser.add_argument(f"--{name}", action="store_true" if name in switches else "store", default=None)
        present.add(f"--{name}")


def validate_engine_options(prog: str, runner: str, argv: Sequence[str]) -> None:
  """Checks that the runner has each given job server's option.

  Args:
    runner: its name, in any case; PortableRunner's job server may be any.
  """
  if runner.lower() == PORTABLE:
    return
  for flag in (argument.split("=")[0] for argument in argv):
    engines = [
      engine for engine, kinds in ENGINE_OPTIONS.items() if any(flag == f"--{name}" for name in sum(kinds, ()))
    ]
    if engines and runner.lower() not in map(str.lower, engines):
      raise InputError(f"{prog}: {flag} is an option of {' and '.join(engines)}, not of {runner}: leave it out.")
