"""`info.json` of an output folder: the request and versions."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from beam_retrain.transforms.core.runtimes.trunk_info import NO_TRUNK, TrunkInfo
from beam_retrain.transforms.core.system.small_files import parse_json

SECRET = ("--s3_access_key_id", "--s3_secret_access_key", "--s3_session_token")
HIDDEN = "..."
"""Instead of a secret in a command line."""
_VERSIONED = ("apache-beam", "tensorflow", "tensorflow-transform", "keras", "numpy", "pillow")


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
  lists_files: bool | None = None  # whether `COMPLETED` lists the files; None before 0.5
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
      others = {name: value for name, value in entries.items() if name not in _KEYS}
      trunk = TrunkInfo.from_json(entries.pop("trunk")) if "trunk" in entries else NO_TRUNK
      return dataclasses.replace(parse_json(cls, {**entries, "others": others}), trunk=trunk)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
      return None


_KEYS = tuple(field.name for field in dataclasses.fields(RunInfo) if field.name != "others")


def describe_run(stage: str, settings: Mapping[str, Any], argv: Sequence[str], **entries: Any) -> RunInfo:
  """Returns the `info.json` of a new run, without secrets from `argv`.

  `settings` determine the output's bytes, JSON values; `entries` are further fields of `RunInfo`.
  """
  command = shlex.join(["beam-retrain", stage, *without_secrets(argv)])
  # As read back from the file: sorted, tuples as lists.
  as_read = json.loads(json.dumps(settings, sort_keys=True))
  digest = request_digest(stage, settings)
  return RunInfo(stage, digest, as_read, command, versions(), lists_files=True, **entries)


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


def without_secrets(arguments: Iterable[str]) -> Iterator[str]:
  argv = list(arguments)
  for before, argument in zip(("", *argv), argv, strict=False):
    name, equals, _ = argument.partition("=")
    if before in SECRET:
      yield HIDDEN
    else:
      yield f"{name}={HIDDEN}" if equals and name in SECRET else argument
