"""Whatever is wrong with what the user gave: one sentence that names it, the right exit code, no traceback."""

import gzip
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from beam_retrain.pipelines import datasets
from beam_retrain.pipelines.cli import main
from tests.helpers import bomb, noise_image


def lay_out_idx(folder: Path, count: int = 30) -> Path:
  folder.mkdir()
  for name in ("train", "t10k"):
    pixels = np.random.default_rng(4).integers(0, 256, (count, 6, 6), dtype=np.uint8)
    labels = np.arange(count, dtype=np.uint8) % 10
    (folder / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, count, 6, 6) + pixels.tobytes())
    (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())
  return folder


def change(path: Path, position: int, data: bytes) -> None:
  found = path.read_bytes()
  path.write_bytes(found[:position] + data + found[position + len(data) :])


def wrong_magic(folder: Path) -> None:
  change(folder / "train-images-idx3-ubyte", 0, b"\x01")


def wrong_type(folder: Path) -> None:
  change(folder / "t10k-labels-idx1-ubyte", 2, b"\x0d")


def short_images(folder: Path) -> None:
  path = folder / "train-images-idx3-ubyte"
  path.write_bytes(path.read_bytes()[:-5])


def short_gzip(folder: Path) -> None:
  path = folder / "train-images-idx3-ubyte"
  (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(path.read_bytes()[:-5]))
  path.unlink()


def damaged_gzip(folder: Path) -> None:
  path = folder / "train-labels-idx1-ubyte"
  (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(path.read_bytes())[:10] + b"\xff" * 40)
  path.unlink()


def fewer_labels(folder: Path) -> None:
  path = folder / "t10k-labels-idx1-ubyte"
  path.write_bytes(struct.pack(">II", 0x801, 29) + path.read_bytes()[8:-1])


def missing(folder: Path) -> None:
  (folder / "t10k-images-idx3-ubyte").unlink()


def said(capsys) -> str:
  """Returns the one sentence that was printed, besides the progress of a job that takes its time."""
  shown = capsys.readouterr().err
  assert "Traceback" not in shown
  sentences = [line for line in shown.splitlines() if not re.match(r"\w+: [\d,]+ of [\d,]+ images", line)]
  assert len(sentences) == 1, shown
  assert sentences[0].startswith("beam-retrain")
  return sentences[0]


@pytest.mark.parametrize(
  ("damage", "words"),
  [
    (wrong_magic, ("train-images-idx3-ubyte", "byte 0")),
    (wrong_type, ("t10k-labels-idx1-ubyte", "byte 2")),
    (short_images, ("train-images-idx3-ubyte", "byte")),
    (short_gzip, ("train-images-idx3-ubyte.gz", "byte")),
    (damaged_gzip, ("train-labels-idx1-ubyte.gz", "gzip")),
    (fewer_labels, ("t10k-labels-idx1-ubyte", "29", "30")),
    (missing, ("t10k-images", "idx3-ubyte")),
  ],
)
@pytest.mark.parametrize("command", ["convert", "bottlenecks"])
def test_idx_files(command, damage, words, tmp_path, tiny_trunk, capsys):
  folder = lay_out_idx(tmp_path / "idx")
  damage(folder)
  more = [f"--trunk={tiny_trunk}"] if command == "bottlenecks" else []
  assert main([command, f"--input={folder}", f"--output={tmp_path / 'out'}", *more]) == 2
  sentence = said(capsys)
  assert all(word in sentence for word in words), sentence
  assert not (tmp_path / "out" / "COMPLETED").exists()


def test_labels_out_of_range_are_quarantined(tmp_path, capsys):
  folder = lay_out_idx(tmp_path / "idx")
  change(folder / "train-labels-idx1-ubyte", 8 + 7, b"\x4d")
  arguments = ["convert", f"--input={folder}", f"--output={tmp_path / 'out'}", "--classes=10"]
  assert main(arguments) == 3
  assert "1 of 60 inputs is bad (1 BAD_LABEL)" in said(capsys)
  assert "training/77/7" in (tmp_path / "out" / "quarantine.csv").read_text()
  assert len(list((tmp_path / "out").rglob("*.jpg"))) == 59
  assert main([*arguments, "--max_bad_fraction=0.02"]) == 0
  assert (tmp_path / "out" / "COMPLETED").exists()


@pytest.fixture
def tree(tmp_path) -> Path:
  for first, label in ((100, "ant"), (200, "bee")):
    (tmp_path / "tree" / label).mkdir(parents=True)
    for number in range(40):
      # Each another one: the audit would have more to say.
      (tmp_path / "tree" / label / f"{number}.png").write_bytes(noise_image(first + number))
  return tmp_path / "tree"


