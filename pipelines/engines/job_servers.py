"""The options of the Java job servers."""

from __future__ import annotations

_PORTABLE = (("load_balance_bundles", "retain_docker_containers"), ("environment_expiration_millis",))
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
"""Runner -> switches, options with a value, of the Java job servers, which Beam Python does not know.

Beam asks the job server for them only on submission, and drops unknown ones with a line in a log: a typo in
`--number_of_execution_retries` would show only when a worker dies. So it is an error before the job. The names are
those that DescribePipelineOptions of the job servers 2.62.0 lists (the engine tests ask again), without streaming's.
"""
