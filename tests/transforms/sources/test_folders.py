"""Class folders: what counts as one, and which shard each image goes to."""

import os
from collections import Counter
from pathlib import Path

import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import TESTING, TRAINING
from beam_retrain.transforms.core.records.shards import Shard
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.sources.folders import find_class_folders, list_folder, plan_folders

_PERCENTAGES = SplitPercentages()


def lay_out(root: Path, *names: str) -> Path:
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(b"bytes of " + name.encode())
  return root


@pytest.fixture
def plan(collect):
  def plan_folder(root: Path, splits=(TRAINING, TESTING), percentages=_PERCENTAGES, size=8) -> list[Shard]:
    return sorted(collect(plan_folders(find_class_folders(str(root)), splits, percentages, size)))

  return plan_folder


def keys(shards: list[Shard]) -> dict[str, list[str]]:
  by_split: dict[str, list[str]] = {}
  for shard in shards:
    by_split.setdefault(shard.split, []).extend(image.key for image in shard.inputs)
  return by_split


def test_in_however_many_blocks_the_images_travel_the_shards_are_the_same(tmp_path, plan, monkeypatch):
  root = lay_out(tmp_path, *(f"{label}/{number}.jpg" for label in "ab" for number in range(40)))
  at_once = plan(root)
  assert len({shard.name() for shard in at_once}) > 5
  monkeypatch.setattr("beam_retrain.transforms.sources.image_files.IMAGES_PER_BLOCK", 3)
  assert plan(root) == at_once
  assert sum(map(len, keys(at_once).values())) == 80


def test_a_plain_tree_and_one_with_splits_of_its_own(tmp_path):
  plain = find_class_folders(str(lay_out(tmp_path / "plain", "b/1.jpg", "a/1.jpg", "README.txt")))
  assert [(folder.split, folder.label, folder.prefix) for folder in plain] == [(None, "a", "a"), (None, "b", "b")]
  split = find_class_folders(str(lay_out(tmp_path / "split", "training/a/1", "training/b/1", "testing/b/1")))
  assert [(folder.split, folder.label, folder.prefix) for folder in split] == [
    (TRAINING, "a", "training/a"),
    (TRAINING, "b", "training/b"),
    (TESTING, "b", "testing/b"),
  ]


@pytest.mark.parametrize(
  ("names", "sentence"),
  [
    ((), "has no class folders"),
    (("readme.txt",), "has no class folders"),
    (("only/1.jpg",), "has only one class, 'only'"),
    (("a/1", "b\n2/1"), "cannot be a label"),
    (("training/a/1", "training/b/1", "testing/a/1", "validation/a/1"), "beside training and testing: validation"),
    (("train/a/1", "train/b/1", "test/a/1"), "the folders test, train look like splits"),
  ],
)
def test_what_is_no_data_set(tmp_path, names, sentence):
  with pytest.raises(InputError, match=sentence):
    find_class_folders(str(lay_out(tmp_path, *names)))


def test_one_class_may_be_enough_but_never_none_and_never_a_split(tmp_path):
  (folder,) = find_class_folders(str(lay_out(tmp_path / "one", "5/1.jpg")), min_classes=1)
  assert (folder.split, folder.label) == (None, "5")
  (folder,) = find_class_folders(str(lay_out(tmp_path / "split", "testing/5/1.jpg")), min_classes=1)
  assert (folder.split, folder.label) == (TESTING, "5")
  for name, sentence in (("readme.txt", "has no class"), ("test/1.jpg", "the folders test look like splits")):
    with pytest.raises(InputError, match=sentence):
      find_class_folders(str(lay_out(tmp_path / name.replace("/", "_"), name)), min_classes=1)


def test_what_is_no_file_is_listed_without_being_opened(tmp_path):
  lay_out(tmp_path, "a/1.jpg", "b/1.jpg")
  os.mkfifo(tmp_path / "a" / "pipe.jpg")
  folder, _ = find_class_folders(str(tmp_path))
  assert sorted(image.key for _, image in list_folder(folder)) == ["a/1.jpg", "a/pipe.jpg"]


