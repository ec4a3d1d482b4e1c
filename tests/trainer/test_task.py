"""`train` as users run it: repeatable, resumable, gated; and the parts of its loop."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from beam_retrain.trainer import task
from beam_retrain.trainer.compat.progress import ProgressLine
from beam_retrain.trainer.compat.retrain_options import retrain_request
from beam_retrain.trainer.fit import batches, training
from beam_retrain.trainer.fit.data import Bottlenecks
from beam_retrain.trainer.fit.schedule import Plan, steps_in_round
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import decode_bottleneck
from beam_retrain.transforms.core.records.tfrecord import read_records

# Six steps make a pass over the training images of `clusters`.
ADAM = Plan(
  optimizer="adam",
  learning_rate=0.01,
  is_decaying=True,
  batch_size=20,
  is_balanced=False,
  steps=30 * 54,
  first_look=53,
  look_every=54,
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
  first_look=99,
  look_every=100,
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


def train(tmp_path: Path, plan: Plan = ADAM, seed: int = 0, name: str = "head.npz", **more):
  return training.train(clusters(), plan, seed=seed, checkpoint=str(tmp_path / name), **more)


def weight_bytes(head) -> list[bytes]:
  return [array.tobytes() for array in head.get_weights()]


@pytest.mark.parametrize("plan", [ADAM, RETRAIN], ids=["adam", "retrain"])
def test_same_seed_same_weights(tmp_path, plan):
  plan = dataclasses.replace(plan, steps=220)
  first, rounds = train(tmp_path, plan, name="1.npz")
  again, rounds_again = train(tmp_path, plan, name="2.npz")
  other, _ = train(tmp_path, plan, seed=1, name="3.npz")
  assert weight_bytes(first) == weight_bytes(again)
  assert rounds == rounds_again
  assert weight_bytes(first) != weight_bytes(other)


# Looks that fall on no end of a block of 100 steps, and what is measured between them: all of it must come back.
MANY_LOOKS = dataclasses.replace(RETRAIN, first_look=0, look_every=30, validation_images=7, is_measured_on_batch=True)


@pytest.mark.parametrize(
  "plan",
  [ADAM, RETRAIN, MANY_LOOKS, dataclasses.replace(MANY_LOOKS, is_measured_on_batch=False)],
  ids=["adam", "retrain", "many looks", "means between looks"],
)
def test_interrupted_at_any_moment_it_ends_alike(tmp_path, plan):
  plan = dataclasses.replace(plan, steps=250)
  undisturbed, rounds = train(tmp_path, plan)
  told: list[int] = []

  def stop_at(last: int):
    def stop(step: int, *_) -> None:
      told.append(step)
      if step == last:
        raise KeyboardInterrupt

    return stop

  for last in (0, 60, 99, 100, 107, 162, 230):
    with pytest.raises(KeyboardInterrupt):
      train(tmp_path, plan, name="stopped.npz", on_step=stop_at(last))
  resumed, rounds_resumed = train(tmp_path, plan, name="stopped.npz", on_step=stop_at(-1))
  assert rounds_resumed == rounds
  assert weight_bytes(resumed) == weight_bytes(undisturbed)
  # It did go on, every time, from the block that it was in, and nothing was left out.
  assert set(told) == set(range(250))
  assert len(told) < 250 + 7 * plan.steps_per_block


def test_a_damaged_checkpoint_is_a_start_from_the_beginning(tmp_path):
  plan = dataclasses.replace(ADAM, steps=160)
  undisturbed, rounds = train(tmp_path, plan)
  (tmp_path / "cut.npz").write_bytes((tmp_path / "head.npz").read_bytes()[:700])
  again, rounds_again = train(tmp_path, plan, name="cut.npz")
  assert rounds_again == rounds
  np.testing.assert_array_equal(again.get_weights()[0], undisturbed.get_weights()[0])


def test_stops_early_with_the_best_rounds_weights(tmp_path):
  head, rounds = train(tmp_path, dataclasses.replace(ADAM, learning_rate=0.3))
  best = training.best_round(rounds)
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
  drawn = np.concatenate(list(batches.draw_rows(data, ADAM, np.random.default_rng(0))))
  rows, counts = np.unique(drawn, return_counts=True)
  assert rows.tolist() == data.rows["training"].tolist()
  assert steps_in_round(len(rows), 20) == ADAM.look_every == 9 * 6
  assert set(counts) == {9}


def test_every_round_has_an_order_of_its_own():
  data = clusters()
  plan = dataclasses.replace(ADAM, steps=2 * 54)
  both = list(batches.stream_batches(data, plan, seed=0, first_block=0))
  second = list(batches.stream_batches(data, plan, seed=0, first_block=1))
  assert (len(both), len(second)) == (2 * 54, 54)
  assert not np.array_equal(both[0][0], second[0][0])
  np.testing.assert_array_equal(both[len(second)][0], second[0][0])


def test_retrain_preset_draws_uniformly_over_classes():
  data = clusters(counts=(900, 60, 30))
  blocks = [list(batches.draw_rows(data, RETRAIN, np.random.default_rng(seed))) for seed in range(3)]
  assert [[len(batch) for batch in block] for block in blocks] == [[20] * 100] * 3
  drawn = np.concatenate([batch for block in blocks for batch in block])
  assert set(drawn) <= set(data.rows["training"])
  np.testing.assert_allclose(np.bincount(data.classes[drawn]) / len(drawn), 1 / 3, atol=0.02)
  # Within a class too: the rarest class's images all come, none more than twice as often as another.
  rarest = np.unique(drawn[data.classes[drawn] == 2], return_counts=True)
  assert len(rarest[0]) == data.counts("training")[2]
  assert rarest[1].max() < 2 * rarest[1].min()


def test_every_look_draws_other_validation_images(tmp_path):
  still = dataclasses.replace(MANY_LOOKS, learning_rate=1e-12)
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
  plan = dataclasses.replace(ADAM, optimizer="sgd", learning_rate=1e30)
  with pytest.raises(InputError, match=r"training diverged in round .: give a --learning_rate below 1e\+30"):
    train(tmp_path, plan)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("plan", [ADAM, RETRAIN, MANY_LOOKS], ids=["adam", "retrain", "many looks"])
def test_the_last_step_of_a_training_may_be_the_one_that_diverges(tmp_path, plan):
  plan = dataclasses.replace(plan, optimizer="sgd", learning_rate=1e38, steps=1)
  with pytest.raises(InputError, match=r"training diverged in round 1: give a --learning_rate below 1e\+38"):
    train(tmp_path, plan)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_what_is_measured_at_the_end_is_finite(tmp_path):
  data = clusters()
  head, rounds = training.train(
    data, dataclasses.replace(ADAM, steps=54, l2=0.0), seed=0, checkpoint=str(tmp_path / "head.npz")
  )
  head.kernel *= np.float32(3e38)
  with pytest.raises(InputError, match=r"training diverged in round 1: give a --learning_rate below 0\.01"):
    task._measure(head, data, rounds, seed=0)


def test_l2_keeps_weights_small(tmp_path):
  weak, _ = train(tmp_path, dataclasses.replace(ADAM, l2=0.0, steps=300), name="0.npz")
  strong, _ = train(tmp_path, dataclasses.replace(ADAM, l2=100.0, steps=300), name="100.npz")
  assert np.square(strong.get_weights()[0]).sum() < 0.5 * np.square(weak.get_weights()[0]).sum()


class Terminal(io.StringIO):
  def isatty(self) -> bool:
    return True


@pytest.mark.parametrize(("stream", "start", "end"), [(Terminal(), "\r", "\x1b[K"), (io.StringIO(), "", "\n")])
def test_progress_line(stream, start, end):
  times = iter([100.0, 103.5])
  line = ProgressLine(stream, 30, clock=lambda: next(times))
  line.show(349, training.Round(7, 50, 0.001, 0.51234, 0.9, 0.6, 0.875))
  assert stream.getvalue() == (
    f"{start}round 7/30 (50 steps): training loss 0.5123, accuracy 90.00%; validation loss 0.6000,"
    f" accuracy 87.50%; 3.5 s{end}"
  )


def run(bottlenecks_folder: Path, output: Path, *flags: str) -> int:
  return task.run([f"--input={bottlenecks_folder}", f"--output={output}", *flags])


def test_everything_promised_is_written(trained_model, bottlenecks_folder):
  names = {"saved_model", "retrained_labels.txt", "retrained_graph.pb", "head.npz", "metrics.json", "logs", "info.json"}
  assert {path.name for path in trained_model.iterdir()} == names | {"labels.txt", "checkpoints", "trunk", "COMPLETED"}
  assert (trained_model / "retrained_labels.txt").read_text() == "black\ngrey\nwhite\n"
  assert (trained_model / "labels.txt").read_text() == "black\ngrey\nwhite\n"
  info = json.loads((trained_model / "info.json").read_text())
  bottlenecks = json.loads((bottlenecks_folder / "info.json").read_text())
  assert info["trunk"] == {**bottlenecks["trunk"], "bottlenecks_request": bottlenecks["request"]}
  assert (info["stage"], info["labels"]) == ("train", ["black", "grey", "white"])
  assert info["settings"]["seed"] == 0


def test_metrics_are_the_exported_models(trained_model, bottlenecks_folder):
  metrics = json.loads((trained_model / "metrics.json").read_text())
  with next((bottlenecks_folder / "records").glob("testing-*")).open("rb") as file:
    testing = [decode_bottleneck(record) for record in read_records(file, "testing")]
  exported = tf.saved_model.load(str(trained_model / "saved_model"))
  scores = exported.score_bottlenecks(tf.constant(np.stack([one.vector for one in testing])))["scores"].numpy()
  classes = np.array([one.class_index for one in testing])
  assert metrics["testing_images"] == len(testing)
  assert metrics["testing_accuracy"] == pytest.approx(np.mean(scores.argmax(axis=1) == classes))
  assert metrics["testing_loss"] == pytest.approx(-np.log(scores[np.arange(len(classes)), classes]).mean(), abs=1e-4)
  assert metrics["training_images"] + metrics["validation_images"] + metrics["testing_images"] == 120
  assert metrics["rounds_trained"] == len(metrics["rounds"]) <= 20
  assert metrics["training_accuracy"] > 0.9


def test_tensorboard_reads_a_curve_of_every_round(trained_model):
  rounds = json.loads((trained_model / "metrics.json").read_text())["rounds"]
  expected = {
    "train": {"accuracy": "training_accuracy", "cross_entropy": "training_loss", "learning_rate": "learning_rate"},
    "validation": {"accuracy": "validation_accuracy", "cross_entropy": "validation_loss"},
  }
  for folder, tags in expected.items():
    (path,) = (trained_model / "logs" / folder).iterdir()
    curves: dict[str, list] = {}
    for event in tf.compat.v1.train.summary_iterator(str(path)):
      for value in event.summary.value:
        curves.setdefault(value.tag, []).append((event.step, float(tf.make_ndarray(value.tensor))))
    assert set(curves) == set(tags)
    for tag, name in tags.items():
      assert [step for step, _ in curves[tag]] == [one["number"] * one["steps"] for one in rounds]
      assert [value for _, value in curves[tag]] == pytest.approx([one[name] for one in rounds])


def test_a_killed_run_goes_on_and_ends_as_an_undisturbed_one(tmp_path, bottlenecks_folder):
  flags = ["--preset=retrain", "--training_steps=6000", "--batch_size=20", "--seed=3"]
  undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
  command = [
    sys.executable,
    "-m",
    "beam_retrain.trainer.task",
    f"--input={bottlenecks_folder}",
    f"--output={killed}",
    *flags,
  ]
  process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True)
  checkpoint = killed / "checkpoints" / "head.npz"
  while not checkpoint.exists():
    assert process.poll() is None, process.stdout.read()
    time.sleep(0.01)
  os.kill(process.pid, signal.SIGKILL)
  process.communicate()
  with np.load(checkpoint) as archive:
    rounds_before = len(json.loads(archive["rounds"].tobytes()))
  assert 1 <= rounds_before < 60
  assert not (killed / "COMPLETED").exists()
  with pytest.raises(InputError, match="not finished: run `beam-retrain train` into it again"):
    task.read_info(str(killed), "train")

  assert run(bottlenecks_folder, killed, *flags) == 0
  assert run(bottlenecks_folder, undisturbed, *flags) == 0
  for name in ("retrained_graph.pb", "metrics.json", "checkpoints/head.npz"):
    assert (killed / name).read_bytes() == (undisturbed / name).read_bytes(), name


def test_another_request_replaces_the_output_whole(tmp_path, bottlenecks_folder):
  output = tmp_path / "model"
  assert run(bottlenecks_folder, output, "--rounds=2") == 0
  first = (output / "checkpoints" / "head.npz").read_bytes()
  assert run(bottlenecks_folder, output, "--rounds=2", "--seed=1") == 0
  metrics = json.loads((output / "metrics.json").read_text())
  assert (metrics["seed"], metrics["rounds_trained"]) == (1, 2)
  assert (output / "checkpoints" / "head.npz").read_bytes() != first
  assert len(list((output / "logs" / "train").iterdir())) == 1


def test_a_missed_gate_is_exit_code_1_after_everything_is_written(tmp_path, bottlenecks_folder, capsys):
  # 2 of 10 testing images or fewer are right after one step of a learning rate that changes nothing.
  flags = ("--preset=retrain", "--training_steps=1", "--learning_rate=1e-9")
  assert run(bottlenecks_folder, tmp_path / "a", *flags, "--assert_accuracy_at_least=1") == 1
  assert "--assert_accuracy_at_least asked for 1" in capsys.readouterr().err
  assert (tmp_path / "a" / "COMPLETED").exists()
  assert run(bottlenecks_folder, tmp_path / "b", *flags, "--assert_accuracy_at_least=0") == 0


@pytest.mark.parametrize(
  ("flags", "sentence"),
  [
    (["--rounds=3", "--preset=retrain"], "--rounds belongs to --preset adam"),
    (["--how_many_training_steps=3"], "--training_steps belongs to --preset retrain"),
    (["--learning_rte=1"], "--learning_rte: this command does not know it; the nearest flag is --learning_rate"),
    (["--seed=-1"], "argument --seed: -1 is not between 0 and 9223372036854775807"),
    (["--seed=9223372036854775808"], "argument --seed: 9223372036854775808 is not between 0"),
    (["--learning_rate=0"], "argument --learning_rate: 0 is not above 0"),
    (["--batch_size=x"], "argument --batch_size/--train_batch_size: 'x' is not a whole number"),
    (["--validation_percentage=95"], "--validation_percentage: testing 10 % and validation 95 %"),
    (["--validation_percentage=0"], "no validation image for 3 of 3 labels"),
  ],
)
def test_arguments_that_cannot_be_used(tmp_path, bottlenecks_folder, flags, sentence):
  with pytest.raises(InputError, match=sentence):
    run(bottlenecks_folder, tmp_path / "model", *flags)
  assert not (tmp_path / "model").exists()


def test_folders_that_cannot_be_used(tmp_path, bottlenecks_folder, trained_model):
  (tmp_path / "letter.txt").write_text("mine")
  with pytest.raises(InputError, match="is not empty and was not written by beam-retrain"):
    run(bottlenecks_folder, tmp_path)
  with pytest.raises(InputError, match="holds the output of `beam-retrain bottlenecks`"):
    run(bottlenecks_folder, bottlenecks_folder)
  with pytest.raises(InputError, match="give the folder that `beam-retrain bottlenecks` wrote"):
    run(trained_model, tmp_path / "model")
  assert (tmp_path / "letter.txt").read_text() == "mine"


def plan_of(*flags: str) -> Plan:
  args = task.make_parser().parse_args(["--input=a", "--output=b", *flags])
  return task.make_plan(args, retrain_request(args), training_images=1000)


def test_old_flag_names_and_presets():
  retrain = plan_of("--preset=retrain")
  assert (retrain.optimizer, retrain.learning_rate, retrain.batch_size, retrain.steps) == ("sgd", 0.01, 100, 4000)
  old_names = plan_of("--preset=retrain", "--how_many_training_steps=301", "--train_batch_size=7")
  assert (old_names.steps, old_names.batch_size) == (301, 7)
  assert plan_of().optimizer == "adam"
  assert plan_of("--rounds=4").steps == 4 * 50
  assert plan_of("--l2=0").l2 == 0


@pytest.mark.parametrize(
  ("steps", "first", "every", "looks"),
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
def test_where_the_looks_are(steps, first, every, looks):
  plan = dataclasses.replace(RETRAIN, steps=steps, first_look=first, look_every=every)
  assert sorted({plan.next_look(step) for step in range(steps)}) == looks
  assert all(plan.next_look(step) >= step for step in range(steps))
  assert plan.rounds == len(looks)
