"""The contents of the trainer's `metrics.json`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

from beam_retrain.trainer.fit.results import EvalResult, Score, best_round


@dataclasses.dataclass(frozen=True)
class Int8Measures:
  """Of an int8 file: `testing_accuracy`, 0..1, is None without testing images."""

  calibration_images: int
  testing_images: int
  testing_accuracy: float | None


@dataclasses.dataclass(frozen=True)
class LiteFile:
  """A TensorFlow Lite file, its path relative to the model's folder."""

  file: str
  bytes: int
  sha256: str
  int8: Int8Measures | None = None

  def to_json(self) -> dict[str, object]:
    values = dataclasses.asdict(self)
    int8 = values.pop("int8") or {}
    return {**values, **int8}


@dataclasses.dataclass(frozen=True)
class TrainMetrics:
  """How the head was trained, and how good it is.

  Attributes:
    tflite: kind -> the written TensorFlow Lite file.
  """

  labels: int
  seed: int
  rounds: Sequence[EvalResult]
  scores: Mapping[str, Score]
  tflite: Mapping[str, LiteFile] = dataclasses.field(default_factory=dict)

  def to_json(self) -> str:
    values: dict[str, object] = {
      "labels": self.labels,
      "seed": self.seed,
      "rounds_trained": len(self.rounds),
      "best_round": best_round(self.rounds).number,
      "steps_trained": sum(one.steps for one in self.rounds),
      "rounds": [dataclasses.asdict(one) for one in self.rounds],
    }
    for split, score in self.scores.items():
      values[f"{split}_images"] = score.images
      values[f"{split}_accuracy"] = score.accuracy if score.images else None
      values[f"{split}_loss"] = score.loss if score.images else None
    if self.tflite:
      values["tflite"] = {kind: file.to_json() for kind, file in self.tflite.items()}
    return json.dumps(values, indent=2, sort_keys=True) + "\n"
