"""Every input format is recognised by what is there, and read alike."""

import json
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from beam_retrain.pipelines.convert import run as convert
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.quarantine import MAX_FILE_BYTES, Quarantined, Reason
from beam_retrain.transforms.core.records.schema import TESTING, TRAINING, Image
from beam_retrain.transforms.core.records.shards import Shard, StoredBottleneck, pick_inputs
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.sources.find import find_source
from beam_retrain.transforms.sources.folders import FolderSource
from beam_retrain.transforms.sources.idx import IdxSource
from beam_retrain.transforms.sources.image_files import ImageFile
from beam_retrain.transforms.sources.records import RecordsSource
from tests.helpers import forget_list, noise_image, write

_LABELS = [str(number) for number in range(10)]


@pytest.fixture(scope="module")
def idx_folder(tmp_path_factory) -> Path:
  folder = tmp_path_factory.mktemp("idx")
  rng = np.random.default_rng(3)
  for name, count in (("train", 40), ("t10k", 20)):
    pixels = rng.integers(0, 256, (count, 5, 4), dtype=np.uint8)
    labels = np.arange(count, dtype=np.uint8) % 10
    (folder / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, count, 5, 4) + pixels.tobytes())
    (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())
  return folder


@pytest.fixture(scope="module")
def converted(idx_folder, tmp_path_factory) -> Path:
  """As PNG, so that the tree and the records hold what the IDX folder is read as."""
  folder = tmp_path_factory.mktemp("converted")
  arguments = [f"--input={idx_folder}", f"--output={folder}", "--formats=png,tfrecord"]
  assert convert(arguments) == 0
  return folder


def read_all(path, collect) -> dict[str, list[Image]]:
  source = find_source(str(path))
  found: dict[str, list[Image]] = {}
  for shard in collect(source.plan((TRAINING, TESTING), SplitPercentages())):
    found.setdefault(shard.split, []).extend(shard.read_images(source.labels))
  return {split: sorted(images, key=lambda image: image.key) for split, images in found.items()}


@pytest.mark.parametrize("kind", ["idx", "records", "tree"])
def test_picked_images_are_those_of_the_whole_shard(kind, idx_folder, converted, collect, tmp_path):
  tree = tmp_path / "tree"
  tree.mkdir()
  for split in (TRAINING, TESTING):
    (tree / split).symlink_to(converted / split)
  source = find_source(str({"idx": idx_folder, "records": converted, "tree": tree}[kind]))
  (shard,) = collect(source.plan((TRAINING,), SplitPercentages(10.0, 10.0)))
  whole = list(shard.read_images(_LABELS))
  for positions in ([0], [39], [3, 4, 5, 20], list(range(40))):
    picked = shard._replace(inputs=pick_inputs(shard.inputs, positions))
    assert list(picked.read_images(_LABELS)) == [whole[position] for position in positions]


def test_what_is_no_image_input_is_refused():
  stored = StoredBottleneck("a", "1", 3, "00", "/records", 0, False)
  with pytest.raises(TypeError, match="a StoredBottleneck has no image"):
    list(Shard(TRAINING, 0, 1, (stored,)).read_images(_LABELS))


def test_idx_records_and_the_tree_are_the_same_images(idx_folder, converted, collect, tmp_path):
  tree = tmp_path / "tree"
  tree.mkdir()
  for split in (TRAINING, TESTING):
    (tree / split).symlink_to(converted / split)
  assert isinstance(find_source(str(idx_folder)), IdxSource)
  assert isinstance(find_source(str(converted)), RecordsSource)
  assert isinstance(find_source(str(tree)), FolderSource)
  from_idx = read_all(idx_folder, collect)
  assert {split: len(images) for split, images in from_idx.items()} == {TRAINING: 40, TESTING: 20}
  assert read_all(converted, collect) == from_idx
  from_tree = read_all(tree, collect)
  for split, images in from_idx.items():
    for image, other in zip(images, from_tree[split], strict=True):
      assert (image.key, image.label, image.encoded) == (other.key, other.label, other.encoded)


def test_all_know_their_labels(idx_folder, converted):
  for path in (idx_folder, converted):
    source = find_source(str(path))
    assert source.labels == _LABELS
    assert source.has_splits


@pytest.mark.parametrize(
  ("make", "sentence"),
  [
    (lambda path: None, "does not exist"),
    (lambda path: path.write_text("x"), "has no column 'file_name'"),
    (
      lambda path: path.write_bytes(b"\x89PNG"),
      "is not UTF-8 text: .* or give a CSV manifest of images, or a folder.",
    ),
    (lambda path: os.mkfifo(path), "is neither a folder nor a file"),
    (lambda path: path.mkdir(), "data is empty: give a folder with one folder of images per class.$"),
    (
      lambda path: write(path, {"1.jpg": b"x"}),
      "data holds files, but no class folders: if it is one class, give the folder above it; or move the images of"
      " each class into a folder named like the class, or list them in a CSV manifest.$",
    ),
  ],
)
def test_what_is_no_source_is_told(tmp_path, make, sentence):
  path = tmp_path / "data"
  make(path)
  with pytest.raises(InputError, match=sentence):
    find_source(str(path))


