"""Keeps all commands but one out of an output folder."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import TypeVar

from beam_retrain.pipelines.options.request import JobRequest
from beam_retrain.transforms.core.system.locks import hold_folder
from beam_retrain.transforms.core.system.scratch import own_temporary_files
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.lease import hold_lease

RequestT = TypeVar("RequestT", bound=JobRequest)


@contextlib.contextmanager
def hold_output(output: str, command: str) -> Iterator[None]:
  """Holds an output folder; puts temporary files into a scratch folder.

  The lock is a file on a local disk, a lease in an object store. Raises InputError if another command holds it.
  """
  with (
    hold_folder(output, command) if files.is_local(output) else hold_lease(output, command),
    own_temporary_files(output),
  ):
    yield


def holds_output(execute: Callable[[RequestT], int]) -> Callable[[RequestT], int]:
  """Makes a command hold its `output` from its first look on."""

  @functools.wraps(execute)
  def hold(request: RequestT) -> int:
    output = files.absolute(str(vars(request)["output"]))
    if not files.is_local(output):
      request.pipeline_options(check_engine=False)  # credentials and the like
      files.check_reachable([output])
    with hold_output(output, request.prog()):
      return execute(request)

  return hold
