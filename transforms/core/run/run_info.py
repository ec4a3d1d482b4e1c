"""Output folders of commands, and their `info.json`: the request and versions.

`info.json` is written first and names the owner; `COMPLETED` is written last. A killed run of the same request is
resumed; any other request starts empty. Files that a command does not own are never deleted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.records.schema import (
  COMPLETED_FILE,
  INFO_FILE,
  LABELS_FILE,
  QUARANTINE_FILE,
  REPORTS_FOLDER,
  STATS_FILE,
)
from beam_retrain.transforms.core.runtimes.trunk_info import NO_TRUNK, TrunkInfo
from beam_retrain.transforms.core.system import local_files

# The marker is deleted first, so that no reader takes the folder for finished.
_ALWAYS_OWNED = (COMPLETED_FILE, STATS_FILE, QUARANTINE_FILE, LABELS_FILE, REPORTS_FOLDER)
_SECRET = ("--s3_access_key_id", "--s3_secret_access_key", "--s3_session_token")
_VERSIONED = ("apache-beam", "tensorflow", "tensorflow-transform", "keras", "numpy", "pillow")


class Files(Protocol):
  """A file system: `local_files` or `transforms.io.files`."""

  def exists(self, path: str) -> bool: ...
  def is_empty(self, folder: str) -> bool: ...
  def make_folder(self, folder: str) -> None: ...
  def find_in(self, folder: str, pattern: str) -> list[str]: ...
  def read_bytes(self, path: str) -> bytes: ...
  def write_text(self, path: str, text: str) -> None: ...
  def delete(self, paths: Iterable[str]) -> None: ...


@dataclasses.dataclass(frozen=True)
class RunInfo:
  """Contents of an `info.json`; omits fields at their defaults."""

  stage: str
  request: str = ""  # digest of stage and settings, 64 hex digits
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # determine the output's bytes, JSON values
  command: str = ""  # the command line, without secrets
  versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
  labels: Sequence[str] = ()  # class index -> label
  trunk: TrunkInfo = NO_TRUNK
  execution: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # how the trunk was run, JSON values
  preprocessing: str | None = None  # version of a model's preprocessing
  retrain_names: bool | None = None  # whether a model's class folders were named as in `retrain.py`
  has_splits: bool | None = None  # whether the data set had testing images of its own; None before 0.3
  model: str | None = None  # folder of the evaluated model
  models: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of a night: name -> the model's folder
  others: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # further entries, JSON values

  def to_json(self) -> str:
    entries = {name: getattr(self, name) for name in _KEYS}
    entries["trunk"] = self.trunk.to_json() if self.trunk != NO_TRUNK else None
    entries = {name: value for name, value in entries.items() if value not in (None, "", (), {})}
    always = {"settings": self.settings, "versions": self.versions}
    return json.dumps({**self.others, **always, **entries}, indent=2, sort_keys=True) + "\n"

  @classmethod
  def from_json(cls, data: bytes) -> RunInfo | None:
    """Inverse of `to_json`; None if beam-retrain did not write the data."""
    try:
      entries = json.loads(data)
    except ValueError:
      return None
    if not isinstance(entries, dict) or not isinstance(entries.get("stage"), str):
      return None
    known = {name: entries.pop(name) for name in _KEYS if name in entries}
    try:
      trunk = TrunkInfo.from_json(known.pop("trunk")) if "trunk" in known else NO_TRUNK
    except (KeyError, TypeError, ValueError):
      return None
    return cls(**known, trunk=trunk, others=entries)


_KEYS = tuple(field.name for field in dataclasses.fields(RunInfo) if field.name != "others")


def describe_run(stage: str, settings: Mapping[str, Any], argv: Sequence[str], **entries: Any) -> RunInfo:
  """Returns the `info.json` of a new run, without secrets from `argv`.

  `settings` determine the output's bytes, JSON values; `entries` are further fields of `RunInfo`.
  """
  command = shlex.join(["beam-retrain", stage, *_without_secrets(argv)])
  # As read back from the file: sorted, tuples as lists.
  as_read = json.loads(json.dumps(settings, sort_keys=True))
  return RunInfo(stage, request_digest(stage, settings), as_read, command, versions(), **entries)


def request_digest(stage: str, settings: Mapping[str, Any]) -> str:
  """Returns the digest, 64 hex digits, of a stage and its settings."""
  return hashlib.sha256(json.dumps([stage, settings], sort_keys=True).encode()).hexdigest()


def versions() -> dict[str, str]:
  """Returns name -> version of what affects the results, including Python."""
  package_versions = {"python": platform.python_version(), "platform": sys.platform}
  for name in ("beam-retrain", *_VERSIONED):
    try:
      package_versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return package_versions


def _without_secrets(argv: Sequence[str]) -> Iterator[str]:
  for before, argument in zip(("", *argv), argv, strict=False):
    name, equals, _ = argument.partition("=")
    if before in _SECRET:
      yield "..."
    else:
      yield f"{name}=..." if equals and name in _SECRET else argument


def find_info(folder: str, files: Files = local_files) -> RunInfo | None:
  """Returns a folder's `info.json`, or None if beam-retrain did not write it."""
  path = os.path.join(folder, INFO_FILE)
  return RunInfo.from_json(files.read_bytes(path)) if files.exists(path) else None


