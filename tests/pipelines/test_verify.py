"""`verify --model`: a real model of real digits, whole, and with one of its paths broken at a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from beam_retrain.pipelines.cli import main
from beam_retrain.trainer import task
from beam_retrain.transforms.core.models.head import decode_head, encode_head
from beam_retrain.transforms.core.run.output_folder import complete_folder

IMAGES = 60


@pytest.fixture(scope="module")
def lite_model(made, tmp_path_factory) -> Path:
  """The model of `made`, with its two TensorFlow Lite files inside."""
  folder = tmp_path_factory.mktemp("lite") / "model"
  files = [f"--tflite_output_file={folder}/model.tflite", f"--tflite_int8_output_file={folder}/int8.tflite"]
  assert task.run([f"--input={made.bottlenecks}", f"--output={folder}", *files]) == 0
  shutil.rmtree(folder / "trunk")  # as before there were kinds: the batch path is the exported model's
  complete_folder(str(folder))
  return folder


@pytest.fixture(scope="module")
def other_model(made, tmp_path_factory) -> Path:
  """Trained on the same bottlenecks, hardly."""
  folder = tmp_path_factory.mktemp("other") / "model"
  flags = ["--preset=retrain", "--training_steps=30", f"--tflite_output_file={folder}/model.tflite"]
  assert task.run([f"--input={made.bottlenecks}", f"--output={folder}", *flags]) == 0
  return folder


@pytest.fixture
def broken(lite_model, tmp_path) -> Path:
  """A copy to break."""
  return Path(shutil.copytree(lite_model, tmp_path / "broken"))


def verify(model: Path, data: Path, *more: str) -> int:
  complete_folder(str(model))  # what a test has changed, as if it had been written so
  images = [] if "--all" in more else [f"--images={IMAGES}"]
  more = more if (model / "trunk").exists() else (*EXACT, *more)
  return main(["verify", f"--model={model}", f"--input={data}", *images, *more])


EXACT = ("--precision=float32", "--runtime=tensorflow")


def table(capsys) -> tuple[dict[str, tuple[int, float, int]], list[str]]:
  """Returns path -> (images, largest difference, other labels), and what was said on standard error.

  A busy machine takes long enough for lines of progress, too: these are left out.
  """
  out, err = capsys.readouterr()
  rows = {}
  for line in out.splitlines()[3:]:
    name, images, largest, _, others = line.rsplit(maxsplit=4)
    rows[name.strip()] = (int(images.replace(",", "")), float(largest), int(others))
  return rows, [line for line in err.splitlines() if not line.startswith("verify: ")]


def test_all_ways_agree(lite_model, made, capsys):
  assert verify(lite_model, made.data) == 0
  rows, errors = table(capsys)
  exact = ["serving signature", "bottleneck, then head.npz", "retrained_graph.pb", "model.tflite"]
  assert list(rows) == [*exact, "int8.tflite (int8)"]
  assert all(images == IMAGES for images, _, _ in rows.values())
  assert all(rows[name][1] < 1e-4 and rows[name][2] == 0 for name in exact)
  assert 0 < rows["int8.tflite (int8)"][1] < 0.5
  assert errors == []


@pytest.fixture
def of_kind(made, tmp_path) -> Path:
  """A copy of the model of `made`, with the prepared trunk of its bottlenecks, to break."""
  return Path(shutil.copytree(made.model, tmp_path / "of_kind"))


def test_the_model_s_own_kind_is_held_against_the_exported_model(of_kind, made, capsys):
  assert verify(of_kind, made.data) == 0
  out = capsys.readouterr().out
  trunk = json.loads((of_kind / "info.json").read_text())["trunk"]
  assert f"{IMAGES} images, compared with the exported model; differences of scores, 0..1" in out
  batch = next(line for line in out.splitlines() if line.startswith("batch path"))
  assert batch.startswith(
    f"batch path ({trunk['precision']} by {'Open' if trunk['runtime'] == 'openvino' else 'Tensor'}"
  )
  assert float(batch.split()[-3]) < 0.05
  # Asked for float32, the batch path is the exported model's own.
  assert verify(of_kind, made.data, *EXACT) == 0


def test_a_head_that_is_not_the_exported_model_s_is_seen_in_the_batch_path(of_kind, other_model, made, capsys):
  break_head(of_kind, other_model)
  assert verify(of_kind, made.data) == 1
  assert any("beam-retrain: batch path (" in line for line in capsys.readouterr().err.splitlines())


def test_a_trunk_in_bfloat16_has_a_bound_of_its_own(of_kind, made, capsys):
  if json.loads((of_kind / "info.json").read_text())["trunk"]["precision"] != "bfloat16":
    pytest.skip("the digits' trunk does not run in bfloat16 here")
  assert verify(of_kind, made.data, "--bfloat16_bound=0") == 1
  out, err = capsys.readouterr()
  assert "\nbatch path (bfloat16 by " in out
  (error,) = err.splitlines()
  assert "exported model '" in error.replace('"', "'")


def test_every_testing_image(lite_model, made, capsys):
  """The float file against the SavedModel, on all of them."""
  assert verify(lite_model, made.data, "--all", "--split=testing") == 0
  rows, _ = table(capsys)
  count = json.loads((made.bottlenecks / "stats.json").read_text())["splits"]["testing"]["outputs"]
  assert rows["model.tflite"][0] == count > 300
  assert rows["model.tflite"][1] < 1e-5
  assert rows["model.tflite"][2] == 0


def break_head(folder: Path, other: Path) -> None:
  head = decode_head((folder / "head.npz").read_bytes(), "head.npz")
  (folder / "head.npz").write_bytes(encode_head(head._replace(bias=head.bias + np.eye(10, dtype=np.float32)[3])))


def break_graph(folder: Path, other: Path) -> None:
  shutil.copy(other / "retrained_graph.pb", folder)


def break_lite(folder: Path, other: Path) -> None:
  shutil.copy(other / "model.tflite", folder)


def break_signature(folder: Path, other: Path) -> None:
  """A model whose signature looks at the image upside down, and whose functions do not."""
  exported = tf.saved_model.load(str(folder / "saved_model"))
  module = tf.Module()
  for name in ("preprocess", "embed", "score_images", "score_bottlenecks"):
    setattr(module, name, getattr(exported, name))
  spec = tf.TensorSpec([None], tf.string)

  @tf.function(input_signature=[spec, spec])
  def serve(key: tf.Tensor, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
    images = tf.image.flip_up_down(exported.preprocess(image_bytes))
    return {"key": key, "scores": exported.score_images(images)["scores"]}

  tf.saved_model.save(module, str(folder / "turned"), signatures={"serving_default": serve})
  shutil.rmtree(folder / "saved_model")
  (folder / "turned").rename(folder / "saved_model")


@pytest.mark.parametrize(
  ("break_it", "name"),
  [
    (break_head, "bottleneck, then head.npz"),
    (break_graph, "retrained_graph.pb"),
    (break_lite, "model.tflite"),
    (break_signature, "serving signature"),
  ],
)
def test_a_broken_way_is_named_with_its_first_image(break_it, name, broken, other_model, made, capsys):
  break_it(broken, other_model)
  assert verify(broken, made.data) == 1
  rows, (error,) = table(capsys)
  assert rows[name][1] > 0.01
  assert all(row[1] < 1e-4 for other, row in rows.items() if other not in (name, "int8.tflite (int8)"))
  assert f"beam-retrain: {name} differs on" in error
  key = error.split("the first is ")[1].split(":")[0]
  assert (made.data / key).is_file()
  # Both answers, and where they part.
  assert "exported model '" in error.replace('"', "'")
  assert error.count(name) == 2
  assert "their scores of" in error


def test_the_bound_is_the_users(broken, other_model, made, capsys):
  break_graph(broken, other_model)
  assert verify(broken, made.data, "--bound=1") == 0
  row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("retrained_graph.pb"))
  assert float(row.split()[2]) > 0.001
  assert row.split()[3] == "1"


def test_an_int8_file_may_differ_on_some_labels(broken, lite_model, other_model, made, capsys):
  labels = json.loads((lite_model / "info.json").read_text())["labels"]
  assert len(labels) == 10
  # A quantised file of the other model, in the place of ours.
  flags = ["--preset=retrain", "--training_steps=1", f"--tflite_int8_output_file={broken / 'int8.tflite'}"]
  assert task.run([f"--input={made.bottlenecks}", f"--output={broken.parent / 'untrained'}", *flags]) == 0
  capsys.readouterr()
  assert verify(broken, made.data) == 1
  rows, (error,) = table(capsys)
  assert rows["int8.tflite (int8)"][2] > 0.05 * IMAGES
  assert "int8.tflite (int8) gives another label to" in error
  assert "--int8_bound 0.05 allows; the first is " in error
  assert verify(broken, made.data, "--int8_bound=1") == 0


def test_lite_files_by_name_or_gone(broken, lite_model, made, capsys):
  (broken / "int8.tflite").unlink()
  assert verify(broken, made.data) == 0
  rows, (note,) = table(capsys)
  assert list(rows)[3:] == ["model.tflite"]
  assert note.endswith("int8.tflite no longer exists: skipped")
  assert verify(broken, made.data, f"--tflite={lite_model / 'int8.tflite'}") == 0
  rows, _ = table(capsys)
  assert list(rows)[3:] == ["int8.tflite (int8)"]


def test_a_bad_image_is_told_and_costs_the_others_nothing(lite_model, made, tmp_path, capsys):
  data = Path(shutil.copytree(made.data, tmp_path / "data"))
  (data / "ant" / "empty.png").write_bytes(b"")
  assert verify(lite_model, data, "--all") == 3
  rows, errors = table(capsys)
  assert rows["serving signature"][0] == 1797
  assert errors == [
    "ant/empty.png: EMPTY: the file has 0 bytes",
    "beam-retrain: 1 of 1798 images could not be used; see above; to accept this, give --max_bad_fraction=0.001.",
  ]
  assert verify(lite_model, data, "--all", "--max_bad_fraction=0.01") == 0


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["--model=MODEL"], "--input is missing"),
    (["--input=DATA"], "--model is missing"),
    (["--model=MODEL", "--input=/nowhere"], "/nowhere does not exist"),
    (["--model=/nowhere", "--input=DATA"], "/nowhere does not exist"),
    (["--model=BOTTLENECKS", "--input=DATA"], "was written by `beam-retrain bottlenecks`"),
    (["--model=MODEL", "--input=DATA", "--all", "--images=3"], "--all cannot be combined with --images"),
    (["--model=MODEL", "--input=DATA", "--images=0"], "0 is not at least 1"),
    (["--model=MODEL", "--input=DATA", "--bound=2"], "2 is not between 0 and 1"),
    (["--model=MODEL", "--input=DATA", "--tflite=/nowhere.tflite"], "/nowhere.tflite does not exist"),
    (["--model=MODEL", "--input=DATA", "--tflite=MODEL/head.npz"], "cannot be loaded as a TensorFlow Lite file"),
    (["--model=MODEL", "--same", "A", "B"], "--same cannot be combined with --model: leave"),
    (["--modle=MODEL"], "the nearest flag is --model"),
  ],
)
def test_what_cannot_be_verified(flags, words, lite_model, made, capsys):
  places = {"MODEL": lite_model, "DATA": made.data, "BOTTLENECKS": made.bottlenecks}
  for name, place in places.items():
    flags = [flag.replace(f"={name}", f"={place}") for flag in flags]
  assert main(["verify", *flags]) == 2
  (error,) = capsys.readouterr().err.splitlines()
  assert words in error


@pytest.mark.parametrize(
  ("name", "data", "words"),
  [
    ("head.npz", b"", "head.npz is damaged"),
    ("head.npz", None, "head.npz does not exist"),
    ("retrained_graph.pb", b"\xff\xff", "is not a frozen graph"),
    ("retrained_graph.pb", b"", "cannot be run from Placeholder to final_result"),
    ("retrained_graph.pb", None, "retrained_graph.pb does not exist"),
  ],
)
def test_a_part_that_cannot_be_used(name, data, words, broken, made, capsys):
  (broken / name).unlink()
  if data is not None:
    (broken / name).write_bytes(data)
  assert verify(broken, made.data) == 2
  (error,) = capsys.readouterr().err.splitlines()
  assert words in error


def test_labels_that_the_model_does_not_know(lite_model, small_images, capsys):
  assert verify(lite_model, small_images) == 2
  assert "labels differ" in capsys.readouterr().err
