"""retrain.py's command line, from images to what it left, with a trunk that sees 8 x 8 grey values."""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from beam_retrain.pipelines import cli, evaluate
from beam_retrain.pipelines.compat import label_image
from beam_retrain.pipelines.compat.retrain import find_folders, make_parser, run
from beam_retrain.pipelines.compat.retrain_stages import Stages, find_own_texts
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.log_file import LOG_FILE
from beam_retrain.transforms.core.records.splits import SplitPercentages
from tests.helpers import ROOT, file_contents

_STAGES = ("bottlenecks", "train", "evaluate")
_NAMES = ("zebra", "ant", "=cmd", "mule", "yak", "bee", "cow", "dog", "eel", "fox")
_LINE = re.compile(r"Final test accuracy = (\d+\.\d)% \(N=(\d+)\)")


class Finished(NamedTuple):
  """A finished run.

  Attributes:
    folder: the current folder of the run; everything is in it.
    arguments: the command's.
    shown: what it printed.
  """

  folder: Path
  arguments: list[str]
  shown: str

  @property
  def work(self) -> Path:
    return self.folder / "bottlenecks" / "beam_retrain"


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
  before = os.getcwd()
  os.chdir(folder)
  try:
    yield
  finally:
    os.chdir(before)


def retrain(folder: Path, arguments: list[str], capsys) -> str:
  """Runs the command in a folder; returns what it printed."""
  with inside(folder):
    assert cli.main(["retrain", *arguments]) == 0, capsys.readouterr().err
  return capsys.readouterr().out


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, draw_digits) -> Path:
  """300 digits in `Big-Odd` and `even_2`."""
  folder = tmp_path_factory.mktemp("retrain")
  draw_digits(
    folder / "mnist_jpg" / "training",
    300,
    lambda number, name: f"{'Big-Odd' if _NAMES.index(name) % 2 else 'even_2'}/{number}.png",
  )
  return folder


@pytest.fixture(scope="module")
def trunk(tmp_path_factory) -> Path:
  import tensorflow as tf

  from beam_retrain.transforms.core.models.saved_model import freeze, save_trunk

  folder = tmp_path_factory.mktemp("trunk") / "grey"
  # float32 [N, 16, 16, 3] -> float32 [N, 64].
  frozen = freeze(lambda images: tf.reshape(tf.nn.avg_pool2d(images[..., :1], 2, 2, "SAME"), [-1, 64]), 16)
  save_trunk(frozen, str(folder))
  return folder


@pytest.fixture(scope="module")
def once(pictures, trunk, tmp_path_factory) -> tuple[Finished, Path]:
  """The article's command line, and what else leaves something; and a copy of its folder."""
  arguments = [
    *("--bottleneck_dir=bottlenecks/", "--how_many_training_steps=500", "--model_dir=inception/"),
    *("--summaries_dir=training_summaries/basic", "--output_graph=retrained_graph.pb"),
    *("--output_labels=retrained_labels.txt", "--image_dir=mnist_jpg/training"),
    *(f"--tfhub_module={trunk}", "--checkpoint_path=checkpoints/head", "--print_misclassified_test_images"),
    *("--intermediate_store_frequency=200", "--intermediate_output_graphs_dir=intermediate"),
    *("--saved_model_dir=models/1", "--learning_rate=0.05", "--eval_step_interval=100"),
  ]
  shown, said = io.StringIO(), io.StringIO()
  with inside(pictures), contextlib.redirect_stdout(shown), contextlib.redirect_stderr(said):
    assert cli.main(["retrain", *arguments]) == 0, said.getvalue()
  assert said.getvalue().startswith("WARNING: --model_dir inception/ does nothing")
  copy = tmp_path_factory.mktemp("copy") / "of_finished"
  shutil.copytree(pictures, copy)
  return Finished(pictures, arguments, shown.getvalue()), copy


