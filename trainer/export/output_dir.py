"""The trainer's output folder."""

from __future__ import annotations

from beam_retrain.transforms.core.models.head import HEAD_FILE
from beam_retrain.transforms.core.records.schema import (
  COMPLETED_FILE,
  FROZEN_GRAPH_FILE,
  LABELS_FILE,
  RETRAINED_LABELS_FILE,
)

STAGE = "train"
SAVED_MODEL = "saved_model"
METRICS = "metrics.json"
LOGS = "logs"
CHECKPOINTS = "checkpoints"
TRUNK = "trunk"
PREPARED = "prepared"

# The marker is deleted first: without it no reader treats the folder as finished.
_LABELS = (LABELS_FILE, RETRAINED_LABELS_FILE)
OWNED = (COMPLETED_FILE, *_LABELS, SAVED_MODEL, FROZEN_GRAPH_FILE, HEAD_FILE, TRUNK, METRICS, LOGS, CHECKPOINTS)
"""Names in the folder, besides `info.json`."""
