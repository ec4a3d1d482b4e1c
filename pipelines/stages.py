"""Runs stages in turn, in folders of their own, and records states."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import beam_retrain.transforms.core
from beam_retrain.pipelines.options.stage_flags import Stage
from beam_retrain.pipelines.requests.bottlenecks import BottlenecksRequest
from beam_retrain.transforms.core.log_file import LOG_FILE
from beam_retrain.transforms.core.printing import as_stage, say
from beam_retrain.transforms.core.records.schema import CONFIG_FILE
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from beam_retrain.transforms.core.run.output_folder import find_info, is_completed, reopen_damaged
from beam_retrain.transforms.core.run.request import Request
from beam_retrain.transforms.core.runtimes.trunk_info import BUNDLED, NO_TRUNK
from beam_retrain.transforms.core.system.local_files import TEMPORARY
from beam_retrain.transforms.core.system.small_files import DamagedInputError, read_small
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.find import is_manifest
from beam_retrain.transforms.sources.manifest import image_stats

NEXT, OLD = ".next", ".old"  # ends of the folders of a stage's new output, and of the one that it replaces

_BUNDLED_TRUNK = str(Path(beam_retrain.transforms.core.__file__).parent / "bundled_trunk")


class Chain:
  """Runs stages in turn; keeps those that are finished and unchanged."""

  def __init__(self, output: Path, state_file: str, command: str):
    """`command`: the command line of the chain, as shown."""
    self._output, self._command = output, command
    self._state_path = output / state_file
    for name in (state_file, CONFIG_FILE, LOG_FILE):  # of a killed run; the caller holds the lock
      files.delete(files.find_in(str(output), f"{name}{TEMPORARY}*"))
    self.code: int = ExitCode.DONE  # or that of the stage that failed, after which none runs

  def keep_or_run(self, stage: Stage, after: str, trunk_state: str = "") -> str:
    """Runs a stage unless its output is current; returns its state.

    Its folder must be named after its command. `after` is the state of its input. With `trunk_state`, it is renewed.
    """
    state = stage.state(after)
    if self.code == ExitCode.DONE and self.keeps(stage.command, state):
      say(f"{stage.command}: finished and unchanged, kept")
    elif trunk_state:
      self.renew(stage, f"{state} {trunk_state}")
    elif self.run(stage) == ExitCode.DONE:
      self.remember(stage.command, state)
    return state

  def renew(self, stage: Stage, state: str, may_reuse: bool = True) -> None:
    """Runs `bottlenecks` beside finished ones, which it reuses and then replaces.

    `state` is that of the stage, a space, and that of its trunk: bottlenecks of another trunk are not reused.
    """
    name = stage.command
    is_beside = self.code == ExitCode.DONE and is_completed(stage.output)
    if is_beside:
      reused = (stage.output,) if may_reuse and self._is_of_trunk(stage, state) else ()
      stage = Stage(_beside(stage.request, str(self._output / f"{name}{NEXT}"), reused), stage.decisive)
      self.remember(f"{name}{NEXT}", state)  # now: a later run may finish this folder, in this state
    if self.run(stage) == ExitCode.DONE and is_beside:
      self.end_renewal(name)
      say(f"{name}: now in {files.shown(str(self._output / name))}, replacing the earlier ones")
    elif self.code == ExitCode.DONE:
      self.remember(name, state)

  def _is_of_trunk(self, stage: Stage, state: str) -> bool:
    """Whether finished bottlenecks are of a trunk that runs here."""
    remembered, info = self.remembered(stage.command) or "", find_info(stage.output)
    if info is None or info.trunk == NO_TRUNK:  # damaged
      return False
    return remembered.partition(" ")[2] == state.partition(" ")[2] and not info.trunk.variant.unsupported_reason()

  def end_renewal(self, name: str) -> None:
    """Replaces an old output by a finished new one; resumes if interrupted."""
    now, new, old = (self._output / f"{name}{end}" for end in ("", NEXT, OLD))
    if is_completed(str(new)) and self.remembered(new.name):
      if now.exists():
        self._delete_old(old)
        self.remember(old.name, "to be deleted")
        now.rename(old)
      self.remember(name, self.remembered(new.name) or "")
      new.rename(now)
    self._delete_old(old)

  def _delete_old(self, old: Path) -> None:
    if self.remembered(old.name):
      files.delete([str(old)])
      self.remember(old.name, "")

  def keeps(self, command: str, state: str) -> bool:
    """Returns whether a stage's output is current; reopens a damaged one."""
    folder = str(self._output / command)
    remembered = self.remembered(command) or ""
    if not is_completed(folder) or remembered.partition(" ")[0] != state.partition(" ")[0]:
      return False
    if fault := reopen_damaged(folder):
      say(f"{command}: {files.shown(folder)}/{fault}; it is made again", file=sys.stderr)
    return not fault

  def run(self, stage: Stage, has_result: bool = False) -> int:
    """Runs a stage, unless an earlier one failed; returns `code`.

    `has_result`: whether what it prints is the result of the chain.
    """
    if self.code == ExitCode.DONE:
      say(f"{stage.command}: into {files.shown(stage.output)}")
      with as_stage(self._command, has_result):
        self.code = stage.request.execute()
    return self.code

  def remembered(self, name: str) -> str | None:
    return self._states().get(name)

  def remember(self, name: str, state: str) -> None:
    states = {**self._states(), name: state}
    files.write_text(str(self._state_path), json.dumps(states, indent=2, sort_keys=True) + "\n")

  def _states(self) -> dict[str, str]:
    try:
      return read_small(str(self._state_path), lambda data: {**json.loads(data)}, "")
    except DamagedInputError:  # all stages run again
      return {}


def _beside(request: Request, output: str, reused: tuple[str, ...]) -> Request:
  assert isinstance(request, BottlenecksRequest)
  return dataclasses.replace(request, output=output, reuse=(*request.reuse, *reused), stands_for=request)


def digests_of_trunk(handle: str, weights: str | None) -> list[str]:
  """Returns `digest_of_files` of a trunk's local files; empty for remote ones."""
  paths = [_BUNDLED_TRUNK if handle == BUNDLED else handle, weights or ""]
  return ["" if "://" in path else digest_of_files(path) for path in paths]


def digest_of_files(path: str) -> str:
  """Returns a digest, 64 hex digits, of names, sizes and times.

  Reading the files below the path would take as long as the stage. The digests are added up, so that no list is held.
  """
  if not files.is_local(path):
    return _digest_of((stat.path, stat) for stat in files.list_tree(path))
  return _digest_of((name, files.stat(name)) for name in (files.walk(path) if os.path.isdir(path) else [path]))


def digest_of_images(path: str) -> str:
  """Returns `digest_of_files` of an input of `bottlenecks`, including a manifest's images.

  Raises:
    InputError: a manifest cannot be read.
  """
  if not is_manifest(path):
    return digest_of_files(path)
  return _digest_of(enumerate(itertools.chain([files.stat(path)], image_stats(path))))


def _digest_of(entries: Iterable[tuple[object, files.FileStat | None]]) -> str:
  total = 0
  for entry in entries:
    total += int.from_bytes(hashlib.sha256(repr(entry).encode()).digest())
  return f"{total % (1 << 256):064x}"