def read_info(folder: str, stage: str, files: Files = local_files) -> RunInfo:
  """Returns the `info.json` that a finished stage wrote as its `--output`.

  Raises InputError if the folder is missing, unfinished or of another stage.
  """
  if not files.exists(os.path.join(folder, INFO_FILE)):
    raise InputError(f"{folder} has no {INFO_FILE}: give the folder that `beam-retrain {stage}` wrote.")
  info = find_info(folder, files)
  if info is None or info.stage != stage:
    writer = f"`beam-retrain {info.stage}`" if info else "something other than beam-retrain"
    raise InputError(f"{folder} was written by {writer}: give the folder that `beam-retrain {stage}` wrote.")
  if not is_completed(folder, files):
    raise InputError(f"{folder} is not finished: run `beam-retrain {stage}` into it again to resume.")
  return info


def is_completed(folder: str, files: Files = local_files) -> bool:
  """Returns whether a folder's run completed."""
  return files.exists(os.path.join(folder, COMPLETED_FILE))


def read_labels(folder: str, files: Files = local_files) -> list[str]:
  """Returns a folder's label list: class index -> label."""
  return files.read_bytes(os.path.join(folder, LABELS_FILE)).decode().splitlines()


def write_labels(folder: str, labels: Sequence[str], files: Files = local_files, name: str = LABELS_FILE) -> None:
  """Writes a label list, one label per line."""
  files.write_text(os.path.join(folder, name), "".join(f"{label}\n" for label in labels))


def find_earlier(folder: str, stage: str, files: Files = local_files) -> RunInfo | None:
  """Returns the `info.json` of an earlier run, finished or not, or None.

  Raises InputError if the folder contains something that this stage did not write.
  """
  if os.path.isfile(folder):
    raise InputError(f"{folder} is a file: give a new or empty folder as {flag('output')}.")
  earlier = find_info(folder, files)
  if earlier and earlier.stage != stage:
    raise InputError(f"{folder} holds the output of `beam-retrain {earlier.stage}`: give another {flag('output')}.")
  if not earlier and not files.is_empty(folder):
    raise InputError(
      f"{folder} is not empty and was not written by beam-retrain: give a new or empty folder as {flag('output')}."
    )
  return earlier


def claim_folder(
  folder: str, info: RunInfo, *, owned: Sequence[str], work_folder: str, files: Files = local_files
) -> bool:
  """Claims a folder for this run; returns whether it resumes one.

  `owned` are names or glob patterns of what this stage writes into it besides the common files; `work_folder` in it, of
  work that can be resumed, is created. Raises InputError as `find_earlier`.
  """
  earlier = find_earlier(folder, info.stage, files)
  resumes = earlier is not None and earlier.request == info.request and not is_completed(folder, files)
  if resumes:
    for place in (folder, f"{folder}/{work_folder}"):  # a killed run left temporary files
      files.delete(files.find_in(place, f"*{local_files.TEMPORARY}*"))
  elif earlier:
    if unsafe := [pattern for pattern in owned if "/" in pattern or pattern.strip(".*") == ""]:
      raise ValueError(f"{unsafe[0]!r} is not a plain file name")
    for pattern in (*_ALWAYS_OWNED, *owned):
      files.delete(files.find_in(folder, pattern) if "*" in pattern else [f"{folder}/{pattern}"])
  files.make_folder(f"{folder}/{work_folder}")
  files.write_text(f"{folder}/{INFO_FILE}", info.to_json())
  return resumes


def complete_folder(folder: str, files: Files = local_files) -> None:
  files.write_text(f"{folder}/{COMPLETED_FILE}", "")


def reopen_folder(folder: str, files: Files = local_files) -> None:
  """Removes `COMPLETED`, so that no reader takes the folder for finished."""
  files.delete([f"{folder}/{COMPLETED_FILE}"])