@pytest.fixture
def finished(once) -> Finished:
  """A finished run, as it was left."""
  run, copy = once
  shutil.rmtree(run.folder)
  shutil.copytree(copy, run.folder)
  return run


def predictions(folder: Path) -> list[dict[str, str]]:
  with open(folder / "predictions.csv", newline="") as file:
    return list(csv.DictReader(file))


def completed(work: Path) -> dict[str, int]:
  return {stage: (work / stage / "COMPLETED").stat().st_mtime_ns for stage in _STAGES}


def test_it_leaves_what_the_script_left(finished):
  import tensorflow as tf

  folder = finished.folder
  assert (folder / "retrained_labels.txt").read_text() == "big odd\neven 2\n"
  graph = tf.compat.v1.GraphDef.FromString((folder / "retrained_graph.pb").read_bytes())
  assert {"Placeholder", "final_result"} <= {node.name for node in graph.node}
  assert sorted(path.name for path in (folder / "intermediate").iterdir()) == [
    "intermediate_200.pb",
    "intermediate_400.pb",
  ]
  weights = tf.train.load_checkpoint(str(folder / "checkpoints" / "head"))
  assert weights.get_tensor("final_retrain_ops/weights/final_weights").shape == (64, 2)
  for split in ("train", "validation"):
    assert list((folder / "training_summaries" / "basic" / split).glob("events.out.tfevents.*"))
  image = next((folder / "mnist_jpg" / "training" / "even_2").iterdir()).read_bytes()
  model = tf.saved_model.load(str(folder / "models" / "1"))
  said = model.signatures["serving_default"](key=tf.constant(["x"]), image_bytes=tf.constant([image]))
  assert said["label"].numpy()[0] in (b"big odd", b"even 2")
  assert not list(folder.rglob("*.lock"))


def test_it_says_what_the_script_said(finished):
  steps = [int(step) for step in re.findall(r"Step (\d+): Validation accuracy = \d+\.\d% \(N=100\)", finished.shown)]
  assert steps == [0, 100, 200, 300, 400, 499]
  assert len(re.findall(r"Step \d+: Train accuracy = \d+\.\d%", finished.shown)) == 6
  rows = predictions(finished.work / "evaluate")
  wrong = [row for row in rows if row["actual_digit"] != row["predicted_digit"]]
  end = finished.shown[finished.shown.index("Final test") :].splitlines()
  assert end[0] == f"Final test accuracy = {100 * (1 - len(wrong) / len(rows)):.1f}% (N={len(rows)})"
  assert 20 <= len(rows) <= 45
  assert end[1] == "=== MISCLASSIFIED TEST IMAGES ==="
  assert end[2:] == [
    "%70s  %s" % (f"mnist_jpg/training/{row['file_name']}", row["predicted_digit"])  # noqa: UP031 - as there
    for row in wrong
  ]
  assert 1 <= len(wrong) <= len(rows) // 3


