"""Requests of Beam jobs: our flags, and Beam's options beside them."""

from __future__ import annotations

import pytest
from apache_beam.options.pipeline_options import StandardOptions

from beam_retrain.pipelines.convert import ConvertRequest
from beam_retrain.transforms.core.errors import InputError


def test_what_is_not_ours_is_for_beam():
  argv = ["--input=a", "--output=b", "--formats=png", "--runner=FnApiRunner", "--direct_num_workers", "2"]
  request = ConvertRequest.parse(argv)
  assert request == ConvertRequest(
    input="a", output="b", formats=("png",), beam_options=("--runner=FnApiRunner", "--direct_num_workers", "2")
  )
  assert request.to_argv() == argv
  assert request.pipeline_options().view_as(StandardOptions).runner == "FnApiRunner"


def test_options_of_a_request_made_in_code_are_checked():
  request = ConvertRequest(input="a", output="b", beam_options=("--runner=Tractor",))
  with pytest.raises(InputError, match="beam-retrain convert: --runner Tractor"):
    request.pipeline_options()
