"""A Beam worker, for Beam's PROCESS environment or a worker pool.

  python -m beam_retrain.pipelines.worker --id=ID --provision_endpoint=HOST:PORT --control_endpoint=...

The engine starts it with the addresses. Nothing that a job stages is fetched: the installed code runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from beam_retrain.transforms.core.system.imports import OWN_JOB, leave_out_of_beam, load_command

if TYPE_CHECKING:
  from apache_beam.portability.api import beam_provision_api_pb2

_PROVISION_SECS = 60


def read_arguments(argv: Sequence[str]) -> argparse.Namespace:
  """Returns `id` and four endpoints, HOST:PORT or empty."""
  parser = argparse.ArgumentParser(prog="beam_retrain.pipelines.worker", allow_abbrev=False)
  parser.add_argument("--id", required=True)
  parser.add_argument("--provision_endpoint", required=True)
  for name in ("control", "logging", "artifact"):
    parser.add_argument(f"--{name}_endpoint", default="")
  return parser.parse_args(argv)


def fetch_provision(worker_id: str, endpoint: str) -> beam_provision_api_pb2.ProvisionInfo:
  """Returns the engine's information for this worker; raises grpc.RpcError after a minute."""
  import grpc
  from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc

  request, caller = beam_provision_api_pb2.GetProvisionInfoRequest(), [("worker_id", worker_id)]
  with grpc.insecure_channel(endpoint) as channel:
    stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
    return stub.GetProvisionInfo(request, timeout=_PROVISION_SECS, metadata=caller, wait_for_ready=True).info


def worker_environment(arguments: argparse.Namespace, info: beam_provision_api_pb2.ProvisionInfo) -> dict[str, str]:
  """Returns the variables that Beam's worker reads.

  Provisioning takes precedence over `arguments`; see `read_arguments`.
  """
  from apache_beam.portability.api import endpoints_pb2
  from google.protobuf import json_format, text_format

  urls = {
    "CONTROL": info.control_endpoint.url or arguments.control_endpoint,
    "LOGGING": info.logging_endpoint.url or arguments.logging_endpoint,
  }
  if info.status_endpoint.url:
    urls["STATUS"] = info.status_endpoint.url
  # Beam Python has no authentication here, and takes the address alone.
  addresses = {name: endpoints_pb2.ApiServiceDescriptor(url=url) for name, url in urls.items()}
  return {
    "WORKER_ID": arguments.id,
    "SEMI_PERSISTENT_DIRECTORY": "",  # of a pickled session, and there is none
    "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options),
    "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    **{f"{name}_API_SERVICE_DESCRIPTOR": text_format.MessageToString(at) for name, at in addresses.items()},
  }


def main(argv: Sequence[str]) -> None:
  """Works until the engine closes the connection."""
  if OWN_JOB in os.environ:
    leave_out_of_beam()
  harness = load_command("apache_beam.runners.worker.sdk_worker_main")  # first: `--help` fails if it is missing
  arguments = read_arguments(argv)
  info = fetch_provision(arguments.id, arguments.provision_endpoint)
  os.environ.update(worker_environment(arguments, info))
  harness.main([])


if __name__ == "__main__":
  main(sys.argv[1:])
