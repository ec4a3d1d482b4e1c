"""Training the head: repeatable, resumable, its rounds, looks and draws."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from beam_retrain.trainer.fit import training
from beam_retrain.trainer.fit.callbacks import TrainingCallback, best_round
from beam_retrain.trainer.fit.data import Bottlenecks
from beam_retrain.trainer.fit.schedule import FullBatch, Schedule
from beam_retrain.transforms.core.errors import InputError

WHOLE = FullBatch(epochs=30, patience=4, l2=1.0)
RETRAIN = Schedule(learning_rate=0.01, batch_size=20, steps=250, first_eval=99, eval_every=100)


def clusters(counts=(90, 60, 30), spread: float = 1.5, noise: int = 0) -> Bottlenecks:
  """Overlapping clouds and `noise` numbers; each fifth point is for validation, each sixth of the rest for testing."""
  rng = np.random.default_rng(1)
  classes = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
  vectors = (rng.normal(size=(len(classes), 8)) * spread + classes[:, None]).astype(np.float32)
  vectors = np.hstack([vectors, rng.normal(size=(len(classes), noise)).astype(np.float32)])
  rows = np.arange(len(classes))
  validation, testing = rows % 5 == 0, (rows % 5 != 0) & (rows % 6 == 0)
  return Bottlenecks(
    vectors,
    classes,
    {"training": rows[~validation & ~testing], "validation": rows[validation], "testing": rows[testing]},
    ["a", "b", "c"][: len(counts)],
    "0" * 64,
  )


def train(tmp_path: Path, schedule: FullBatch | Schedule = WHOLE, seed: int = 0, name: str = "head.npz", **more):
  return training.train(clusters(), schedule, seed=seed, checkpoint=str(tmp_path / name), **more)


def weight_bytes(head) -> list[bytes]:
  return [array.tobytes() for array in head.get_weights()]


@pytest.mark.parametrize("schedule", [WHOLE, RETRAIN], ids=["lbfgs", "retrain"])
def test_same_seed_same_weights(tmp_path, schedule):
  first, rounds = train(tmp_path, schedule, name="1.npz")
  again, rounds_again = train(tmp_path, schedule, name="2.npz")
  other, _ = train(tmp_path, schedule, seed=1, name="3.npz")
  assert weight_bytes(first) == weight_bytes(again)
  assert rounds == rounds_again
  assert weight_bytes(first) != weight_bytes(other)


# Evaluations that fall on no end of a block of 100 steps, and what is measured between them: all of it must come back.
MANY_EVALS = dataclasses.replace(RETRAIN, first_eval=0, eval_every=30, validation_images=7, is_measured_on_batch=True)


class StopAt(TrainingCallback):
  """Stops at a step, or at an evaluation."""

  def __init__(self, last: int, told: list[int]):
    self.last, self.told = last, told

  def on_step(self, step, score, head) -> None:
    self.told.append(step)
    if step == self.last:
      raise KeyboardInterrupt


class StopAtEval(StopAt):
  def on_eval(self, step, result) -> None:
    self.on_step(step, None, None)


@pytest.mark.parametrize(
  "schedule",
  [RETRAIN, MANY_EVALS, dataclasses.replace(MANY_EVALS, is_measured_on_batch=False)],
  ids=["retrain", "many evaluations", "means between evaluations"],
)
def test_interrupted_at_any_moment_it_ends_alike(tmp_path, schedule):
  undisturbed, rounds = train(tmp_path, schedule)
  told: list[int] = []
  for last in (0, 60, 99, 100, 107, 162, 230):
    with pytest.raises(KeyboardInterrupt):
      train(tmp_path, schedule, name="stopped.npz", callbacks=[StopAt(last, told)])
  resumed, rounds_resumed = train(tmp_path, schedule, name="stopped.npz", callbacks=[StopAt(-1, told)])
  assert rounds_resumed == rounds
  assert weight_bytes(resumed) == weight_bytes(undisturbed)
  # It did go on, every time, from the block that it was in, and nothing was left out.
  assert set(told) == set(range(250))
  assert len(told) < 250 + 7 * schedule.steps_per_block


def test_interrupted_in_any_epoch_it_ends_alike(tmp_path):
  schedule = dataclasses.replace(WHOLE, patience=30, l2=0.01)
  undisturbed, rounds = train(tmp_path, schedule)
  told: list[int] = []
  for last in (0, 1, 2, 5):
    with pytest.raises(KeyboardInterrupt):
      train(tmp_path, schedule, name="stopped.npz", callbacks=[StopAtEval(last, told)])
  resumed, rounds_resumed = train(tmp_path, schedule, name="stopped.npz", callbacks=[StopAtEval(-1, told)])
  assert rounds_resumed == rounds
  assert weight_bytes(resumed) == weight_bytes(undisturbed)
  assert told == sorted([*range(len(rounds)), 0, 1, 2, 5])
  # A finished one stays as it is, and keeps little.
  with np.load(tmp_path / "stopped.npz") as archive:
    assert "optimizer_1" not in archive.files
  again, rounds_again = train(tmp_path, schedule, name="stopped.npz", callbacks=[StopAtEval(-1, told := [])])
  assert (rounds_again, told) == (rounds, [])
  assert weight_bytes(again) == weight_bytes(undisturbed)


@pytest.mark.parametrize("schedule", [WHOLE, RETRAIN], ids=["lbfgs", "retrain"])
def test_a_damaged_checkpoint_is_a_start_from_the_beginning(tmp_path, schedule):
  undisturbed, rounds = train(tmp_path, schedule)
  (tmp_path / "cut.npz").write_bytes((tmp_path / "head.npz").read_bytes()[:700])
  again, rounds_again = train(tmp_path, schedule, name="cut.npz")
  assert rounds_again == rounds
  assert weight_bytes(again) == weight_bytes(undisturbed)


def test_stops_early_with_the_best_epochs_weights(tmp_path):
  data = clusters(noise=40)
  head, rounds = training.train(data, dataclasses.replace(WHOLE, l2=0.0), seed=0, checkpoint=str(tmp_path / "head.npz"))
  best = best_round(rounds)
  assert len(rounds) == best.number + 4 < 30
  assert min(one.validation_loss for one in rounds) == best.validation_loss < rounds[-1].validation_loss
  assert training.evaluate(head, data, "validation").loss == pytest.approx(best.validation_loss, abs=1e-6)


def test_retrain_preset_keeps_the_last_weights_and_its_rate(tmp_path):
  head, rounds = train(tmp_path, RETRAIN)
  assert [(one.number, one.steps, one.learning_rate) for one in rounds] == [
    (1, 100, 0.01),
    (2, 100, 0.01),
    (3, 50, 0.01),
  ]
  last = training.evaluate(head, clusters(), "validation").loss
  assert last == pytest.approx(rounds[-1].validation_loss, abs=1e-6)


def test_every_block_has_batches_of_its_own():
  data = clusters()
  both = list(training.stream_batches(data, dataclasses.replace(RETRAIN, steps=200), seed=0, first_block=0))
  second = list(training.stream_batches(data, dataclasses.replace(RETRAIN, steps=200), seed=0, first_block=1))
  assert (len(both), len(second)) == (200, 100)
  assert not np.array_equal(both[0][0], second[0][0])
  np.testing.assert_array_equal(both[100][0], second[0][0])


def test_retrain_preset_draws_uniformly_over_classes():
  data = clusters(counts=(900, 60, 30))
  rows = data.learned_rows
  drawn = training.draw_balanced(data, rows, 20, np.random.default_rng(0))
  drawn = np.concatenate([next(drawn) for _ in range(300)])
  assert set(drawn) <= set(data.rows["training"])
  np.testing.assert_allclose(np.bincount(data.classes[drawn]) / len(drawn), 1 / 3, atol=0.02)
  # Within a class too: the rarest class's images all come, none more than twice as often as another.
  rarest = np.unique(drawn[data.classes[drawn] == 2], return_counts=True)
  assert len(rarest[0]) == data.counts("training")[2]
  assert rarest[1].max() < 2 * rarest[1].min()


def test_every_evaluation_draws_other_validation_images(tmp_path):
  still = dataclasses.replace(MANY_EVALS, learning_rate=1e-12)
  head, rounds = train(tmp_path, still)
  losses = [one.validation_loss for one in rounds]
  assert len(losses) == 10
  assert len(set(losses)) == len(losses)
  # 7 images: sevenths.
  assert all(one.validation_accuracy * 7 == pytest.approx(round(one.validation_accuracy * 7)) for one in rounds)
  # Over classes, not over images: of many, each class has as many.
  (_, (last,)) = train(tmp_path, dataclasses.replace(still, steps=1, validation_images=30_000), name="many.npz")
  data = clusters()
  rows = data.rows["validation"]
  logits = data.vectors[rows] @ head.get_weights()[0]
  is_right = logits.argmax(axis=1) == data.classes[rows]
  expected = np.mean([is_right[data.classes[rows] == one].mean() for one in range(3)])
  assert abs(expected - is_right.mean()) > 0.03
  assert last.validation_accuracy == pytest.approx(expected, abs=0.015)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("schedule", [RETRAIN, MANY_EVALS], ids=["retrain", "many evaluations"])
@pytest.mark.parametrize("steps", [1, 250])
def test_a_training_that_diverges_is_told(tmp_path, schedule, steps):
  schedule = dataclasses.replace(schedule, learning_rate=1e38, steps=steps)
  with pytest.raises(InputError, match=r"training diverged: use a --learning_rate below 1e\+38"):
    train(tmp_path, schedule)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("schedule", [WHOLE, RETRAIN], ids=["lbfgs", "retrain"])
def test_what_is_measured_at_the_end_is_finite(tmp_path, schedule):
  head, _ = train(tmp_path, schedule)
  head.kernel[...] = np.float32(3e38)
  with pytest.raises(InputError, match="training diverged: "):
    training.evaluate_splits(head, clusters(), ["testing"], schedule)


def test_l2_keeps_weights_small(tmp_path):
  weak, _ = train(tmp_path, dataclasses.replace(WHOLE, l2=0.0), name="0.npz")
  strong, _ = train(tmp_path, dataclasses.replace(WHOLE, l2=100.0), name="100.npz")
  assert np.square(strong.get_weights()[0]).sum() < 0.5 * np.square(weak.get_weights()[0]).sum()


@pytest.mark.parametrize(
  ("steps", "first", "every", "evals"),
  [
    (250, 99, 100, [99, 199, 249]),
    (200, 99, 100, [99, 199]),
    (30, 99, 100, [29]),
    (1, 0, 10, [0]),
    (21, 0, 10, [0, 10, 20]),
    (25, 0, 10, [0, 10, 20, 24]),
    (5, 0, 1, [0, 1, 2, 3, 4]),
  ],
)
def test_where_the_evaluations_are(steps, first, every, evals):
  schedule = dataclasses.replace(RETRAIN, steps=steps, first_eval=first, eval_every=every)
  assert sorted({schedule.next_eval(step) for step in range(steps)}) == evals
  assert all(schedule.next_eval(step) >= step for step in range(steps))
  assert schedule.rounds == len(evals)