def test_one_image_is_no_manifest(tmp_path):
  write(tmp_path, {"photos/sky/1.JPG": b"\xff\xd8"})
  with pytest.raises(InputError, match=r"1.JPG is one image: give the folder that holds its class's folder, or a CSV"):
    find_source(str(tmp_path / "photos" / "sky" / "1.JPG"))


def test_records_of_which_a_file_is_missing_are_refused(converted, tmp_path):
  shutil.copytree(converted, tmp_path / "copy")
  path = tmp_path / "copy" / "records" / "training-00000-of-00001.tfrecord"
  path.rename(path.with_name("training-00000-of-00002.tfrecord"))
  with pytest.raises(
    InputError, match=r"training-00000-of-00001\.tfrecord is missing: repeat the `beam-retrain convert`"
  ):
    find_source(str(tmp_path / "copy"))
  forget_list(tmp_path / "copy")
  with pytest.raises(InputError, match="has 1 of 2 training files"):
    find_source(str(tmp_path / "copy")).plan((TRAINING, TESTING), SplitPercentages())


def test_an_unfinished_conversion_is_refused(tmp_path):
  (tmp_path / "training" / "1").mkdir(parents=True)
  (tmp_path / "info.json").write_text(json.dumps({"stage": "convert"}))
  with pytest.raises(
    InputError, match="is not finished: repeat the `beam-retrain convert`, or the `beam-retrain run`, that writes it"
  ):
    find_source(str(tmp_path))


def test_an_info_file_of_somebody_else_does_not_matter(tmp_path):
  for label in "ab":
    (tmp_path / label).mkdir()
  (tmp_path / "info.json").write_text(json.dumps([{"stage": "left"}]))
  assert find_source(str(tmp_path)).labels == ["a", "b"]


def test_one_item_for_every_input_whatever_is_wrong_with_it(tmp_path):
  good = tmp_path / "good"
  good.write_bytes(noise_image(0))
  inputs = (
    ImageFile("a/good", "a", str(good), 1, 0.0),
    ImageFile("a/gone", "a", str(tmp_path / "gone"), 17, 0.0),
    ImageFile("x/good", "x", str(good), 1, 0.0),
    ImageFile("a/huge", "a", str(good), MAX_FILE_BYTES + 1, 0.0),
    ImageFile("a/caf\\udce9", "a", "", 4, 0.0),
    *(ImageFile(f"a/{name}", "a", str(tmp_path / name), 0, 0.0) for name in ("pipe", "to_pipe", "zeros")),
    ImageFile("a/to_good", "a", str(tmp_path / "to_good"), 1, 0.0),
  )
  os.mkfifo(tmp_path / "pipe")
  for link, target in (("to_pipe", tmp_path / "pipe"), ("zeros", "/dev/zero"), ("to_good", good)):
    (tmp_path / link).symlink_to(target)
  items = list(Shard(TRAINING, 0, 1, inputs).read_images(["a", "b"]))
  assert items.pop() == Image("a/to_good", "a", good.read_bytes())
  assert isinstance(items[0], Image)
  assert all(isinstance(item, Quarantined) for item in items[1:])
  assert {item.detail for item in items[-3:]} == {"is not a regular file"}
  assert [(item.key, item.reason) for item in items[1:]] == [
    ("a/gone", Reason.UNREADABLE),
    ("x/good", Reason.BAD_LABEL),
    ("a/huge", Reason.TOO_LARGE),
    ("a/caf\\udce9", Reason.UNREADABLE),
    ("a/pipe", Reason.UNREADABLE),
    ("a/to_pipe", Reason.UNREADABLE),
    ("a/zeros", Reason.UNREADABLE),
  ]
  assert items[1].size_bytes == 17
  assert {item.split for item in items[1:]} == {TRAINING}


def test_images_of_one_class_are_enough_to_try_a_model_on(tmp_path, collect):
  (tmp_path / "5").mkdir()
  (tmp_path / "5" / "1.png").write_bytes(noise_image(0))
  with pytest.raises(InputError, match="has only one class, '5'"):
    find_source(str(tmp_path))
  source = find_source(str(tmp_path), min_classes=1)
  assert source.labels == ["5"]
  (shard,) = collect(source.plan(("all",), None))
  expected = [Image("5/1.png", "5", noise_image(0))]
  assert list(shard.read_images(source.labels)) == list(source.read_all(("all",), None)) == expected
