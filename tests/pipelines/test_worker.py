"""What a worker's command asks the engine, and what it tells Beam's worker: against a real provision service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent import futures

import grpc
import pytest
from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc, endpoints_pb2
from google.protobuf import text_format

from beam_retrain.pipelines.worker import fetch_provision, read_arguments, worker_environment
from beam_retrain.transforms.core.system.imports import OWN_JOB
from tests.helpers import ROOT


class _Provision(beam_provision_api_pb2_grpc.ProvisionServiceServicer):
  """Knows one worker."""

  def __init__(self, info):
    self.info = info

  def GetProvisionInfo(self, request, context):  # noqa: N802 -- the service's own name
    if ("worker_id", "1-1") not in [(key, value) for key, value in context.invocation_metadata()]:
      context.abort(grpc.StatusCode.NOT_FOUND, "another worker")
    return beam_provision_api_pb2.GetProvisionInfoResponse(info=self.info)


@pytest.fixture
def endpoint():
  info = beam_provision_api_pb2.ProvisionInfo(
    runner_capabilities=["beam:protocol:control_response_elements_embedding:v1"],
    logging_endpoint=endpoints_pb2.ApiServiceDescriptor(url="localhost:3"),
  )
  info.pipeline_options.update({"beam:option:s3_region_name:v1": "here", "beam:option:experiments:v1": ["a", "b"]})
  server = grpc.server(futures.ThreadPoolExecutor(1))
  beam_provision_api_pb2_grpc.add_ProvisionServiceServicer_to_server(_Provision(info), server)
  port = server.add_insecure_port("127.0.0.1:0")
  server.start()
  yield f"127.0.0.1:{port}"
  server.stop(None)


def test_the_worker_gets_what_the_engine_says_and_else_what_the_command_says(endpoint):
  arguments = read_arguments(
    ["--id=1-1", f"--provision_endpoint={endpoint}", "--control_endpoint=localhost:1", "--logging_endpoint=localhost:2"]
  )
  variables = worker_environment(arguments, fetch_provision("1-1", endpoint))
  assert _address(variables.pop("CONTROL_API_SERVICE_DESCRIPTOR")) == "localhost:1"
  assert _address(variables.pop("LOGGING_API_SERVICE_DESCRIPTOR")) == "localhost:3"
  assert json.loads(variables.pop("PIPELINE_OPTIONS")) == {
    "beam:option:s3_region_name:v1": "here",
    "beam:option:experiments:v1": ["a", "b"],
  }
  assert variables == {
    "WORKER_ID": "1-1",
    "SEMI_PERSISTENT_DIRECTORY": "",
    "RUNNER_CAPABILITIES": "beam:protocol:control_response_elements_embedding:v1",
  }


def test_another_worker_s_name_is_not_answered(endpoint):
  with pytest.raises(grpc.RpcError, match="another worker"):
    fetch_provision("2-1", endpoint)


@pytest.mark.parametrize("own", [True, False])
def test_a_command_s_worker_leaves_out_of_beam_what_a_program_s_own_pipeline_may_need(own):
  code = """if True:
    import contextlib, sys
    from beam_retrain.pipelines.worker import main
    with contextlib.suppress(SystemExit):
      main(["--help"])
    from apache_beam.io import parquetio
    print(parquetio.pa is not None)"""
  environment = {**os.environ, OWN_JOB: "1"} if own else {k: v for k, v in os.environ.items() if k != OWN_JOB}
  ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
  assert ended.stdout.splitlines()[-1] == str(not own), ended.stderr


def _address(text: str) -> str:
  return text_format.Parse(text, endpoints_pb2.ApiServiceDescriptor()).url
