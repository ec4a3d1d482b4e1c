"""The trainer's output folder, on a local disk: claimed, worked in, finished.

The rules are those of every stage: `info.json` first, `COMPLETED` last; a killed run of the same request goes on, any
other request starts empty; nothing that is not ours is ever deleted.
"""

from __future__ import annotations

import os
import shutil

from beam_retrain.transforms.core.models.head import HEAD_FILE
from beam_retrain.transforms.core.records.schema import (
  COMPLETED_FILE,
  FROZEN_GRAPH_FILE,
  LABELS_FILE,
  RETRAINED_LABELS_FILE,
)
from beam_retrain.transforms.core.system import local_files

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


def copy_prepared(trunk: str, output: str) -> None:
  """Copies the prepared trunk that made the bottlenecks, so that the model is asked by the same numbers.

  Args:
    trunk: the bottlenecks' trunk; one of an earlier version has nothing prepared.
    output: the folder that the user gave.
  """
  if os.path.isdir(os.path.join(trunk, PREPARED)):
    with local_files.folder_becomes(os.path.join(output, TRUNK)) as folder:
      shutil.copytree(os.path.join(trunk, PREPARED), f"{folder}/{PREPARED}")
