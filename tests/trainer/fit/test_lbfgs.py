"""L-BFGS over all images: its objective, beside scikit-learn's; threads; what numbers it takes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from beam_retrain.trainer.fit import training
from beam_retrain.trainer.fit.data import Bottlenecks
from beam_retrain.trainer.fit.head import build_head
from beam_retrain.trainer.fit.objective import Objective
from beam_retrain.trainer.fit.schedule import FullBatch
from beam_retrain.transforms.core.errors import InputError

TO_THE_END = FullBatch(epochs=100, patience=100, l2=3.0)


def clouds(count: int = 3000, dimensions: int = 40, classes: int = 5, seed: int = 0) -> Bottlenecks:
  """Clouds of correlated numbers, scaled to mean 0 and deviation 1; every tenth row is for validation."""
  rng = np.random.default_rng(seed)
  of_row = rng.integers(classes, size=count).astype(np.int32)
  vectors = rng.normal(size=(count, dimensions)) + rng.normal(size=(classes, dimensions))[of_row] * 0.3
  vectors = vectors @ rng.normal(size=(dimensions, dimensions)) ** 3
  vectors = ((vectors - vectors.mean(axis=0)) / vectors.std(axis=0)).astype(np.float32)
  return split(vectors, of_row)


def split(vectors: np.ndarray, classes: np.ndarray) -> Bottlenecks:
  rows = np.arange(len(classes))
  parts = {"training": rows[rows % 10 > 0], "validation": rows[rows % 10 == 0], "testing": rows[:0]}
  labels = [str(one) for one in range(int(classes.max()) + 1)]
  return Bottlenecks(vectors, classes.astype(np.int32), parts, labels, "")


def fit(data: Bottlenecks, tmp_path: Path, schedule: FullBatch = TO_THE_END, seed: int = 0, **more):
  return training.train(data, schedule, seed=seed, checkpoint=str(tmp_path / f"{os.urandom(8).hex()}.npz"), **more)


def test_it_ends_where_scikit_learn_does_in_few_epochs(tmp_path):
  data = clouds()
  learned = data.vectors[data.rows["training"]], data.classes[data.rows["training"]]
  with threadpool_limits(1):
    theirs = LogisticRegression(C=1 / TO_THE_END.l2, tol=1e-6, solver="newton-cholesky").fit(*learned)
  head, rounds = fit(data, tmp_path)
  objective = Objective(data, TO_THE_END.l2)
  lowest = build_head(data.dimensions, len(data.labels), seed=0)
  lowest.set_weights([theirs.coef_.T.astype(np.float32), theirs.intercept_.astype(np.float32)])
  assert objective.evaluate(head).loss == pytest.approx(objective.evaluate(lowest).loss, rel=0.01)
  assert 3 < len(rounds) < 20


def test_the_untrained_head_is_never_the_best(tmp_path):
  data = clouds(count=1000)
  data.classes[data.rows["validation"]] = (data.classes[data.rows["validation"]] + 1) % len(data.labels)
  head, rounds = fit(data, tmp_path)
  untrained = training.evaluate(build_head(data.dimensions, len(data.labels), seed=0), data, "training")
  assert rounds[0].validation_loss > np.log(len(data.labels))
  assert training.evaluate(head, data, "training").loss < 0.9 * untrained.loss


def test_the_validation_images_are_scored_in_the_same_pass():
  data = clouds()
  head = build_head(data.dimensions, len(data.labels), seed=0)
  head.kernel *= 300
  found = Objective(data, 0.0).evaluate(head)
  assert found.validated == training.evaluate(head, data, "validation")
  assert found.trained.images == len(data.rows["training"])
  assert found.trained.loss == pytest.approx(training.evaluate(head, data, "training").loss, rel=1e-6)


def test_the_number_of_cores_changes_no_bit(tmp_path):
  data = clouds(count=4000)
  allowed = os.sched_getaffinity(0)
  if len(allowed) < 2:
    pytest.skip("there is one core")
  heads = [fit(data, tmp_path)[0]]
  try:
    os.sched_setaffinity(0, {min(allowed)})
    heads.append(fit(data, tmp_path)[0])
  finally:
    os.sched_setaffinity(0, allowed)
  assert len({(head.kernel.tobytes(), head.bias.tobytes()) for head in heads}) == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("l2", [0.0, 10.0])
@pytest.mark.parametrize(
  "kind",
  ["constant columns", "equal columns", "one image a class", "fewer images than numbers", "long", "large", "tiny"],
)
def test_numbers_that_are_hard(tmp_path, kind, l2):
  rng = np.random.default_rng(0)
  data = clouds(count=300)
  if kind == "constant columns":
    data.vectors[:, ::2] = 0
  elif kind == "equal columns":
    data.vectors[:, 20:] = data.vectors[:, :20]
  elif kind == "one image a class":
    data = split(rng.normal(size=(11, 40)).astype(np.float32), np.array([0, 1, *[0] * 9]))
  elif kind == "fewer images than numbers":
    data = split(rng.normal(size=(40, 700)).astype(np.float32), rng.integers(3, size=40))
  elif kind == "long":
    data = split(rng.normal(size=(40, 5000)).astype(np.float32), rng.integers(3, size=40))
  else:
    data.vectors[...] *= np.float32(1e6 if kind == "large" else 1e-6)
  head, rounds = fit(data, tmp_path, FullBatch(epochs=100, patience=6, l2=l2))
  assert np.isfinite(head.kernel).all()
  untrained = build_head(data.dimensions, len(data.labels), seed=0)
  objective = Objective(data, l2)
  assert objective.evaluate(head).loss < objective.evaluate(untrained).loss
  assert len(rounds) < 100


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", [3e38, 1e25])
def test_numbers_beyond_float32_are_told(tmp_path, number):
  data = clouds(count=300)
  data.vectors[7] = np.float32(number)
  with pytest.raises(InputError, match=r"training diverged: some bottlenecks are too large .* `beam-retrain export`"):
    fit(data, tmp_path)
