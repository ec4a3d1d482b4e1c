"""Worker processes of Beam's local runner, with the command's options, and watched.

Beam starts those of `--direct_running_mode=multi_processing` without options, though S3's endpoint, for example, is
one; and it waits for ever for the answer of a killed one. So its handler of such processes is replaced.
"""

from __future__ import annotations

import abc
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_provision_api_pb2, endpoints_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
from apache_beam.runners.portability.fn_api_runner.worker_handlers import GrpcWorkerHandler, WorkerHandler
from apache_beam.transforms.environments import Environment
from google.protobuf import json_format, text_format

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.io.beam_internals import end_data_channel

_PATIENCE_SECS = 10.0
_ABORT_SECS = 0.1
_BY_LOOPBACK = ("multi_processing", "multi_threading")
# `python -m apache_beam.runners.worker.sdk_worker_main`, loaded in six tenths of the time: see `gc_paused`, which a
# worker that lacks this package cannot import.
_WORKER = """\
import gc
gc.disable()
from apache_beam.runners.worker import sdk_worker_main
gc.freeze()
gc.enable()
sdk_worker_main.main([])"""
_DEAD: list[int] = []  # exit codes of workers that ended too early, ever since this process began; below 0: signals


def local_runner(options: PipelineOptions, environment: Environment | None = None) -> FnApiRunner:
  """Returns a runner for one pipeline; `environment` overrides the options' own."""
  if environment or options.view_as(DirectOptions).direct_running_mode in _BY_LOOPBACK:
    _check_loopback()
  given = options.get_all_options(drop_default=True)
  # Numbers as text: in this format 2 would become 2.0, an invalid integer.
  values = {name: str(value) if type(value) is int else value for name, value in given.items() if value is not None}
  info = beam_provision_api_pb2.ProvisionInfo(retrieval_token="unused")
  sent = json.dumps({f"beam:option:{name}:v1": value for name, value in values.items()}, default=str)
  json_format.Parse(sent, info.pipeline_options)
  return FnApiRunner(default_environment=environment, provision_info=ExtendedProvisionInfo(info))


def _check_loopback() -> None:
  """Refuses at once what Beam's workers would wait a minute for."""
  try:
    with socket.create_server(("localhost", 0)) as server:
      socket.create_connection(server.getsockname(), _PATIENCE_SECS).close()
  except OSError as error:
    raise InputError(
      f"localhost, by which worker processes are reached, does not answer here ({error.strerror}): start it"
      " (`ip link set lo up`), or work in this process alone: --direct_num_workers=1 without --direct_running_mode."
    ) from error


@contextlib.contextmanager
def raise_on_worker_death() -> Iterator[None]:
  """Raises InputError if a job failed because a worker process was killed."""
  before = len(_DEAD)
  try:
    yield
  except Exception as error:
    # A signal to the whole process group also ends the workers; it is not their failure.
    if len(_DEAD) == before or "KeyboardInterrupt" in str(error):
      raise
    code = _DEAD[before]
    why = (
      "was killed, perhaps because memory ran out:"
      if code < 0
      else f"ended by itself (exit code {code}): the end of .beam-retrain.log in the output says why;"
    )
    raise InputError(f"a worker process {why} run the same command again to resume.") from error


class WatchedWorkerHandler(GrpcWorkerHandler, abc.ABC):
  """Aborts pending requests when its worker process dies."""

  def __init__(self, payload: Any, state: Any, provision_info: Any, grpc_server: Any):
    super().__init__(state, provision_info, grpc_server)
    self._stopped = threading.Event()
    self._watching = threading.Thread(target=self._watch, name="worker process", daemon=True)

  @abc.abstractmethod
  def start(self, environment: Mapping[str, str]) -> int:
    """Starts the process's work, and returns its id.

    Args:
      environment: variables for Beam's worker, in addition to this process's own.
    """

  @abc.abstractmethod
  def wait(self) -> int:
    """Waits for the process; returns its exit code, or the negative signal."""

  def start_worker(self) -> None:
    control = endpoints_pb2.ApiServiceDescriptor(url=self.control_address)
    self._pid = self.start(
      {
        "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(control),
        "PIPELINE_OPTIONS": json_format.MessageToJson(self.provision_info.provision_info.pipeline_options),
        "WORKER_ID": self.worker_id,
      }
    )
    self._watching.start()

  def stop_worker(self) -> None:
    self._stopped.set()
    self._watching.join(_PATIENCE_SECS)
    if self._watching.is_alive():  # the job has failed elsewhere, and this process is still working
      os.kill(self._pid, signal.SIGKILL)
      self._watching.join()

  def _watch(self) -> None:
    failed = self.wait()
    if self._stopped.is_set():
      return
    if failed:
      _DEAD.append(failed)
    # Aborting the control connection below does not end a wait for elements.
    end_data_channel(self.data_conn)
    while not self._stopped.wait(_ABORT_SECS):
      with contextlib.suppress(RuntimeError):  # another request is added at the same moment
        self.control_conn.abort(RuntimeError("a worker process has ended"))


@WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)
class _StartedWorkerHandler(WatchedWorkerHandler):
  """Replaces Beam's own for `--direct_running_mode=multi_processing`."""

  def start(self, environment: Mapping[str, str]) -> int:
    self._process = subprocess.Popen([sys.executable, "-c", _WORKER], env={**os.environ, **environment})
    return self._process.pid

  def wait(self) -> int:
    return self._process.wait()
