"""`train --preset retrain` with retrain.py's flags: looks, graphs, curves and checkpoint, and what they may touch."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from beam_retrain.trainer.fit.callbacks import EvalResult
from beam_retrain.trainer.fit.head import Score, build_head
from beam_retrain.trainer.fit.tensorboard import Summaries
from beam_retrain.transforms.core.errors import InputError
from tests.helpers import ROOT
from tests.trainer.compat.retrain_suite import LOOKS, curves, everything_in, flags_below, like_retrain, plain_run, run

__all__ = ["like_retrain", "plain_run"]  # fixtures


def rounds_of(model: Path) -> list[dict]:
  return json.loads((model / "metrics.json").read_text())["rounds"]


def test_three_lines_at_every_look_as_retrain_prints_them(like_retrain):
  lines = [line for line in like_retrain.out.splitlines() if ": Step " in line]
  pattern = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{6})?: Step (\d+): (.*)")
  told = [pattern.fullmatch(line).groups() for line in lines]
  rounds = rounds_of(like_retrain.folder / "model")
  assert told == [
    (str(step), words)
    for step, one in zip(LOOKS, rounds, strict=True)
    for words in (
      f"Train accuracy = {one['training_accuracy'] * 100:.1f}%",
      f"Cross entropy = {one['training_loss']:f}",
      f"Validation accuracy = {one['validation_accuracy'] * 100:.1f}% (N=33)",
    )
  ]
  assert [one["steps"] for one in rounds] == [1, 10, 10, 10, 10, 4]
  assert "step 1/" not in like_retrain.out


def test_what_looks_and_how_often_changes_no_weight(like_retrain, plain_run):
  assert (like_retrain.folder / "model" / "head.npz").read_bytes() == (plain_run / "head.npz").read_bytes()


def test_a_look_is_taken_on_the_steps_own_batch_after_it(like_retrain):
  """The curve has the batch before its step, and the look has it after: better, by gradient descent, but the same."""
  curve = dict(curves(like_retrain.folder / "logs" / "train")["cross_entropy"])
  for step, one in zip(LOOKS, rounds_of(like_retrain.folder / "model"), strict=True):
    assert 0 < curve[step] - one["training_loss"] < 0.25 * curve[step]
    # Of 20 images, so no mean over the steps of the round, or over all images.
    assert one["training_accuracy"] * 20 == pytest.approx(round(one["training_accuracy"] * 20), abs=1e-9)


def test_a_look_draws_its_validation_images_anew(like_retrain, plain_run):
  drawn = [one["validation_loss"] for one in rounds_of(like_retrain.folder / "model")]
  assert len(set(drawn)) == len(drawn)
  at_the_end = json.loads((plain_run / "metrics.json").read_text())["validation_loss"]
  assert drawn[-1] != pytest.approx(at_the_end, rel=1e-6)
  assert drawn[-1] == pytest.approx(at_the_end, rel=0.5)


def test_all_validation_images_are_looked_at_without_a_number(tmp_path, bottlenecks_folder, plain_run):
  flags = flags_below(tmp_path)[:5]
  for name, more in (("default", []), ("all", ["--validation_batch_size=-1"])):
    assert run(bottlenecks_folder, tmp_path / name, *flags, *more) == 0
    last = rounds_of(tmp_path / name)[-1]
    metrics = json.loads((plain_run / "metrics.json").read_text())
    assert (last["validation_loss"], last["validation_accuracy"]) == (
      metrics["validation_loss"],
      metrics["validation_accuracy"],
    )


def test_tensorboards_curves_have_every_step_and_every_look(like_retrain):
  logs, rounds = like_retrain.folder / "logs", rounds_of(like_retrain.folder / "model")
  train, validation = curves(logs / "train"), curves(logs / "validation")
  assert set(train) == set(validation) == {"accuracy", "cross_entropy"}
  for tag in train:
    assert [step for step, _ in train[tag]] == list(range(45))
    name = {"accuracy": "accuracy", "cross_entropy": "loss"}[tag]
    assert validation[tag] == [
      (step, pytest.approx(one[f"validation_{name}"], rel=1e-6)) for step, one in zip(LOOKS, rounds, strict=True)
    ]
  # Nothing learned: ln 3. Then it learns.
  assert train["cross_entropy"][0][1] == pytest.approx(np.log(3), abs=0.05)
  assert train["cross_entropy"][-1][1] < 0.8 * train["cross_entropy"][0][1]
  assert not (like_retrain.folder / "model" / "logs").exists()


def test_without_a_place_of_their_own_the_curves_are_in_the_output(tmp_path, bottlenecks_folder):
  assert run(bottlenecks_folder, tmp_path / "model", *flags_below(tmp_path)[:5]) == 0
  assert len(curves(tmp_path / "model" / "logs" / "train")["accuracy"]) == 45


def test_only_event_files_of_an_earlier_run_are_removed(tmp_path):
  logs = tmp_path / "logs"
  foreign = [
    "events.out.tfevents.1.host",  # not in a folder of ours
    "train/notes.txt",
    "train/deeper/events.out.tfevents.1.host",
    "train/my.events.out.tfevents.1.host",
    "validation/events.out.tfevents.folder/letter.txt",
    "test/events.out.tfevents.1.host",
  ]
  for name in (*foreign, "train/events.out.tfevents.1.host", "validation/events.out.tfevents.2.beam_retrain"):
    (logs / name).parent.mkdir(parents=True, exist_ok=True)
    (logs / name).write_text("mine")
  (tmp_path / "elsewhere").write_text("mine")
  (logs / "train" / "events.out.tfevents.link").symlink_to(tmp_path / "elsewhere")

  Summaries(str(logs), is_every_step=True, resumes=False).finish(build_head(1, 2, seed=0))

  assert all((logs / name).read_text() == "mine" for name in foreign)
  assert (logs / "train" / "events.out.tfevents.link").read_text() == "mine"
  left = {path.name for name in ("train", "validation") for path in (logs / name).iterdir() if path.is_file()}
  ours = {name for name in left if re.fullmatch(r"events\.out\.tfevents\.\d{10}\.beam_retrain", name)}
  assert left - ours == {"notes.txt", "my.events.out.tfevents.1.host", "events.out.tfevents.link"}
  assert len(list((logs / "train").glob("events.out.tfevents.[0-9]*"))) == 1
  assert len(list((logs / "validation").glob("events.out.tfevents.[0-9]*"))) == 1

  before = everything_in(logs)
  head = build_head(1, 2, seed=0)
  resumed = Summaries(str(logs), is_every_step=True, resumes=True)
  resumed.on_step(3, Score(2.0, 1, 4), head)
  resumed.on_eval(3, EvalResult(1, 4, 0.01, 1.0, 0.5, 2.0, 0.75))
  resumed.finish(head)
  after = everything_in(logs)
  assert {name: after[name] for name in before} == before
  assert len(after) == len(before) + 2


def test_quiet(tmp_path, bottlenecks_folder, capsys):
  quiet = ["--logging_verbosity=WARN"]
  for name, flags in (("looks", flags_below(tmp_path)), ("rounds", flags_below(tmp_path)[:4])):
    assert run(bottlenecks_folder, tmp_path / name, *flags, *quiet) == 0
    first, result, following = capsys.readouterr().out.splitlines()
    assert "training, " in first
    assert result.startswith("Accuracy ")
    assert following.startswith("next: beam-retrain evaluate --model ")


def test_a_killed_run_goes_on_and_leaves_what_an_undisturbed_one_leaves(tmp_path, bottlenecks_folder):
  def flags(folder: Path) -> list[str]:
    steps = [flag for flag in flags_below(folder) if "how_many" not in flag and "frequency" not in flag]
    return [*steps, "--how_many_training_steps=2005", "--intermediate_store_frequency=1000"]

  killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
  command = [
    sys.executable,
    "-m",
    "beam_retrain.trainer.task",
    f"--input={bottlenecks_folder}",
    f"--output={killed}/model",
  ]
  process = subprocess.Popen([*command, *flags(killed)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
  # Killed before the first graph, of step 1000: to freeze takes a while.
  checkpoint = killed / "model" / "checkpoints" / "head.npz"
  while not checkpoint.exists():
    assert process.poll() is None, process.stdout.read()
    time.sleep(0.01)
  time.sleep(0.05)
  os.kill(process.pid, signal.SIGKILL)
  process.communicate()
  with np.load(checkpoint) as archive:
    steps = int(archive["steps"])
  assert 100 <= steps < 2005
  assert steps % 100 == 0
  assert not (killed / "model" / "COMPLETED").exists()

  assert run(bottlenecks_folder, killed / "model", *flags(killed)) == 0
  assert run(bottlenecks_folder, undisturbed / "model", *flags(undisturbed)) == 0
  for name in ("model/retrained_graph.pb", "model/metrics.json", "model/head.npz", "model/checkpoints/head.npz"):
    assert (killed / name).read_bytes() == (undisturbed / name).read_bytes(), name
  for name in ("made/graphs", "made/too"):
    assert everything_in(killed / name) == everything_in(undisturbed / name)
  for name in ("train", "validation"):
    both, once = curves(killed / "logs" / name), curves(undisturbed / "logs" / name)
    assert len(list((killed / "logs" / name).iterdir())) == 2
    # What was trained twice, between checkpoint and kill, is told twice, and the same.
    assert {tag: dict(points) for tag, points in both.items()} == {tag: dict(points) for tag, points in once.items()}
    assert all(set(points) == set(once[tag]) for tag, points in both.items())


@pytest.mark.parametrize(
  ("flags", "sentence"),
  [
    (["--eval_step_interval=0"], "--eval_step_interval: 0 is not at least 1"),
    (["--eval_step_interval=-10"], "--eval_step_interval: -10 is not at least 1"),
    (["--validation_batch_size=0"], "--validation_batch_size: 0 is not at least 1, or -1 for all"),
    (["--validation_batch_size=-2"], "--validation_batch_size: -2 is not at least 1"),
    (["--intermediate_store_frequency=-1"], "--intermediate_store_frequency: -1 is not at least 1, or 0 for never"),
    (["--intermediate_store_frequency=5"], "needs a folder for the graphs: add --intermediate_output_graphs_dir"),
    (["--intermediate_output_graphs_dir=a"], "needs the number of steps between two graphs, or 0 for none"),
    (["--logging_verbosity=LOUD"], "--logging_verbosity: invalid choice: 'LOUD'"),
    (["--preset=lbfgs", "--eval_step_interval=5"], "--eval_step_interval belongs to --preset retrain"),
    (["--preset=lbfgs", "--final_tensor_name=a"], "--final_tensor_name belongs to --preset retrain"),
    (["--summaries_dir="], "--summaries_dir '' is not a path on a local disk"),
    (["--summaries_dir=gs://bucket/logs"], "--summaries_dir gs://bucket/logs is not a path on a local disk"),
    (["--summaries_dir=FILE"], "--summaries_dir .*/file cannot be written: .*/file is not a folder"),
    (["--summaries_dir=FILE/logs"], "--summaries_dir .*/file/logs cannot be written: .*/file is not a folder"),
    (["--summaries_dir=ODD"], "--summaries_dir .*/odd cannot be written: .*/odd/validation is not a folder"),
    (["--summaries_dir=/proc/logs"], "--summaries_dir /proc/logs cannot be written: /proc: "),
    (
      ["--intermediate_output_graphs_dir=FILE/x", "--intermediate_store_frequency=5"],
      "--intermediate_output_graphs_dir .*/file/x cannot be written: .*/file is not a folder",
    ),
    (["--checkpoint_path=FILE/x"], "--checkpoint_path .*/file/x cannot be written: .*/file is not a folder"),
    (["--checkpoint_path=FOLDER"], "--checkpoint_path .* is a folder: give a prefix for the files' names, such as"),
    (["--checkpoint_path=FOLDER/new/"], "--checkpoint_path .* is a folder"),
    (["--checkpoint_path=/proc/x"], "--checkpoint_path /proc/x cannot be written: /proc: "),
    (["--checkpoint_path="], "--checkpoint_path '' "),
    *(
      ([f"--final_tensor_name={name}"], "--final_tensor_name .* is not a valid name of a TensorFlow operation")
      for name in ("", "a b", "_a", "-a", "/a", "a/", "a:0", "a>", "a>>b", "a\\b", "ä", "^a", "a\n")
    ),
    *(
      ([f"--final_tensor_name={name}"], "--final_tensor_name .* is reserved: the graph's input is Placeholder")
      for name in ("Placeholder", "placeholder", "Placeholder/x", "retrained", "Retrained/a", "retrained/softmax")
    ),
  ],
)
def test_flags_that_cannot_be_used_are_told_before_the_training(flags, sentence, tmp_path, bottlenecks_folder):
  (tmp_path / "file").write_text("mine")
  (tmp_path / "folder").mkdir()
  (tmp_path / "odd").mkdir()
  (tmp_path / "odd" / "validation").write_text("mine")
  for word in ("FILE", "FOLDER", "ODD"):
    flags = [flag.replace(word, str(tmp_path / word.lower())) for flag in flags]
  before = everything_in(tmp_path)
  with pytest.raises(InputError, match=sentence) as raised:
    run(bottlenecks_folder, tmp_path / "model", "--preset=retrain", *flags)
  assert "\n" not in str(raised.value)
  assert everything_in(tmp_path) == before


def test_places_of_their_own_are_part_of_the_request(tmp_path, bottlenecks_folder):
  """A killed run goes on only if what it has written by then is where it is now wanted."""
  requests = []
  for name in ("a", "b"):
    assert (
      run(bottlenecks_folder, tmp_path / "model", *flags_below(tmp_path)[:4], f"--summaries_dir={tmp_path}/{name}") == 0
    )
    requests.append(json.loads((tmp_path / "model" / "info.json").read_text())["request"])
  assert requests[0] != requests[1]
