"""IDX folders of EMNIST, QMNIST and others: their file names, labels and orientation."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.idx import encode_idx
from beam_retrain.transforms.sources.base import SourceOptions
from beam_retrain.transforms.sources.find import find_source
from beam_retrain.transforms.sources.idx import IdxSource
from beam_retrain.transforms.sources.idx_files import IdxFolder
from tests.helpers import write

PIXELS = np.random.default_rng(5).integers(0, 256, (6, 4, 3), np.uint8)
LABELS = np.array([1, 3, 26, 3, 1, 26], np.uint8)
BOTH = ("training", "testing")


def _integers(labels: np.ndarray) -> bytes:
  rows = np.zeros((len(labels), 8), ">i4")
  rows[:, 0], rows[:, 2] = labels, 70_000
  return struct.pack(">BBBBII", 0, 0, 12, 2, *rows.shape) + rows.tobytes()


def _files(name: str = "{split}-{kind}-idx{form}", words=("train", "t10k"), labels=LABELS, form="1-ubyte") -> dict:
  encoded = _integers(labels) if form == "2-int" else encode_idx(labels)
  both = {("images", "3-ubyte"): encode_idx(PIXELS), ("labels", form): encoded}
  return {
    name.format(split=word, kind=kind, form=of): gzip.compress(data) if name.endswith(".gz") else data
    for word in words
    for (kind, of), data in both.items()
  }


def _read(source: IdxSource) -> list[tuple[str, str]]:
  """Reads all images, as (key, label), and checks that they are upright."""
  images = list(source.read_all(BOTH, None))
  assert {(image.height, image.width) for image in images} == {(4, 3)}
  return [(image.key, image.label) for image in images]


KEYS = [(f"{split}/{label}/{number}.png", str(label)) for split in BOTH for number, label in enumerate(LABELS)]


@pytest.mark.parametrize(
  "files",
  [
    _files("emnist-letters-{split}-{kind}-idx{form}.gz", ("train", "test")),
    _files("qmnist-{split}-{kind}-idx{form}", ("train", "test"), form="2-int"),
    _files("qmnist-{split}-{kind}-idx{form}.gz", ("train", "test"), form="2-int"),
    _files("fashion-{split}-{kind}-idx{form}.gz"),
    _files("{split}-{kind}.idx{form}/{split}-{kind}-idx{form}"),
    _files("{split}-{kind}-idx{form}.gz/{split}-{kind}-idx{form}"),
    # What else lies in the folder of MNIST's names is not read.
    {
      **_files(),
      **_files("emnist-letters-{split}-{kind}-idx{form}", labels=LABELS[:2]),
      "._train-images-idx3-ubyte": b"",
    },
    {
      **_files(),
      **_files("{split}-{kind}-idx{form}.gz"),
      **_files("{split}-{kind}.idx{form}/{split}-{kind}-idx{form}"),
    },
    {**_files(), "train-images-idx3-ubyte.gz": b"\x1f\x8bhalf a download"},
  ],
)
def test_names_and_labels(tmp_path, files):
  source = find_source(str(write(tmp_path, files)))
  assert source.labels == ["1", "3", "26"]
  assert _read(source) == KEYS


def test_a_label_may_be_in_one_split_alone(tmp_path):
  files = {**_files(), "t10k-labels-idx1-ubyte": encode_idx(np.full(6, 3, np.uint8))}
  assert find_source(str(write(tmp_path, files))).labels == ["1", "3", "26"]
  for name in [name for name in files if "t10k" in name]:
    (tmp_path / name).unlink()
  assert find_source(str(tmp_path)).labels == ["1", "3", "26"]
  with pytest.raises(InputError, match=r"has no file of testing images: add one of t10k-images-idx3-ubyte, "):
    find_source(str(tmp_path)).plan(BOTH, None)


def test_two_data_sets_and_two_counts_are_errors(tmp_path):
  name = "emnist-{}-{{split}}-{{kind}}-idx{{form}}"
  write(tmp_path / "two", {**_files(name.format("letters")), **_files(name.format("balanced"))})
  with pytest.raises(InputError, match=r"holds 2 data sets \(emnist-balanced, emnist-letters\): move the files of one"):
    find_source(str(tmp_path / "two"))
  files = {**_files(), "train-labels-idx1-ubyte.gz": gzip.compress(encode_idx(LABELS[:5]))}
  with pytest.raises(InputError, match=r"idx1-ubyte has 6 labels, but .*ubyte\.gz has 5 labels: remove the one that"):
    find_source(str(write(tmp_path / "counts", files)))
  only = {name: data for name, data in _files("qmnist-{split}-{kind}-idx{form}").items() if "images" in name}
  with pytest.raises(InputError, match="add one of qmnist-train-labels-idx1-ubyte, "):
    find_source(str(write(tmp_path / "missing", only))).plan(BOTH, None)


def test_files_of_other_splits_are_told_or_an_error(tmp_path):
  files = _files()
  write(tmp_path / "more", {**files, "val-images-idx3-ubyte": b"", "a/1.jpg": b""})
  assert list(find_source(str(tmp_path / "more")).notes()) == [
    "left out: IDX files of other splits or data sets (1, such as val-images-idx3-ubyte); folders beside the IDX files"
    " (1, such as a)"
  ]
  other = {name: data for name, data in _files(words=("test",), labels=LABELS[:5]).items() if "labels" in name}
  with pytest.raises(
    InputError, match=r"t10k-labels-idx1-ubyte has 6 labels, but .*test-labels-idx1-ubyte has 5 labels"
  ):
    find_source(str(write(tmp_path / "both", {**files, **other})))


def test_a_folder_around_idx_files_names_the_one_to_give(tmp_path):
  """As torchvision keeps them."""
  for name in ("FashionMNIST", "MNIST"):
    write(tmp_path / name, {"processed/training.pt": b"", **{f"raw/{file}": data for file, data in _files().items()}})
  for path, inner in ((tmp_path, ".*/FashionMNIST/raw or .*/MNIST/raw"), (tmp_path / "MNIST", ".*/MNIST/raw")):
    with pytest.raises(InputError, match=rf"holds a folder of MNIST-style IDX files further below: give {inner}\.$"):
      find_source(str(path), min_classes=1)


@pytest.mark.parametrize("name", ["{split}-{kind}-idx{form}", "emnist-letters-{split}-{kind}-idx{form}.gz"])
def test_transposed_images_and_named_labels(tmp_path, name):
  folder, names = str(write(tmp_path / "idx", _files(name))), tmp_path / "mapping.txt"
  names.write_text("1 65 97\n3 67 99\n26 90 122\n")
  source = IdxSource(folder, SourceOptions(class_names=str(names), transpose=True))
  assert source.labels == ["A", "C", "Z"]
  shards = list(source.list_shards(BOTH, None))
  images, labels = shards[0].inputs[0].read_arrays()
  np.testing.assert_array_equal(images, PIXELS.swapaxes(1, 2))
  assert labels == ("A", "C", "Z", "C", "A", "Z")
  assert [name for name, _ in shards[1].names()][2] == "testing/Z/2.png"
  named = IdxSource(folder, SourceOptions(class_names=str(names)))
  assert _read(named) == [
    (key.replace(f"/{label}/", f"/{chr(64 + int(label))}/"), chr(64 + int(label))) for key, label in KEYS
  ]
  assert {shard.digest("") for shard in shards}.isdisjoint(shard.digest("") for shard in named.list_shards(BOTH, None))
  assert bool([*named.notes()]) == name.startswith("emnist")
  assert not [*source.notes()]


def test_other_inputs_have_no_numbers_to_name(small_images, tmp_path):
  for flag in ({"class_names": "names.txt"}, {"transpose": True}):
    with pytest.raises(InputError, match=f"--{next(iter(flag))} is for IDX files, but .* is a folder with one folder"):
      find_source(str(small_images), **flag)
  with pytest.raises(InputError, match=r"--class_names .*none cannot be read \(No such file or directory\)"):
    IdxSource(str(write(tmp_path, _files())), SourceOptions(class_names=str(tmp_path / "none")))


def test_a_folder_of_other_files_is_none(tmp_path):
  write(
    tmp_path,
    {"train-images-idx3-ubyte/readme": b"", "emnist-letters-mapping.txt": b"", "test-1-images-idx3-ubyte.png": b""},
  )
  assert not IdxFolder(str(tmp_path)).holds_any
