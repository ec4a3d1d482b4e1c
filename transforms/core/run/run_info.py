"""Reading a folder that another stage wrote: only a finished one (design: `COMPLETED` is written last)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import COMPLETED_FILE, INFO_FILE, LABELS_FILE


def read_local(path: str) -> bytes:
  with open(path, "rb") as file:
    return file.read()


def parse_info(data: bytes) -> dict[str, Any]:
  """Returns the contents of an `info.json`; empty where it is not one that a stage of ours wrote."""
  try:
    info = json.loads(data)
  except ValueError:
    return {}
  return info if isinstance(info, dict) and isinstance(info.get("stage"), str) else {}


def read_info(
  folder: str,
  stage: str,
  exists: Callable[[str], bool] = os.path.exists,
  read: Callable[[str], bytes] = read_local,
) -> dict[str, Any]:
  """Returns the `info.json` of a finished folder.

  Args:
    folder: what the stage was given as `--output`.
    stage: the stage that must have written it: `convert`, `bottlenecks`, `train`, `evaluate`.
    exists: how to ask whether a file is there.
    read: how to read a file.

  Raises:
    InputError: the folder is not there, not finished, or of another stage.
  """
  info_path = os.path.join(folder, INFO_FILE)
  if not exists(info_path):
    raise InputError(f"{folder} has no {INFO_FILE}: give the folder that `beam-retrain {stage}` wrote.")
  info = parse_info(read(info_path))
  if info.get("stage") != stage:
    writer = f"`beam-retrain {info['stage']}`" if info else "something else than beam-retrain"
    raise InputError(f"{folder} was written by {writer}: give the folder that `beam-retrain {stage}` wrote.")
  if not exists(os.path.join(folder, COMPLETED_FILE)):
    raise InputError(f"{folder} is not finished: run `beam-retrain {stage}` into it again, it goes on where it was.")
  return info


def read_labels(folder: str, read: Callable[[str], bytes] = read_local) -> list[str]:
  """Returns the label list of a stage's folder: class index -> label."""
  return read(os.path.join(folder, LABELS_FILE)).decode().splitlines()