def test_label_image_reads_what_it_left(finished, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  rows = predictions(finished.work / "evaluate")
  image = finished.folder / "mnist_jpg" / "training" / rows[0]["file_name"]
  graph = [f"--graph={finished.folder / 'retrained_graph.pb'}", f"--labels={finished.folder / 'retrained_labels.txt'}"]
  names = ["--input_layer=Placeholder", "--output_layer=final_result"]
  assert label_image.run([*graph, *names, f"--image={image}"]) == 0
  assert rows[0]["predicted_digit"] in (tmp_path / "digit_prediction_file.csv").read_text().split(",")


def test_the_model_is_evaluated_on_the_same_folder(finished, tmp_path):
  arguments = [f"--model={finished.work / 'train'}", f"--input={finished.folder / 'mnist_jpg' / 'training'}"]
  assert evaluate.run([*arguments, "--split=testing", f"--output={tmp_path / 'out'}"]) == 0
  again, before = predictions(tmp_path / "out"), predictions(finished.work / "evaluate")
  for name in ("file_name", "actual_digit", "predicted_digit"):
    assert [row[name] for row in again] == [row[name] for row in before]


def test_what_is_unchanged_is_kept_and_ends_with_the_same_lines(finished, capsys):
  before = completed(finished.work)
  (finished.folder / "retrained_graph.pb").unlink()
  shown = retrain(finished.folder, finished.arguments, capsys)
  for stage in _STAGES:
    assert f"{stage}: finished and unchanged, kept\n" in shown
  assert completed(finished.work) == before
  assert shown[shown.index("the graph is in") :] == finished.shown[finished.shown.index("the graph is in") :]
  assert (finished.folder / "retrained_graph.pb").exists()


def test_a_drawn_test_and_fewer_words(finished, capsys):
  draw = [*finished.arguments, "--test_batch_size=1000"]
  shown = retrain(finished.folder, draw, capsys)
  assert "evaluate: finished and unchanged, kept" in shown
  (line,) = _LINE.findall(shown)
  assert line[1] == "1000"
  wrong = shown[shown.index("=== MISCLASSIFIED") :].splitlines()[1:]
  assert line[0] == f"{100 - len(wrong) / 10:.1f}"
  assert len(set(wrong)) < len(wrong)  # drawn with replacement
  assert retrain(finished.folder, [*draw, "--logging_verbosity=WARN"], capsys) == ""


def test_what_was_overwritten_since_is_trained_again(finished, capsys):
  index = finished.folder / "checkpoints" / "head.index"
  status, changed = index.stat(), bytes([index.read_bytes()[0] ^ 1]) + index.read_bytes()[1:]
  index.write_bytes(changed)
  os.utime(index, ns=(status.st_atime_ns, status.st_mtime_ns))  # of the same size and time: as a disk damages it
  shutil.rmtree(finished.folder / "models")
  before = completed(finished.work)
  shown = retrain(finished.folder, finished.arguments, capsys)
  assert "bottlenecks: finished and unchanged, kept" in shown
  assert "evaluate: finished and unchanged, kept" in shown
  after = completed(finished.work)
  assert after["train"] > before["train"]
  assert index.read_bytes() != changed
  assert (finished.folder / "models" / "1" / "saved_model.pb").exists()


def test_a_damaged_stage_is_mended_and_its_saved_model_replaced(finished, capsys):
  (finished.work / "train" / "saved_model" / "saved_model.pb").write_bytes(b"")
  retrain(finished.folder, finished.arguments, capsys)
  assert file_contents(finished.folder / "models" / "1") == file_contents(finished.work / "train" / "saved_model")
  assert "train: finished and unchanged, kept" in retrain(finished.folder, finished.arguments, capsys)


def test_bottlenecks_without_a_readable_info_are_made_again(finished, capsys):
  info = finished.work / "bottlenecks" / "info.json"
  info.write_bytes(b"")
  assert "now in bottlenecks/beam_retrain/bottlenecks" in retrain(finished.folder, finished.arguments, capsys)
  assert json.loads(info.read_text())["stage"] == "bottlenecks"


def test_a_saved_model_of_another_training_is_refused_before_any_work(finished, capsys):
  before = completed(finished.work)
  with inside(finished.folder), pytest.raises(InputError, match="--saved_model_dir models/1 is not empty"):
    run([*finished.arguments, "--how_many_training_steps=10"])
  (finished.folder / "models" / "1" / "fingerprint.pb").write_bytes(b"of another one")
  with inside(finished.folder), pytest.raises(InputError, match="--saved_model_dir models/1 is not empty"):
    run(finished.arguments)
  assert completed(finished.work) == before


def test_of_images_that_were_added_only_those_run_through_the_trunk(finished, capsys):
  pictures = finished.folder / "mnist_jpg" / "training"
  shutil.copy(pictures / "even_2" / "0.png", pictures / "even_2" / "again.png")
  (pictures / "even_2" / "new.png").write_bytes((pictures / "Big-Odd" / "1.png").read_bytes() + b"other bytes")
  (pictures / "even_2" / "empty.jpg").write_bytes(b"")
  arguments = [*finished.arguments, "--saved_model_dir=models/2", "--how_many_training_steps=10"]
  before = completed(finished.work)
  with inside(finished.folder):
    assert run(arguments) == 3
  assert "1 EMPTY" in capsys.readouterr().err
  assert completed(finished.work) == before  # the old ones are there as they were

  shown = retrain(finished.folder, [*arguments, "--max_bad_fraction=0.01"], capsys)
  assert "kept" not in shown
  assert "bottlenecks: now in bottlenecks/beam_retrain/bottlenecks, replacing the earlier ones" in shown
  stats = json.loads((finished.work / "bottlenecks" / "stats.json").read_text())
  assert (stats["outputs"], stats["quarantined"]) == (302, 1)
  assert stats["bottlenecks"] == {"reused": 301, "computed": 1}
  assert "EMPTY" in (finished.work / "bottlenecks" / "quarantine.csv").read_text()
  assert sorted(os.listdir(finished.work)) == [
    LOG_FILE,
    "bottlenecks",
    "config.toml",
    "evaluate",
    "retrain.json",
    "train",
  ]
  assert "bottlenecks: finished and unchanged, kept" in retrain(finished.folder, arguments, capsys)


def test_a_killed_run_goes_on(finished, capsys):
  shutil.rmtree(finished.folder / "bottlenecks")
  shutil.rmtree(finished.folder / "models")
  with subprocess.Popen(
    [sys.executable, "-m", "beam_retrain.pipelines.cli", "retrain", *finished.arguments],
    cwd=finished.folder,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  ) as process:
    while not (finished.work / "bottlenecks" / "COMPLETED").exists():
      assert process.poll() is None
    process.kill()
  assert not (finished.work / "evaluate").exists()
  shown = retrain(finished.folder, finished.arguments, capsys)
  assert "bottlenecks: finished and unchanged, kept" in shown
  assert shown[shown.index("Final test") :] == finished.shown[finished.shown.index("Final test") :]


@pytest.mark.parametrize("killed_after", ["finishing the new ones", "moving the old ones away", "moving the new ones"])
def test_a_kill_while_bottlenecks_are_replaced_loses_nothing(killed_after, finished, capsys):
  work = finished.work
  now, new, old = (work / f"bottlenecks{end}" for end in ("", ".next", ".old"))
  states = json.loads((work / "retrain.json").read_text())
  current = states["bottlenecks"]
  shutil.copytree(now, new)
  (now / "old").write_text("")
  states.update({"bottlenecks": "of older images", "bottlenecks.next": current})
  if killed_after != "finishing the new ones":
    states["bottlenecks.old"] = "to be deleted"
    now.rename(old)
  if killed_after == "moving the new ones":
    new.rename(now)
    states["bottlenecks"] = current
  (work / "retrain.json").write_text(json.dumps(states))
  assert "bottlenecks: finished and unchanged, kept" in retrain(finished.folder, finished.arguments, capsys)
  assert not (now / "old").exists()
  assert sorted(os.listdir(work)) == [LOG_FILE, "bottlenecks", "config.toml", "evaluate", "retrain.json", "train"]


@pytest.mark.parametrize("name", ["bottlenecks", "bottlenecks.next", "bottlenecks.old", "train", "evaluate"])
def test_folders_of_the_user_are_refused_before_any_work_and_stay(name, pictures, trunk, tmp_path, capsys):
  (tmp_path / name).mkdir()
  (tmp_path / name / "mine.txt").write_text("precious")
  outputs = [f"--{flag}={tmp_path / flag}" for flag in ("output_graph", "output_labels", "summaries_dir")]
  outputs += [f"--checkpoint_path={tmp_path / 'head'}", f"--work_dir={tmp_path}", f"--bottleneck_dir={tmp_path}"]
  image_dir = pictures / "mnist_jpg" / "training"
  assert cli.main(["retrain", f"--image_dir={image_dir}", f"--tfhub_module={trunk}", *outputs]) == 2
  shown, said = capsys.readouterr()
  assert re.search(rf"{re.escape(str(tmp_path / name))}( is not empty and)? was not written by .* --work_dir\.\n", said)
  assert ": into " not in shown
  assert (tmp_path / name / "mine.txt").read_text() == "precious"


def test_what_the_script_cached_is_imported_and_the_split_is_the_scripts(finished, trunk, capsys):
  cache = finished.folder / "bottlenecks" / "even_2"
  cache.mkdir()
  name = str(trunk).replace("/", "~")
  for number in (0, 2):
    assert (finished.folder / "mnist_jpg" / "training" / "even_2" / f"{number}.png").exists()
    (cache / f"{number}.png_{name}.txt").write_text(",".join(map(str, range(64))))
    (cache / f"{number}.png_https~tfhub.dev~other~1.txt").write_text("1,2,3")
  (cache / f"4.png_{name}.txt").write_text("damaged")
  distort = ["--flip_left_right", "--random_brightness=20", "--distortion_copies=2"]
  arguments = [*finished.arguments, "--saved_model_dir=", "--how_many_training_steps=10", "--split_hash=legacy"]
  shown = retrain(finished.folder, [*arguments, *distort], capsys)
  assert "300 of 300 bottlenecks reused" in shown
  assert "imported 2 text bottlenecks" in shown
  assert "1 damaged, to be computed" in shown

  root = finished.folder / "mnist_jpg" / "training"
  keys = sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
  split = SplitPercentages(10, 10, "mnist_jpg/training")
  expected = [key for key in keys if split.split_of(key) == "testing"]
  assert sorted(row["file_name"] for row in predictions(finished.work / "evaluate")) == expected
  distorted = json.loads((finished.work / "bottlenecks" / "stats.json").read_text())["distorted"]
  of_training = sum(split.split_of(key) == "training" for key in keys)
  assert (distorted["copies"], distorted["records"]) == (2, 2 * of_training)


def is_reusable(stages: Stages) -> bool:
  """Whether new bottlenecks may be taken from the finished ones."""
  state = f"{stages._bottlenecks_state} {stages._trunk_state}"
  return stages._may_reuse() and stages.chain._is_of_trunk(stages._bottlenecks(), state)


def test_what_is_of_another_trunk_is_not_taken(finished, trunk, tmp_path):
  shutil.copytree(trunk, tmp_path / "other")
  cache = finished.folder / "bottlenecks" / "even_2"
  cache.mkdir()
  texts = cache / f"0.png_{str(trunk).replace('/', '~')}.txt"
  with inside(finished.folder):
    for text, module, expected in (
      (None, trunk, (False, True)),
      (texts, trunk, (True, True)),
      (texts, tmp_path / "other", (False, False)),
      (cache / "0.png.txt", tmp_path / "other", (True, False)),
    ):
      if text:
        text.write_text("1,2")
      flags = make_parser().parse_args([*finished.arguments, f"--tfhub_module={module}"])
      folders = find_folders(flags.image_dir)
      assert (find_own_texts(flags, folders) is not None, is_reusable(Stages(flags, folders, [], ""))) == expected
      if text:
        text.unlink()


def test_bottlenecks_that_are_partly_the_scripts_are_not_taken_without_it(finished, trunk):
  flags = make_parser().parse_args(finished.arguments)
  with inside(finished.folder):
    folders = find_folders(flags.image_dir)
    stages = Stages(flags, folders, [], "")
    assert stages.is_trained
    assert is_reusable(stages)
    info_path = finished.work / "bottlenecks" / "info.json"
    info = json.loads(info_path.read_text())
    info["settings"]["bottleneck_dir"] = {"path": "cache"}
    info_path.write_text(json.dumps(info))
    assert not is_reusable(stages)
