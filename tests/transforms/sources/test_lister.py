"""What of a folder is an image to look at: the same for every command."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines import predict
from beam_retrain.pipelines.jobs.runner import run_pipeline
from beam_retrain.pipelines.models.trained import Model, check_labels
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import TRAINING
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.sources.find import find_source
from beam_retrain.transforms.sources.folders import ClassFolder, find_class_folders, list_folder

_RUBBISH = (
  *("@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "#recycle/1.jpg", "__MACOSX/1.jpg", "__MACOSX/._1.jpg", "@Recycle/1.jpg"),
  *(".ipynb_checkpoints/1-checkpoint.jpg", "lost+found/1.jpg", "$RECYCLE.BIN/1.jpg", ".Trash-1000/1.jpg"),
  *("System Volume Information/1.jpg", "Thumbs.db", "desktop.ini", ".DS_Store", "._1.jpg", ".hidden.png", "Icon\r"),
  *("LICENSE.txt", "LICENSE", "README", "README.md", "readme.roboflow.txt", "Licence.rtf", "CITATION.cff"),
)
_IMAGES = ("1.jpg", "2.JPE", "3.jfif", "4.webp", "no_extension", "deep/er/5.PNG", "readme.png", "license_7")


def lay_out(root: Path, *names: str) -> str:
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(b"1234")
  return str(root)


def keys(root: str) -> list[str]:
  return sorted(image.key for folder in find_class_folders(root) for _, image in list_folder(folder))


@pytest.fixture
def mess(tmp_path: Path) -> Path:
  """Two classes with all kinds of rubbish in them and beside them."""
  inside = (*_RUBBISH, *_IMAGES)
  lay_out(tmp_path / "set", *_RUBBISH, *(f"{label}/{name}" for label in ("cat", "dog") for name in inside))
  (tmp_path / "elsewhere").mkdir()
  (tmp_path / "elsewhere" / "6.bmp").write_bytes(b"1234")
  (tmp_path / "set" / "cat" / "linked").symlink_to(tmp_path / "elsewhere")
  return tmp_path / "set"


def test_every_command_sees_the_same_images(mess):
  expected = sorted([*(f"{label}/{name}" for label in ("cat", "dog") for name in _IMAGES), "cat/linked/6.bmp"])
  assert keys(str(mess)) == expected
  assert [os.path.relpath(path, mess) for path in predict.find_images([str(mess)])] == expected
  # As `label_image --process_mode=2` lists it.
  assert sorted(image.key for _, image in list_folder(ClassFolder(None, "", str(mess), "as_typed"))) == [
    f"as_typed/{key}" for key in expected
  ]
  assert list(find_source(str(mess)).notes()) == []


def test_a_link_up_the_tree_is_told_and_not_followed(tmp_path, capsys):
  root = lay_out(tmp_path / "set", "cat/1.jpg", "cat/deep/2.jpg", "dog/3.jpg")
  for link, target in (("again", "."), ("cat/up", ".."), ("cat/deep/top", "/"), ("dog/round", "../dog")):
    (tmp_path / "set" / link).symlink_to(target)
  source = find_source(root)
  assert source.labels == ["cat", "dog"]
  assert keys(root) == ["cat/1.jpg", "cat/deep/2.jpg", "dog/3.jpg"]
  assert list(source.notes()) == [f"left out: links that lead up the tree (1, such as {root}/again)"]

  def build(pipeline: beam.Pipeline) -> None:
    _ = pipeline | source.plan((TRAINING,), SplitPercentages())

  for flags in ([], ["--runner=FnApiRunner"]):
    run_pipeline(build, PipelineOptions(flags), stage="plan", shards_folder=root)
    assert capsys.readouterr().err == f"left out: links that lead up the tree (3, such as {root}/cat/deep/top)\n"
  assert len(predict.find_images([root])) == 3
  assert "left out: links that lead up the tree (4, such as" in capsys.readouterr().err


def test_a_link_up_the_tree_is_known_through_other_links(tmp_path):
  root = lay_out(tmp_path / "set", "dog/3.jpg")
  lay_out(tmp_path / "disk", "cats/1.jpg")
  (tmp_path / "set" / "cat").symlink_to(tmp_path / "disk" / "cats")
  (tmp_path / "disk" / "cats" / "back").symlink_to(tmp_path / "set")
  (tmp_path / "disk" / "cats" / "self").symlink_to("self")
  assert keys(root) == ["cat/1.jpg", "cat/self", "dog/3.jpg"]


def test_images_beside_the_class_folders_are_counted_and_told(tmp_path):
  root = lay_out(tmp_path, "cat/1.jpg", "dog/1.jpg", "lost.JPG", "found.webp", "labels.csv", "LICENSE.txt")
  assert list(find_source(root).notes()) == [
    f"left out: images beside the class folders (2, such as {root}/found.webp)"
  ]
  split = lay_out(tmp_path / "split", "training/cat/1.jpg", "training/dog/1.jpg", "testing/cat/1.jpg", "testing/x.png")
  assert list(find_source(split).notes()) == [
    f"left out: images beside the class folders (1, such as {split}/testing/x.png)"
  ]


@pytest.mark.parametrize(
  ("names", "inner"),
  [
    (("animals/cat/1.jpg", "animals/dog/1.jpg", "__MACOSX/animals/._1.jpg", "README.txt"), "animals"),
    (("a/b/cat/1.jpg", "a/b/dog/1.jpg"), "a/b"),
    (("set/training/cat/1.jpg", "set/training/dog/1.jpg", "set/testing/cat/1.jpg"), "set"),
  ],
)
def test_a_wrapper_is_told_with_the_folder_to_give(tmp_path, trained_model, names, inner):
  root = lay_out(tmp_path, *names)
  with pytest.raises(InputError, match=f"give {root}/{inner}\\.$"):
    find_source(root)
  with pytest.raises(InputError, match=f"give {root}/{inner}\\.$"):
    check_labels(find_source(root, min_classes=1), Model(str(trained_model)))


def test_names_that_only_look_alike_are_one_class_and_told(tmp_path):
  composed, decomposed = (unicodedata.normalize(form, "Käfer") for form in ("NFC", "NFD"))
  root = lay_out(tmp_path, f"{composed}/1.jpg", f"{decomposed}/2.jpg", "cat/1.jpg", "cat /1.jpg", "dog/1.jpg")
  source = find_source(root)
  assert source.labels == [composed, "cat", "dog"]
  assert keys(root) == sorted([f"{composed}/1.jpg", f"{decomposed}/2.jpg", "cat/1.jpg", "cat /1.jpg", "dog/1.jpg"])
  first, second = source.notes()
  assert first.startswith(r"'Ka\u0308fer' and 'K\xe4fer' are one label, 'Käfer': ")
  assert second.startswith("'cat' and 'cat ' are one label, 'cat': they differ only in white space")


@pytest.mark.parametrize("name", [" ", "\N{RIGHT-TO-LEFT OVERRIDE}", "a\nb"])
def test_a_name_of_which_nothing_can_be_read_is_no_label(tmp_path, name):
  with pytest.raises(InputError, match="cannot be a label: rename it"):
    find_source(lay_out(tmp_path, f"{name}/1.jpg", "dog/1.jpg"))


def test_retrain_refuses_a_name_of_which_nothing_is_left(tmp_path):
  root = lay_out(tmp_path, "猫/1.jpg", "dog/1.jpg")
  with pytest.raises(InputError, match=f"{root}/猫: nothing of this name is left in a label of retrain.py"):
    find_source(root, retrain_names=True)
  assert find_source(root).labels == ["dog", "猫"]


def test_retrain_refuses_two_spellings_of_one_name(tmp_path):
  names = [unicodedata.normalize(form, "Käfer") for form in ("NFC", "NFD")]
  root = lay_out(tmp_path, *(f"{name}/1.jpg" for name in names), "dog/1.jpg")
  with pytest.raises(InputError, match="both get the label"):
    find_source(root, retrain_names=True)


def test_a_folder_with_a_licence_at_its_root_just_works(tmp_path):
  root = lay_out(tmp_path, "LICENSE.txt", "daisy/1.jpg", "tulips/2.jpg", "daisy/LICENSE.txt")
  assert find_source(root).labels == ["daisy", "tulips"]
  assert keys(root) == ["daisy/1.jpg", "tulips/2.jpg"]
