"""Where an output comes from: the request that made it, and the versions it was made with."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_SECRET = ("--s3_access_key_id", "--s3_secret_access_key", "--s3_session_token")
_VERSIONED = ("apache-beam", "tensorflow", "tensorflow-transform", "keras", "numpy", "pillow")


def request_digest(stage: str, settings: Mapping[str, Any]) -> str:
  """Returns 64 hex digits for everything that decides a stage's output besides the inputs themselves."""
  return hashlib.sha256(json.dumps([stage, settings], sort_keys=True).encode()).hexdigest()


def versions() -> dict[str, str]:
  """Returns name -> version of what decides the results, Python included."""
  found = {"python": platform.python_version(), "platform": sys.platform}
  for name in ("beam-retrain", *_VERSIONED):
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def _without_secrets(argv: Sequence[str]) -> Iterator[str]:
  flag = ""
  for argument in argv:
    if flag in _SECRET:
      yield "..."
    else:
      name, equals, _ = argument.partition("=")
      yield f"{name}=..." if equals and name in _SECRET else argument
    flag = argument


def describe_run(stage: str, settings: Mapping[str, Any], argv: Sequence[str], **more: Any) -> dict[str, Any]:
  """Returns the contents of a stage's `info.json`.

  Args:
    stage: `convert`, `bottlenecks`, `train` or `evaluate`.
    settings: what decides the output's bytes, JSON values.
    argv: the command's arguments, kept for people, but for what is secret.
    **more: further entries, JSON values.
  """
  return {
    "stage": stage,
    "request": request_digest(stage, settings),
    "settings": dict(settings),
    "command": shlex.join(["beam-retrain", stage, *_without_secrets(argv)]),
    "versions": versions(),
    **more,
  }
