"""Worker processes on this machine that are forked from this one.

Beam's own (`--direct_running_mode=multi_processing`) import Beam anew, a second of a core each: as long as it takes to
convert 30,000 images. A forked one has it, and shares its memory. It receives the runner's address once that is known;
from then on it is an SDK harness over gRPC, as Beam's own are.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.worker_handlers import WorkerHandler
from apache_beam.runners.worker import sdk_worker_main
from apache_beam.transforms.environments import Environment, python_sdk_capabilities

from beam_retrain.pipelines.jobs.local_runner import WatchedWorkerHandler, local_runner
from beam_retrain.transforms.core.system.machine import available_cores

_URN = "beam_retrain:env:forked:v1"
_WITH_THREADS = ("tensorflow", "openvino")
_CHOSEN_BY = ("--runner", "--direct_", "--environment_")  # prefixes of flags by which users choose the workers


def default_processes(argv: Sequence[str], shards: int) -> int:
  """Returns the number of processes for a job of single-core workers.

  One per core, but at most one per shard; 1 if the arguments name a runner or its workers, or if forking is not safe.
  """
  # A lock that another thread holds stays locked in the child for ever. TensorFlow, OpenVINO and gRPC, once they run,
  # have threads that Python does not count. macOS's own libraries do not survive a fork.
  alone = threading.active_count() == 1 and sys.modules.keys().isdisjoint(_WITH_THREADS) and not _FORKED
  if sys.platform != "linux" or not alone or any(argument.startswith(_CHOSEN_BY) for argument in argv):
    return 1
  return min(available_cores(), max(1, shards))


class _Forked(NamedTuple):
  pid: int
  connection: Connection


_WAITING: list[_Forked] = []  # for the runner's address
_FORKED: list[int] = []  # process ids, ever since this process began


@contextlib.contextmanager
def forked_workers(processes: int, options: PipelineOptions) -> Iterator[FnApiRunner]:
  """Yields a runner whose workers are processes forked on entry.

  They print to the `sys.stderr` of that moment.
  """
  for _ in range(processes):
    _WAITING.append(_fork())
    _FORKED.append(_WAITING[-1].pid)
  try:
    yield local_runner(options, _ForkedEnvironment(python_sdk_capabilities()))
  finally:
    for worker in _WAITING:
      worker.connection.close()
      os.waitpid(worker.pid, 0)
    _WAITING.clear()


def _fork() -> _Forked:
  listening, telling = Pipe(duplex=False)
  pid = os.fork()
  if pid:
    listening.close()
    return _Forked(pid, telling)
  code = 1
  try:
    telling.close()
    # The parent's handler would clean up the parent's files.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for sibling in _WAITING:  # or it would not notice the parent's death
      sibling.connection.close()
    with contextlib.suppress(EOFError):  # the runner never needed it
      _, harness, _ = sdk_worker_main.create_harness(json.loads(listening.recv_bytes()))
      harness.run()
    code = 0
  except Exception:
    traceback.print_exc()
  finally:
    os._exit(code)  # exit handlers are the parent's


@Environment.register_urn(_URN, None)
class _ForkedEnvironment(Environment):
  def to_runner_api_parameter(self, context: Any) -> tuple[str, bytes]:
    return _URN, b""

  @staticmethod
  def from_runner_api_parameter(payload: Any, capabilities: Any, artifacts: Any, hints: Any, context: Any) -> Any:
    return _ForkedEnvironment(capabilities, artifacts, hints)


@WorkerHandler.register_environment(_URN, None)
class _ForkedWorkerHandler(WatchedWorkerHandler):
  def start(self, environment: Mapping[str, str]) -> int:
    self._worker = _WAITING.pop(0)
    with contextlib.suppress(BrokenPipeError):  # it was killed before: `wait` notices
      self._worker.connection.send_bytes(json.dumps(environment).encode())
    return self._worker.pid

  def wait(self) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(self._worker.pid, 0)[1])

  def stop_worker(self) -> None:
    super().stop_worker()
    self._worker.connection.close()
