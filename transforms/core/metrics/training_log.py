"""How a model was trained, as its `metrics.json` says."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from beam_retrain.transforms.core.system.small_files import parse_json


@dataclasses.dataclass(frozen=True)
class TrainingEpoch:
  """Losses in nats and accuracies, 0..1, of one epoch."""

  number: int
  training_loss: float
  training_accuracy: float
  validation_loss: float
  validation_accuracy: float


@dataclasses.dataclass(frozen=True)
class TrainingLog:
  """The epochs of a training, the best one's number, and its images.

  `label_counts`: split -> label -> images; empty before 0.5.
  """

  rounds: tuple[TrainingEpoch, ...] = ()
  best_round: int = 0
  label_counts: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)

  @property
  def best(self) -> TrainingEpoch | None:
    """The epoch whose weights were kept."""
    return next((one for one in self.rounds if one.number == self.best_round), None)

  @classmethod
  def from_json(cls, data: bytes) -> TrainingLog:
    return parse_json(cls, json.loads(data))
