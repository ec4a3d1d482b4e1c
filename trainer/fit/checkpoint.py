"""The state of a training, and its checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
from collections.abc import Sequence

import numpy as np

from beam_retrain.trainer.fit.callbacks import EvalResult
from beam_retrain.trainer.fit.data import Bottlenecks
from beam_retrain.trainer.fit.head import Score, build_head
from beam_retrain.transforms.core.system.local_files import atomic_file
from beam_retrain.transforms.core.system.small_files import DamagedInputError, parse_json, read_small


class TrainingState:
  """What a training goes on from, and the best round's weights."""

  def __init__(self, data: Bottlenecks, seed: int):
    self.head = build_head(data.dimensions, len(data.labels), seed)
    self.best: list[np.ndarray] = self.head.get_weights()
    self.steps = 0
    self.rounds: list[EvalResult] = []
    # Of the rounds, kept because there may be one for every step.
    self.steps_in_rounds = 0
    self._lowest = math.inf
    self._history: list[str] = []
    # A `Score`, of the steps since the last evaluation.
    self._sums = np.zeros(3)

  @np.errstate(over="ignore", invalid="ignore", divide="ignore")  # the caller checks that the loss is finite
  def take_step(self, vectors: np.ndarray, classes: np.ndarray, rate: float) -> Score:
    """Descends the gradient of the mean cross-entropy."""
    score, gradients = self.head.differentiate(vectors, classes)
    for weight, gradient in zip((self.head.kernel, self.head.bias), gradients, strict=True):
      gradient *= np.float32(rate)
      weight -= gradient
    self.steps += 1
    self._sums += score
    return score

  def score_steps(self) -> Score:
    """Returns the score of the steps since the last evaluation."""
    loss, correct, images = self._sums.tolist()
    return Score(loss, correct, int(images))

  def finish_round(self, number: int, rate: float, trained: Score, validated: Score) -> None:
    scores = (trained.loss, trained.accuracy, validated.loss, validated.accuracy)
    result = EvalResult(number, self.steps - self.steps_in_rounds, rate, *scores)
    self._sums[:] = 0
    self.rounds.append(result)
    self._history.append(_to_json(result))
    self.steps_in_rounds += result.steps
    if result.validation_loss < self._lowest:
      self._lowest = result.validation_loss
      self.best = self.head.get_weights()

  def save(self, path: str, optimizer: Sequence[np.ndarray] = ()) -> None:
    """Writes one .npz by a rename, so that it is always whole."""
    history = f"[{', '.join(self._history)}]".encode()
    groups = {"head": self.head.get_weights(), "best": self.best, "optimizer": optimizer}
    arrays = {
      **{f"{name}_{index}": array for name, group in groups.items() for index, array in enumerate(group)},
      "rounds": np.frombuffer(history, np.uint8),
      "steps": np.array(self.steps),
      "sums": self._sums,
    }
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
      np.savez(file, allow_pickle=False, **arrays)

  def restore(self, path: str) -> list[np.ndarray]:
    """Restores a saved state, unless the file is missing or damaged.

    Returns the arrays of its optimizer.
    """
    with contextlib.suppress(DamagedInputError):
      return read_small(path, self._restore, "")
    return []

  def _restore(self, data: bytes) -> list[np.ndarray]:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
      arrays = {name: archive[name] for name in archive.files}
    rounds = [parse_json(EvalResult, fields) for fields in json.loads(arrays["rounds"].tobytes())]
    head = [arrays[f"head_{index}"] for index in range(len(self.best))]
    best = [arrays[f"best_{index}"] for index in range(len(self.best))]
    optimizer = [arrays[name] for index in range(len(arrays)) if (name := f"optimizer_{index}") in arrays]
    steps, sums = int(arrays["steps"]), arrays["sums"]
    shapes = [array.shape for array in self.best]
    if [array.shape for array in head] != shapes or [array.shape for array in best] != shapes or sums.shape != (3,):
      raise ValueError("arrays of another training")
    self.head.set_weights(head)
    self.best, self.steps, self._sums, self.rounds = best, steps, sums, rounds
    self.steps_in_rounds = sum(one.steps for one in rounds)
    self._lowest = min((one.validation_loss for one in rounds), default=math.inf)
    self._history = [_to_json(one) for one in rounds]
    return optimizer


def _to_json(result: EvalResult) -> str:
  return json.dumps(dataclasses.asdict(result))
