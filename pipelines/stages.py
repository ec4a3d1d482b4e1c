"""Stages in turn, each into its own folder below one, with a record of what made what."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import beam_retrain.transforms.core
from beam_retrain.pipelines.cli import dispatch
from beam_retrain.pipelines.jobs.runner import DONE
from beam_retrain.pipelines.models.trunk_sources import BUNDLED
from beam_retrain.transforms.core.run.run_info import is_completed, versions
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.find import is_manifest
from beam_retrain.transforms.sources.manifest import image_stats

_BUNDLED_TRUNK = str(Path(beam_retrain.transforms.core.__file__).parent / "bundled_trunk")


class Chain:
  """Runs stages, or keeps what is finished and unchanged.

  Attributes:
    code: exit code of the stage that failed, or 0. Once it is not 0 no further stage runs.
  """

  def __init__(self, output: Path, state_file: str):
    self._output = output
    self._state_path = output / state_file
    self.code = DONE

  def keep_or_run(self, command: str, argv: Sequence[str], more: Sequence[str], after: str) -> str:
    """Runs a stage unless its output is finished and made by the same request; returns its state for the next stage.

    Args:
      command: the stage's command; its folder has the same name.
      argv: its arguments, without `--output`.
      more: further arguments that do not change what comes out: how the job is run, how much loss is accepted.
      after: the state of what it reads.
    """
    state = state_of(command, argv, after)
    if self.code == DONE:
      if self.is_kept(command, state):
        print(f"{command}: finished and unchanged, kept")
      else:
        self.run(command, [*argv, *more])
        if self.code == DONE:
          self.remember(command, state)
    return state

  def is_kept(self, command: str, state: str) -> bool:
    """Says whether a stage is finished and was made in this state."""
    return is_completed(str(self._output / command)) and self.remembered(command) == state

  def run(self, command: str, argv: Sequence[str], folder: str | None = None) -> None:
    """Runs a stage, unless one before it has failed; its folder is named as its command, if not otherwise."""
    if self.code == DONE:
      output = self._output / (folder or command)
      print(f"{command}: into {files.shown(str(output))}", flush=True)
      self.code = dispatch([command, *argv, f"--output={output}"])

  def remembered(self, name: str) -> str | None:
    return self._states().get(name)

  def remember(self, name: str, state: str) -> None:
    states = {**self._states(), name: state}
    files.write_text(str(self._state_path), json.dumps(states, indent=2, sort_keys=True) + "\n")

  def _states(self) -> dict[str, str]:
    try:
      states: dict[str, str] = json.loads(self._state_path.read_text())
      return states
    except (FileNotFoundError, ValueError):
      return {}


def state_of(command: str, argv: Sequence[str], after: str) -> str:
  """Returns 64 hex digits for a stage's request, what it reads, and the versions that it is made with."""
  return hashlib.sha256(json.dumps([command, list(argv), after, versions()]).encode()).hexdigest()


def given(flag: str, value: object) -> list[str]:
  """Returns a flag with its value as an argument; nothing where there is no value."""
  return [] if value is None else [f"{flag}={value}"]


def digests_of_trunk(handle: str, weights: str | None) -> list[str]:
  """Returns `digest_of_files` of what a trunk is loaded from, as far as that lies on this machine."""
  paths = [_BUNDLED_TRUNK if handle == BUNDLED else handle, weights or ""]
  return ["" if "://" in path else digest_of_files(path) for path in paths]


def digest_of_files(path: str) -> str:
  """Returns 64 hex digits for the names, sizes and times of all files below a path, if there is such a path.

  That is what makes a stage's input another; reading it all would take as long as the stage. No list of them is held:
  the digests of the files are added up.
  """
  if not files.is_local(path):
    return _digest_of((found.path, found) for found in files.list_tree(path))
  return _digest_of((found, files.stat(found)) for found in (files.walk(path) if os.path.isdir(path) else [path]))


def digest_of_images(path: str) -> str:
  """Returns `digest_of_files` of an input of `bottlenecks`; to that of a manifest belong the files that it lists.

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
