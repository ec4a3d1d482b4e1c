"""The trainer's output folder, on a local disk: claimed, worked in, finished.

The rules are those of every stage: `info.json` first, `COMPLETED` last; a killed run of the same request goes on, any
other request starts empty; nothing that is not ours is ever deleted.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from typing import Any

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.head import HEAD_FILE
from beam_retrain.transforms.core.records.schema import (
  COMPLETED_FILE,
  FROZEN_GRAPH_FILE,
  INFO_FILE,
  LABELS_FILE,
  RETRAINED_LABELS_FILE,
)
from beam_retrain.transforms.core.run.run_info import RunInfo, find_info

STAGE = "train"
SAVED_MODEL = "saved_model"
METRICS = "metrics.json"
LOGS = "logs"
CHECKPOINTS = "checkpoints"
TRUNK = "trunk"
PREPARED = "prepared"

# The marker goes first: from there on no reader takes the folder for finished.
_LABELS = (LABELS_FILE, RETRAINED_LABELS_FILE)
OWNED = (COMPLETED_FILE, *_LABELS, SAVED_MODEL, FROZEN_GRAPH_FILE, HEAD_FILE, TRUNK, METRICS, LOGS, CHECKPOINTS)
"""What the trainer writes into the folder, besides `info.json`."""


def claim(output: str, info: RunInfo) -> bool:
  """Makes `output` this run's.

  Args:
    output: the folder that the user gave.
    info: of this run; written into the folder.

  Returns:
    Whether a killed run of the same request goes on here.

  Raises:
    InputError: the folder holds something that this stage did not write.
  """
  info_path = os.path.join(output, INFO_FILE)
  goes_on = False
  if found := find_info(output):
    if found.stage != STAGE:
      raise InputError(f"{output} holds the output of `beam-retrain {found.stage}`: give another --output.")
    goes_on = found.request == info.request and not os.path.exists(os.path.join(output, COMPLETED_FILE))
    if not goes_on:
      _clear(output)
  elif os.path.isdir(output) and os.listdir(output):
    raise InputError(
      f"{output} is not empty and was not written by beam-retrain: give a new or empty folder as --output."
    )
  os.makedirs(os.path.join(output, CHECKPOINTS), exist_ok=True)
  write_bytes(info_path, info.to_json().encode())
  return goes_on


def _clear(output: str) -> None:
  for name in OWNED:
    path = os.path.join(output, name)
    if os.path.isdir(path):
      shutil.rmtree(path)
    elif os.path.exists(path):
      os.unlink(path)


def write_json(path: str, value: Mapping[str, Any]) -> None:
  write_bytes(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def write_bytes(path: str, data: bytes) -> None:
  """A temporary name, then a rename: the file is there whole, or not at all."""
  with open(path + ".tmp", "wb") as file:
    file.write(data)
  os.replace(path + ".tmp", path)


def copy_prepared(trunk: str, output: str) -> None:
  """Copies the prepared trunk that made the bottlenecks, so that the model is asked by the same numbers.

  Args:
    trunk: the bottlenecks' trunk; one of an earlier version has nothing prepared.
    output: the folder that the user gave.
  """
  if os.path.isdir(os.path.join(trunk, PREPARED)):
    replace_folder(
      os.path.join(output, TRUNK), lambda folder: shutil.copytree(os.path.join(trunk, PREPARED), f"{folder}/{PREPARED}")
    )


def replace_folder(path: str, make: Any) -> None:
  """Calls `make(temporary folder)`, then gives the folder its name."""
  temporary = path + ".tmp"
  shutil.rmtree(temporary, ignore_errors=True)
  make(temporary)
  shutil.rmtree(path, ignore_errors=True)
  os.replace(temporary, path)
