"""Options of the Java job servers, which Beam Python does not know: of batch jobs, as ours are.

Beam asks the job server for them, but only when a job is submitted, and what neither knows it drops with a line in a
log: a typo in `--number_of_execution_retries` would show when a worker dies. So their names are here, and a misspelt
one is refused before the work. They are those that DescribePipelineOptions of the job servers 2.62.0 lists (the engine
tests ask again); streaming's are left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.argparse_internals import flags_of

_PORTABLE = (("load_balance_bundles", "retain_docker_containers"), ("environment_expiration_millis",))
# Runner -> names of switches, names of options with a value.
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
  """Adds the options of all job servers, so that they are parsed as the job server's own are."""
  present = set(flags_of(parser))
  for switches, valued in ENGINE_OPTIONS.values():
    for name in (*switches, *valued):
      if f"--{name}" not in present:
        parser.add_argument(f"--{name}", action="store_true" if name in switches else "store", default=None)
        present.add(f"--{name}")


def refuse_other_engines(prog: str, runner: str | None, argv: Sequence[str]) -> None:
  """Checks that no option of a job server goes to a runner that does not have it, and would drop it.

  Args:
    prog: the command's name.
    runner: as `--runner` was given, in letters of any size; PortableRunner's job server may be any.
    argv: the arguments that are Beam's.

  Raises:
    InputError: there is one; names the runners that have it.
  """
  runner = (runner or "FnApiRunner").rsplit(".", 1)[-1]
  if runner.lower() == "portablerunner":
    return
  for flag in (argument.split("=")[0] for argument in argv):
    engines = [
      engine for engine, kinds in ENGINE_OPTIONS.items() if any(flag == f"--{name}" for name in sum(kinds, ()))
    ]
    if engines and runner.lower() not in map(str.lower, engines):
      raise InputError(f"{prog}: {flag}: {runner} has no such option, it is of {' and '.join(engines)}: leave it out.")
