"""`train` as users run it: repeatable, resumable, gated; and the parts of its loop."""

from __future__ import annotations

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
from beam_retrain.trainer.fit.callbacks import EpochLine, EvalResult
from beam_retrain.trainer.fit.schedule import FullBatch, Schedule
from beam_retrain.trainer.request import TrainRequest
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import decode_bottleneck
from beam_retrain.transforms.core.records.tfrecord import read_records
from beam_retrain.transforms.core.run.output_folder import read_info
from tests.helpers import ROOT, run_in_terminal

_ROUNDS = """
import itertools, sys
from beam_retrain.trainer.fit.callbacks import EpochLine, EvalResult
from beam_retrain.trainer.fit.schedule import FullBatch
schedule = FullBatch(epochs=30, patience=6, l2=30.0)
line = EpochLine(sys.stdout, schedule, clock=itertools.count(100.0, 3.5).__next__)
line.on_eval(349, EvalResult(6, 50, 0.001, 0.6, 0.8, 0.7, 0.75))
line.on_eval(399, EvalResult(7, 50, 0.001, 0.51234, 0.9, 0.6, 0.875))
line.finish(None)
"""


def test_a_terminal_has_one_line_for_all_rounds():
  first, second, last = run_in_terminal([sys.executable, "-c", _ROUNDS], NO_COLOR="1").split("\r\033[K")
  assert first.endswith(" epoch 6/30, validation accuracy 75.00%, 3.5 s")
  assert second.endswith(" epoch 7/30, validation accuracy 87.50%, 7.0 s")
  assert last.endswith("accuracy 87.50%; 7.0 s\r\n")


@pytest.mark.parametrize("where", ["epoch 7/30", "step 350/4000"])
def test_elsewhere_each_evaluation_has_a_line(where):
  times = iter([100.0, 103.5])
  stream = io.StringIO()
  schedule = schedule_of("--epochs=30" if where.startswith("epoch") else "--preset=retrain")
  line = EpochLine(stream, schedule, clock=lambda: next(times))
  line.on_eval(349, EvalResult(7, 50, 0.001, 0.51234, 0.9, 0.6, 0.875))
  line.finish(np.zeros(0))
  assert stream.getvalue() == (
    f"{where}: training loss 0.5123, accuracy 90.00%; validation loss 0.6000, accuracy 87.50%; 3.5 s\n"
  )


def run(bottlenecks_folder: Path, output: Path, *flags: str) -> int:
  return task.run([f"--input={bottlenecks_folder}", f"--output={output}", *flags])


def test_everything_promised_is_written(trained_model, bottlenecks_folder):
  names = {"saved_model", "retrained_labels.txt", "retrained_graph.pb", "head.npz", "metrics.json", "logs", "info.json"}
  assert {path.name for path in trained_model.iterdir()} == names | {
    *("labels.txt", "checkpoints", "trunk", "trained_on.bin", "COMPLETED", "config.toml")
  }
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
  assert {split: sum(counts.values()) for split, counts in metrics["label_counts"].items()} == {
    split: metrics[f"{split}_images"] for split in ("training", "validation", "testing")
  }
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


@pytest.mark.parametrize(("text", "count"), [("1500", 1500), ("0.5k", 512), ("8G", 8 << 30), ("2GiB", 2 << 30)])
def test_a_limit_of_memory(text, count):
  assert TrainRequest.parse(["--input=a", "--output=b", f"--memory_limit={text}"]).memory_limit == count


def test_a_killed_run_goes_on_and_ends_as_an_undisturbed_one(tmp_path, bottlenecks_folder, capsys):
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
  process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
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
  with pytest.raises(InputError, match="not finished: repeat the `beam-retrain train`"):
    read_info(str(killed), "train")

  assert run(bottlenecks_folder, killed, *flags, "--memory_limit=1K") == 0
  said = capsys.readouterr().out
  assert "they are kept in a temporary file" in said
  assert "resuming" in said
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
  assert "but --assert_accuracy_at_least is 1" in capsys.readouterr().err
  assert (tmp_path / "a" / "COMPLETED").exists()
  assert run(bottlenecks_folder, tmp_path / "b", *flags, "--assert_accuracy_at_least=0") == 0


@pytest.mark.parametrize(
  ("flags", "sentence"),
  [
    (["--rounds=3", "--preset=retrain"], "--epochs belongs to --preset lbfgs, not to --preset retrain: leave it out"),
    (["--learning_rate=1"], "--learning_rate belongs to --preset retrain, not to --preset lbfgs: leave it out"),
    (["--batch_size=9"], "--batch_size belongs to --preset retrain"),
    (["--preset=adam"], "argument --preset: invalid choice: 'adam'"),
    (["--how_many_training_steps=3"], "--training_steps belongs to --preset retrain"),
    (["--learning_rte=1"], "--learning_rte: unknown flag; the nearest flag is --learning_rate"),
    (["--seed=-1"], "argument --seed: -1 is not between 0 and 9223372036854775807"),
    (["--seed=9223372036854775808"], "argument --seed: 9223372036854775808 is not between 0"),
    (["--memory_limit=8X"], "argument --memory_limit: '8X' is not a size, such as 8G or 500M"),
    (["--learning_rate=0"], "argument --learning_rate: '0' is not a number above 0"),
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
  with pytest.raises(InputError, match="overlaps with --input"):
    run(bottlenecks_folder, bottlenecks_folder)
  with pytest.raises(InputError, match="give the folder that `beam-retrain bottlenecks` wrote"):
    run(trained_model, tmp_path / "model")
  assert (tmp_path / "letter.txt").read_text() == "mine"


def schedule_of(*flags: str) -> FullBatch | Schedule:
  return TrainRequest.parse(["--input=a", "--output=b", *flags]).make_schedule()


def test_old_flag_names_and_presets():
  retrain = schedule_of("--preset=retrain")
  assert (retrain.learning_rate, retrain.batch_size, retrain.steps) == (0.01, 100, 4000)
  old_names = schedule_of("--preset=retrain", "--how_many_training_steps=301", "--train_batch_size=7")
  assert (old_names.steps, old_names.batch_size) == (301, 7)
  assert schedule_of() == FullBatch(epochs=100, patience=6, l2=30.0)
  assert schedule_of("--epochs=4") == schedule_of("--rounds=4") == FullBatch(epochs=4, patience=6, l2=30.0)
  assert schedule_of("--l2=0", "--patience=2") == FullBatch(epochs=100, patience=2, l2=0.0)


def test_the_settings_of_gradient_descent_are_those_of_earlier_versions():
  assert schedule_of("--preset=retrain", "--training_steps=30").to_settings() == {
    **{"optimizer": "sgd", "learning_rate": 0.01, "is_decaying": False, "batch_size": 100, "is_balanced": True},
    **{"steps": 30, "first_look": 99, "look_every": 100, "is_measured_on_batch": False, "validation_images": None},
    **{"patience": None, "l2": 0.0},
  }
