"""The trainer's output folder: names of its contents, and `metrics.json`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

from beam_retrain.trainer.fit.callbacks import EvalResult, best_round
from beam_retrain.trainer.fit.head import Score
from beam_retrain.transforms.core.models.head import HEAD_FILE
from beam_retrain.transforms.core.records.schema import (
  COMPLETED_FILE,
  FROZEN_GRAPH_FILE,
  LABELS_FILE,
  METRICS_FILE,
  RETRAINED_LABELS_FILE,
  SAVED_MODEL_FOLDER,
  TRUNK_FOLDER,
)
from beam_retrain.transforms.core.records.trained_on import TRAINED_ON_FILE

STAGE = "train"
LOGS = "logs"
CHECKPOINTS = "checkpoints"

# The marker is deleted first: without it no reader treats the folder as finished.
OWNED = (
  *(COMPLETED_FILE, LABELS_FILE, RETRAINED_LABELS_FILE, SAVED_MODEL_FOLDER, FROZEN_GRAPH_FILE, HEAD_FILE),
  *(TRAINED_ON_FILE, TRUNK_FOLDER, METRICS_FILE, LOGS, CHECKPOINTS),
)
"""Names in the folder, besides `info.json`."""


@dataclasses.dataclass(frozen=True)
class LiteFile:
  """A TensorFlow Lite file, its path relative to the model's folder."""

  file: str
  bytes: int
  sha256: str


@dataclasses.dataclass(frozen=True)
class Int8File(LiteFile):
  """Without testing images it has no accuracy, 0..1."""

  calibration_images: int
  testing_images: int
  testing_accuracy: float | None


@dataclasses.dataclass(frozen=True)
class TrainMetrics:
  """The contents of `metrics.json`."""

  labels: int
  seed: int
  rounds: Sequence[EvalResult]
  scores: Mapping[str, Score]  # by split
  tflite: Mapping[str, LiteFile] = dataclasses.field(default_factory=dict)  # by kind
  label_counts: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)  # split -> label -> images

  def to_json(self) -> str:
    values = {
      "labels": self.labels,
      "seed": self.seed,
      "rounds_trained": len(self.rounds),
      "best_round": best_round(self.rounds).number,
      "steps_trained": sum(one.steps for one in self.rounds),
      "label_counts": self.label_counts,
      "rounds": [dataclasses.asdict(one) for one in self.rounds],
      **({"tflite": {kind: dataclasses.asdict(file) for kind, file in self.tflite.items()}} if self.tflite else {}),
    }
    for split, score in self.scores.items():
      values[f"{split}_images"] = score.images
      values[f"{split}_accuracy"] = score.accuracy if score.images else None
      values[f"{split}_loss"] = score.loss if score.images else None
    return json.dumps(values, indent=2, sort_keys=True) + "\n"
