"""Class folders read as retrain.py read them, by every command that reads some."""

import contextlib
import csv
import io
import json
from pathlib import Path

import pytest

from beam_retrain.pipelines import bottlenecks, evaluate, verify
from beam_retrain.trainer import task
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.sources.base import SourceOptions
from beam_retrain.transforms.sources.find import find_source
from beam_retrain.transforms.sources.folders import (
  FolderSource,
  check_labels_differ,
  count_files,
  find_class_folders,
  is_retrain_image,
  label_of_folder,
  list_folder,
)


def lay_out(root: Path, *names: str) -> str:
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(b"1234")
  return str(root)


@pytest.mark.parametrize(
  ("name", "label"),
  [
    ("daisy", "daisy"),
    ("Oxford_102--Rose", "oxford 102 rose"),
    ("__private", " private"),
    ("Käfer", "k fer"),
    ("3", "3"),
    ("日本", " "),
  ],
)
def test_labels_are_lower_case_words(name, label):
  assert label_of_folder(name) == label


def test_images_are_told_by_their_names():
  assert all(map(is_retrain_image, ("a.jpg", "a.JPEG", "b.c.Png")))
  assert not any(map(is_retrain_image, ("a.gif", "jpg", "a.jpg.txt", "apng")))


def test_two_folders_of_one_label_are_both_named():
  check_labels_differ(["cat", "dog"])
  with pytest.raises(InputError, match="the folders 'Big Cat' and 'big-cat' both get the label 'big cat'"):
    check_labels_differ(["dog", "big-cat", "Big Cat"])


def test_labels_are_sorted_and_keys_keep_the_folders_names(tmp_path):
  root = lay_out(tmp_path, "b-Side/1.jpg", "A side/deep/2.PNG", "zebra/3.jpeg")
  source = FolderSource(root, SourceOptions(retrain_names=True))
  assert source.labels == ["a side", "b side", "zebra"]
  listed = {image.key: image.label for folder in source.class_folders for _, image in list_folder(folder)}
  assert listed == {"b-Side/1.jpg": "b side", "A side/deep/2.PNG": "a side", "zebra/3.jpeg": "zebra"}


def test_other_files_and_folders_of_them_are_left_out_and_counted(tmp_path):
  root = lay_out(
    tmp_path, "A/1.jpg", "A/2.gif", "A/notes.txt", "A/.hidden.jpg", "A/Thumbs.db", "B/3.png", "notes/x.txt"
  )
  folders = find_class_folders(root, retrain_names=True)
  assert [folder.label for folder in folders] == ["a", "b"]
  assert [image.key for folder in folders for _, image in list_folder(folder)] == ["A/1.jpg", "B/3.png"]
  assert list(map(count_files, folders)) == [(1, 2), (1, 0)]
  assert [folder.label for folder in find_class_folders(root)] == ["A", "B", "notes"]


def test_a_folder_that_is_no_class_takes_no_label_from_one_that_is(tmp_path):
  root = lay_out(tmp_path, "Rose/1.jpg", "rose/notes.txt", "tulip/1.jpg")
  assert [folder.prefix for folder in find_class_folders(root, retrain_names=True)] == ["Rose", "tulip"]


@pytest.mark.parametrize(
  ("names", "sentence"),
  [
    (("Big Cat/1.jpg", "big_cat/1.jpg", "dog/1.jpg"), "'Big Cat' and 'big_cat' both get the label 'big cat'"),
    (("a/1.txt", "b/1.txt"), "no folders of .jpg, .jpeg or .png files"),
    (("a/1.jpg", "b/1.txt"), "has only one class, 'a'"),
  ],
)
def test_what_is_no_data_set(tmp_path, names, sentence):
  with pytest.raises(InputError, match=sentence):
    find_source(lay_out(tmp_path, *names), retrain_names=True)


def test_one_label_in_both_splits_is_one_class(tmp_path):
  root = lay_out(tmp_path, "training/Cat/1.jpg", "training/dog/1.jpg", "testing/cat/1.jpg", "testing/dog/1.jpg")
  assert FolderSource(root, SourceOptions(retrain_names=True)).labels == ["cat", "dog"]


@pytest.fixture(scope="module")
def images(tmp_path_factory, draw_digits) -> Path:
  """Digits in `Even-Digits` and `odd digits`, and files that are no images by their names."""
  folder = tmp_path_factory.mktemp("named")
  names = ("zebra", "ant", "=cmd", "mule", "yak", "bee", "cow", "dog", "eel", "fox")
  draw_digits(
    folder, 200, lambda number, name: f"{'odd digits' if names.index(name) % 2 else 'Even-Digits'}/{number}.png"
  )
  (folder / "Even-Digits" / "notes.txt").write_text("no image")
  (folder / "Docs").mkdir()
  (folder / "Docs" / "read.me").write_text("no image")
  return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory, images, made) -> Path:
  """What `bottlenecks --retrain_names`, `train` make of them."""
  folder = tmp_path_factory.mktemp("of_names")
  given = [f"--input={images}", f"--trunk={made.data.parent / 'trunk'}", f"--output={folder / 'bottlenecks'}"]
  with contextlib.redirect_stderr(io.StringIO()) as said:
    assert bottlenecks.run([*given, "--retrain_names"]) == 0
  assert "files left out, as their names do not end in .jpg, .jpeg or .png: 1" in said.getvalue()
  assert task.run([f"--input={folder / 'bottlenecks'}", f"--output={folder / 'model'}", "--rounds=2"]) == 0
  return folder / "model"


def test_the_stages_know_the_images_by_these_labels(model):
  assert (model / "retrained_labels.txt").read_text() == "even digits\nodd digits\n"
  bottlenecks = model.parent / "bottlenecks"
  assert json.loads((bottlenecks / "info.json").read_text())["settings"]["retrain_names"] is True
  assert json.loads((bottlenecks / "stats.json").read_text())["inputs"] == 200


def test_the_same_folder_is_evaluated_and_verified(model, images, tmp_path, capsys):
  output = tmp_path / "evaluation"
  arguments = [f"--model={model}", f"--input={images}", f"--output={output}", "--split=testing"]
  assert evaluate.run(arguments) == 0
  assert "as their names do not end in" in capsys.readouterr().err
  with open(output / "predictions.csv", newline="") as file:
    rows = list(csv.DictReader(file))
  of_testing = json.loads((model.parent / "bottlenecks" / "stats.json").read_text())["splits"]["testing"]["outputs"]
  assert len(rows) == of_testing
  assert {row["file_name"].split("/")[0]: row["actual_digit"] for row in rows} == {
    "Even-Digits": "even digits",
    "odd digits": "odd digits",
  }
  assert verify.run([f"--model={model}", f"--input={images}", "--images=20"]) == 0


def test_a_model_of_the_folders_own_names_takes_them_as_they_are(made):
  assert json.loads((made.model / "info.json").read_text())["retrain_names"] is False
  assert "retrain_names" not in json.loads((made.bottlenecks / "info.json").read_text())["settings"]