def test_lists_every_file_of_any_name_and_depth_but_hidden_ones(tmp_path):
  lay_out(
    tmp_path,
    "odd [1]*?/x.jpg",
    "odd [1]*?/no_extension",
    "odd [1]*?/deep/er/y.PNG",
    "odd [1]*?/.DS_Store",
    "odd [1]*?/.thumbnails/z.jpg",
    "odd [1]*?/Thumbs.db",
    "plain/1.jpg",
  )
  folder, _ = find_class_folders(str(tmp_path))
  listed = [image for _, image in list_folder(folder)]
  assert sorted(image.key for image in listed) == [
    "odd [1]*?/deep/er/y.PNG",
    "odd [1]*?/no_extension",
    "odd [1]*?/x.jpg",
  ]
  assert all(image.label == "odd [1]*?" and image.size_bytes == Path(image.path).stat().st_size for image in listed)


def test_a_link_that_leads_nowhere_does_not_vanish(tmp_path):
  lay_out(tmp_path, "a/1.jpg", "b/1.jpg")
  (tmp_path / "a" / "2.jpg").symlink_to(tmp_path / "gone.jpg")
  folder, _ = find_class_folders(str(tmp_path))
  assert sorted(image.key for _, image in list_folder(folder)) == ["a/1.jpg", "a/2.jpg"]


def test_a_name_that_is_not_utf8_is_spelled_out(tmp_path):
  lay_out(tmp_path, "a/1.jpg", "b/1.jpg")
  (tmp_path / "a" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"1234")
  folder, _ = find_class_folders(str(tmp_path))
  listed = {image.key: image for _, image in list_folder(folder)}
  assert sorted(listed) == ["a/1.jpg", "a/caf\\udce9.jpg"]
  assert (listed["a/caf\\udce9.jpg"].path, listed["a/caf\\udce9.jpg"].size_bytes) == ("", 4)


def test_a_link_that_leads_back_multiplies_nothing(tmp_path):
  lay_out(tmp_path, "a/1.jpg", "a/deep/2.jpg", "b/1.jpg")
  (tmp_path / "a" / "loop").symlink_to(".")
  (tmp_path / "a" / "deep" / "up").symlink_to("..")
  folder, _ = find_class_folders(str(tmp_path))
  assert sorted(image.key for _, image in list_folder(folder)) == ["a/1.jpg", "a/deep/2.jpg"]


def test_every_image_is_in_exactly_one_shard(tmp_path, plan):
  names = [f"{label}/{number}.jpg" for label in "ab" for number in range(150)]
  shards = plan(lay_out(tmp_path, *names))
  assert Counter(image.key for shard in shards for image in shard.inputs) == Counter(names)
  for shard in shards:
    assert 0 <= shard.index < shard.of
    assert list(shard.inputs) == sorted(shard.inputs)
    assert len(shard.inputs) < 3 * 8
  of = {shard.split: shard.of for shard in shards}
  counts = {split: len(members) for split, members in keys(shards).items()}
  assert of == {split: -(-count // 8) for split, count in counts.items()}


def test_adding_images_moves_none_to_another_split(tmp_path, plan):
  before = keys(plan(lay_out(tmp_path, *(f"{label}/{number}.jpg" for label in "ab" for number in range(60)))))
  lay_out(tmp_path, *(f"{label}/new_{number}.jpg" for label in "ab" for number in range(60)))
  after = keys(plan(tmp_path))
  assert set(before) == {TRAINING, TESTING}
  for split, members in before.items():
    assert set(members) <= set(after[split])


def test_given_splits_are_kept_and_unasked_ones_left_out(tmp_path, plan):
  lay_out(tmp_path, "training/a/1", "training/b/2", "testing/a/3", "testing/b/4")
  assert keys(plan(tmp_path)) == {TESTING: ["testing/a/3", "testing/b/4"], TRAINING: ["training/a/1", "training/b/2"]}
  assert keys(plan(tmp_path, splits=(TESTING,))) == {TESTING: ["testing/a/3", "testing/b/4"]}


def test_without_percentages_all_is_one_split(tmp_path, plan):
  lay_out(tmp_path, "a/1", "b/2")
  assert keys(plan(tmp_path, splits=("all",), percentages=None)) == {"all": ["a/1", "b/2"]}