def test_images_of_every_bad_kind(tree, tiny_trunk, tmp_path, capsys):
  (tree / "bee" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(noise_image(5))
  bad = {"empty": b"", "text": b"text", "cut": noise_image(5, "JPEG")[:-40], "bomb": bomb(100_000, 100_000)}
  for name, data in bad.items():
    (tree / "ant" / f"{name}.jpg").write_bytes(data)
  assert main(["bottlenecks", f"--input={tree}", f"--output={tmp_path / 'out'}", f"--trunk={tiny_trunk}"]) == 3
  sentence = said(capsys)
  assert "5 of 85 inputs are bad (1 EMPTY, 1 NOT_AN_IMAGE, 1 TOO_LARGE, 1 TRUNCATED, 1 UNREADABLE)" in sentence
  assert "--max_bad_fraction=0.059" in sentence
  listed = (tmp_path / "out" / "quarantine.csv").read_text()
  assert all(f"ant/{name}.jpg,training" in listed or f"ant/{name}.jpg,testing" in listed for name in bad)


@pytest.mark.parametrize(
  ("more", "words"),
  [
    (["--trunk=/nowhere"], ("/nowhere is neither a folder nor a TF Hub handle",)),
    (["--trunk=http://localhost:9/hub/1"], ("TF Hub cannot be reached", "TFHUB_CACHE_DIR", "--trunk bundled")),
    (["--trunk=keras:InceptionV3", "--trunk_weights=gone.h5"], ("gone.h5", "no such file")),
    (["--testing_percentage=0.001"], ("no testing image of classes 'ant', 'bee'", "--testing_percentage")),
    (["--testing_percentage=99"], ("leave nothing to train on",)),
    (["--runner=NoSuchRunner"], ("--runner NoSuchRunner", "Valid values are")),
    (["--trunkk=bundled"], ("--trunkk", "nearest flag is --trunk")),
  ],
)
def test_what_the_flags_say(more, words, tree, tiny_trunk, tmp_path, capsys):
  arguments = [
    "bottlenecks",
    f"--input={tree}",
    f"--output={tmp_path / 'out'}",
    f"--trunk={tiny_trunk}",
    *more,
  ]
  assert main(arguments) == 2
  sentence = said(capsys)
  assert all(word in sentence for word in words), sentence


def test_a_class_without_images(tree, tiny_trunk, tmp_path, capsys):
  (tree / "cat").mkdir()
  arguments = ["bottlenecks", f"--input={tree}", f"--output={tmp_path / 'out'}", f"--trunk={tiny_trunk}"]
  assert main(arguments) == 2
  assert "no training image of class 'cat'" in said(capsys)


@pytest.mark.parametrize("command", ["convert", "bottlenecks"])
def test_a_folder_that_is_not_ours_is_left_alone(command, tiny_trunk, tmp_path, capsys):
  folder = lay_out_idx(tmp_path / "idx")
  (tmp_path / "thesis").mkdir()
  (tmp_path / "thesis" / "chapter1.tex").write_text("long work")
  more = [f"--trunk={tiny_trunk}"] if command == "bottlenecks" else []
  assert main([command, f"--input={folder}", f"--output={tmp_path / 'thesis'}", *more]) == 2
  assert "is not empty and was not written by beam-retrain" in said(capsys)
  assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter1.tex"]


def test_only_one_of_the_two_split_folders(tree, tiny_trunk, tmp_path, capsys):
  (tmp_path / "data").mkdir()
  (tmp_path / "data" / "testing").symlink_to(tree)
  where = [f"--input={tmp_path / 'data'}", f"--output={tmp_path / 'out'}", f"--trunk={tiny_trunk}"]
  assert main(["bottlenecks", *where]) == 2
  assert "has no folder training" in said(capsys)


def test_convert_of_no_folder(tmp_path, capsys):
  assert main(["convert", f"--input={tmp_path / 'gone'}", f"--output={tmp_path / 'out'}"]) == 2
  assert "gone does not exist" in said(capsys)


def test_a_file_where_a_folder_should_be(tree, tiny_trunk, tmp_path, capsys):
  (tmp_path / "file").write_text("mine")
  for output, words in (("file", "is a file: give a new or empty folder"), ("file/in", "Not a directory")):
    where = [f"--input={tree}", f"--output={tmp_path / output}", f"--trunk={tiny_trunk}"]
    assert main(["bottlenecks", *where]) == 2
    assert words in said(capsys)
  assert (tmp_path / "file").read_text() == "mine"


def test_a_class_that_no_validation_image_would_be_drawn_from(tmp_path, tiny_trunk, capsys):
  folder = lay_out_idx(tmp_path / "idx")  # three images a digit: some have none among the tenth for validation
  assert main(["convert", f"--input={folder}", f"--output={tmp_path / 'pictures'}"]) == 0
  capsys.readouterr()
  for source in (folder, tmp_path / "pictures"):
    where = [f"--input={source}", f"--output={tmp_path / 'out'}", f"--trunk={tiny_trunk}"]
    assert main(["bottlenecks", *where]) == 2
    assert "no validation image of class" in said(capsys)
  assert not list((tmp_path / "out").rglob("*.tfrecord"))


def test_no_network(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(datasets, "MNIST_MIRRORS", ("http://localhost:9/", "http://localhost:9/mirror/"))
  assert main(["run", "--data=mnist", f"--output={tmp_path / 'out'}"]) == 2
  assert "mnist" in said(capsys).lower()


def test_an_unfinished_stage_is_no_input(tmp_path, tiny_trunk, capsys):
  folder = lay_out_idx(tmp_path / "idx")
  assert main(["convert", f"--input={folder}", f"--output={tmp_path / 'pictures'}"]) == 0
  (tmp_path / "pictures" / "COMPLETED").unlink()
  capsys.readouterr()
  where = [f"--input={tmp_path / 'pictures'}", f"--output={tmp_path / 'out'}"]
  assert main(["bottlenecks", *where, f"--trunk={tiny_trunk}"]) == 2
  assert "is not finished" in said(capsys)
