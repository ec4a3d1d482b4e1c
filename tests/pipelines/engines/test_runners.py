"""Where a runner works."""

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.engines.runners import choose_runner, is_in_process, is_local, runner_name


@pytest.mark.parametrize(
  ("runner", "in_process", "local"),
  [
    (None, True, True),
    ("FnApiRunner", True, True),
    ("DirectRunner", True, True),
    ("directrunner", True, True),
    ("BundleBasedDirectRunner", True, True),
    ("apache_beam.runners.direct.direct_runner.SwitchingDirectRunner", True, True),
    ("PrismRunner", False, True),
    ("PortableRunner", False, False),
    ("FlinkRunner", False, False),
    ("SparkRunner", False, False),
    ("DataflowRunner", False, False),
  ],
)
def test_where_a_runner_works(runner, in_process, local):
  options = PipelineOptions(flags=[f"--runner={runner}"] if runner else [])
  assert (is_in_process(options), is_local(options)) == (in_process, local)


def test_without_a_runner_it_is_fnapirunner():
  options = PipelineOptions(flags=[])
  assert runner_name(options) == "FnApiRunner"
  choose_runner(options)
  assert options.get_all_options()["runner"] == "FnApiRunner"
