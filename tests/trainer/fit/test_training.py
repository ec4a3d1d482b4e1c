"""Training the head: repeatable, resumable, its rounds, looks and draws."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from beam_retrain.trainer.fit import training
from beam_retrain.trainer.fit.callbacks import TrainingCallback, best_round
from beam_retrain.trainer.fit.data import Bottlenecks
from beam_retrain.trainer.fit.schedule import Schedule, steps_in_epoch
from beam_retrain.transforms.core.errors import InputError

# Six steps make a pass over the training images of `clusters`.
ADAM = Schedule(
  optimizer="adam",
  learning_rate=0.01,
  is_decaying=True,
  batch_size=20,
  is_balanced=False,
  steps=30 * 54,
  first_eval=53,
  eval_every=54,
  is_measured_on_batch=False,
  validation_images=None,
  patience=4,
  l2=1.0,
)


RETRAIN = dataclasses.replace(
  ADAM,
  optimizer="sgd",
  is_decaying=False,
  is_balanced=True,
  steps=250,
  first_eval=99,
  eval_every=100,
  patience=None,
  l2=0.0,
)


def clusters(counts=(90, 60, 30), spread: float = 1.5) -> Bottlenecks:
  """Overlapping clouds; every fifth point is for validation, every sixth of the rest for testing."""
  rng = np.random.default_rng(1)
  classes = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
  vectors = (rng.normal(size=(len(classes), 8)) * spread + classes[:, None]).astype(np.float32)
  rows = np.arange(len(classes))
  validation, testing = rows % 5 == 0, (rows % 5 != 0) & (rows % 6 == 0)
  return Bottlenecks(
    vectors,
    classes,
    {"training": rows[~validation & ~testing], "validation": rows[validation], "testing": rows[testing]},
    ["a", "b", "c"][: len(counts)],
    "0" * 64,
  )


def train(tmp_path: Path, schedule: Schedule = ADAM, seed: int = 0, name: str = "head.npz", **more):
  return training.train(clusters(), schedule, seed=seed, checkpoint=str(tmp_path / name), **more)


def weight_bytes(head) -> list[bytes]:
  return [array.tobytes() for array in head.get_weights()]


@pytest.mark.parametrize("schedule", [ADAM, RETRAIN], ids=["adam", "retrain"])
def test_same_seed_same_weights(tmp_path, schedule):
  schedule = dataclasses.replace(schedule, steps=220)
  first, rounds = train(tmp_path, schedule, name="1.npz")
  again, rounds_again = train(tmp_path, schedule, name="2.npz")
  other, _ = train(tmp_path, schedule, seed=1, name="3.npz")
  assert weight_bytes(first) == weight_bytes(again)
  assert rounds == rounds_again
  assert weight_bytes(first) != weight_bytes(other)


# Evaluations that fall on no end of a block of 100 steps, and what is measured between them: all of it must come back.
MANY_EVALS = dataclasses.replace(RETRAIN, first_eval=0, eval_every=30, validation_images=7, is_measured_on_batch=True)


@pytest.mark.parametrize(
  "schedule",
  [ADAM, RETRAIN, MANY_EVALS, dataclasses.replace(MANY_EVALS, is_measured_on_batch=False)],
  ids=["adam", "retrain", "many evaluations", "means between evaluations"],
)
def test_interrupted_at_any_moment_it_ends_alike(tmp_path, schedule):
  schedule = dataclasses.replace(schedule, steps=250)
  undisturbed, rounds = train(tmp_path, schedule)
  told: list[int] = []

  class StopAt(TrainingCallback):
    def __init__(self, last: int):
      self.last = last

    def on_step(self, step, score, head) -> None:
      told.append(step)
      if step == self.last:
        raise KeyboardInterrupt

  for last in (0, 60, 99, 100, 107, 162, 230):
    with pytest.raises(KeyboardInterrupt):
      train(tmp_path, schedule, name="stopped.npz", callbacks=[StopAt(last)])
  resumed, rounds_resumed = train(tmp_path, schedule, name="stopped.npz", callbacks=[StopAt(-1)])
  assert rounds_resumed == rounds
  assert weight_bytes(resumed) == weight_bytes(undisturbed)
  # It did go on, every time, from the block that it was in, and nothing was left out.
  assert set(told) == set(range(250))
  assert len(told) < 250 + 7 * schedule.steps_per_block


def test_a_damaged_checkpoint_is_a_start_from_the_beginning(tmp_path):
  schedule = dataclasses.replace(ADAM, steps=160)
  undisturbed, rounds = train(tmp_path, schedule)
  (tmp_path / "cut.npz").write_bytes((tmp_path / "head.npz").read_bytes()[:700])
  again, rounds_again = train(tmp_path, schedule, name="cut.npz")
  assert rounds_again == rounds
  np.testing.assert_array_equal(again.get_weights()[0], undisturbed.get_weights()[0])


def test_stops_early_with_the_best_rounds_weights(tmp_path):
  head, rounds = train(tmp_path, dataclasses.replace(ADAM, learning_rate=0.3))
  best = best_round(rounds)
  assert len(rounds) == best.number + 4 < 30
  assert min(one.validation_loss for one in rounds) == best.validation_loss < rounds[-1].validation_loss
  assert training.evaluate(head, clusters(), "validation").loss == pytest.approx(best.validation_loss, abs=1e-6)
  # Two rounds without a better one, and the learning rate is 0.3 of what it was; the next two, and again.
  rates = [one.learning_rate for one in rounds[best.number :]]
  assert rates == pytest.approx([rates[0], rates[0], 0.3 * rates[0], 0.3 * rates[0]])


def test_retrain_preset_keeps_the_last_weights_and_its_rate(tmp_path):
  head, rounds = train(tmp_path, RETRAIN)
  assert [(one.number, one.steps, one.learning_rate) for one in rounds] == [
    (1, 100, 0.01),
    (2, 100, 0.01),
    (3, 50, 0.01),
  ]
  last = training.evaluate(head, clusters(), "validation").loss
  assert last == pytest.approx(rounds[-1].validation_loss, abs=1e-6)


def test_a_round_passes_over_every_training_image_equally_often():
  data = clusters()
  drawn = np.concatenate(list(training.draw_rows(data, ADAM, np.random.default_rng(0))))
  rows, counts = np.unique(drawn, return_counts=True)
  assert rows.tolist() == data.rows["training"].tolist()
  assert steps_in_epoch(len(rows), 20) == ADAM.eval_every == 9 * 6
  assert set(counts) == {9}


def test_every_round_has_an_order_of_its_own():
  data = clusters()
  schedule = dataclasses.replace(ADAM, steps=2 * 54)
  both = list(training.stream_batches(data, schedule, seed=0, first_block=0))
  second = list(training.stream_batches(data, schedule, seed=0, first_block=1))
  assert (len(both), len(second)) == (2 * 54, 54)
  assert not np.array_equal(both[0][0], second[0][0])
  np.testing.assert_array_equal(both[len(second)][0], second[0][0])


def test_retrain_preset_draws_uniformly_over_classes():
  data = clusters(counts=(900, 60, 30))
  blocks = [list(training.draw_rows(data, RETRAIN, np.random.default_rng(seed))) for seed in range(3)]
  assert [[len(batch) for batch in block] for block in blocks] == [[20] * 100] * 3
  drawn = np.concatenate([batch for block in blocks for batch in block])
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


def test_a_training_that_diverges_is_told(tmp_path):
  schedule = dataclasses.replace(ADAM, optimizer="sgd", learning_rate=1e30)
  with pytest.raises(InputError, match=r"training diverged: use a --learning_rate below 1e\+30"):
    train(tmp_path, schedule)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("schedule", [ADAM, RETRAIN, MANY_EVALS], ids=["adam", "retrain", "many evaluations"])
def test_the_last_step_of_a_training_may_be_the_one_that_diverges(tmp_path, schedule):
  schedule = dataclasses.replace(schedule, optimizer="sgd", learning_rate=1e38, steps=1)
  with pytest.raises(InputError, match=r"training diverged: use a --learning_rate below 1e\+38"):
    train(tmp_path, schedule)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_what_is_measured_at_the_end_is_finite(tmp_path):
  data = clusters()
  head, rounds = training.train(
    data, dataclasses.replace(ADAM, steps=54, l2=0.0), seed=0, checkpoint=str(tmp_path / "head.npz")
  )
  head.kernel *= np.float32(3e38)
  with pytest.raises(InputError, match=r"training diverged: use a --learning_rate below 0\.01"):
    training.evaluate_splits(head, data, ["testing"], rounds)


def test_l2_keeps_weights_small(tmp_path):
  weak, _ = train(tmp_path, dataclasses.replace(ADAM, l2=0.0, steps=300), name="0.npz")
  strong, _ = train(tmp_path, dataclasses.replace(ADAM, l2=100.0, steps=300), name="100.npz")
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
