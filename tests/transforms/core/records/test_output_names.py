"""Names of converted images: from the key alone, each once, inside the output, and in the split of the original."""

from __future__ import annotations

import os

import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.output_names import (
  OutputName,
  check_folder_names,
  find_clashing,
  find_fault,
  name_output,
)
from beam_retrain.transforms.core.records.splits import SplitPercentages


@pytest.mark.parametrize(
  ("key", "label", "split", "path"),
  [
    ("cat/a.tif", "cat", "all", "cat/a"),
    ("cat/deep/er/a.v2.tif", "cat", "all", "cat/deep/er/a.v2"),
    ("training/cat/a", "cat", "training", "training/cat/a"),
    ("cat /a.tif", "cat", "all", "cat/a"),
    ("images/a.tif", "cat", "all", "cat/images/a"),
    ("images/a.tif", "cat", "validation", "validation/cat/images/a"),
    ("shard.tar/../../etc/passwd.jpg", "cat", "all", "cat/shard.tar/etc/passwd"),
    ("cat/.hidden/.a.tif", "cat", "all", "cat/_.hidden/_.a"),
    ("cat/a.png/b.tif", "cat", "all", "cat/a.png_/b"),
  ],
)
def test_the_path_is_the_label_and_the_name(key, label, split, path):
  assert name_output(key, label, split).path == path


@pytest.mark.parametrize("is_clashing", [False, True])
@pytest.mark.parametrize("length", [180, 195, 200, 201, 251])
def test_a_long_name_leaves_room_for_its_ending_and_a_temporary_name(length, is_clashing):
  for stem in ("a" * length, "\u72ac" * (length // 3)):
    path = name_output(f"cat/{stem}.tif", "cat", "all", is_clashing=is_clashing).path
    assert len(f"{os.path.basename(path)}.jpg.tmp-".encode()) + 32 <= 255


def test_the_key_keeps_its_stem_and_so_its_split():
  percentages = SplitPercentages(testing=30, validation=20)
  for number in range(200):
    for key in (f"cat/{number}.tif", f"cat/x_nohash_{number}.png", f"images/{number}.webp"):
      for is_clashing in (False, True):
        name = name_output(key, "cat", "all", is_clashing=is_clashing)
        assert percentages.split_of(f"{name.key}.jpg") == percentages.split_of(key)
        if key.startswith("cat/"):
          assert name.path == name.key


def test_images_that_would_have_one_name_are_found_and_told_apart():
  keys = ["cat/a.tif", "cat/a.png", "cat/A.JPG", "cat/b.tif", "dog/a.tif", "cat/caf\u00e9.tif", "cat/cafe\u0301.tif"]
  images = [(key, key.partition("/")[0], "all") for key in keys]
  clashing = find_clashing(images)
  assert clashing == {*keys} - {"cat/b.tif", "dog/a.tif"}
  names = [name_output(*image, is_clashing=image[0] in clashing) for image in images]
  assert len(set(names)) == len(keys)
  assert names[3:5] == [OutputName("cat/b", "cat/b"), OutputName("dog/a", "dog/a")]
  # A name that looks as if it had the suffix cannot take another's.
  assert names[0].path == "cat/a_nohash_1c9fd7c76c534ae3"
  assert name_output(f"{names[0].path}.gif", "cat", "all").path != names[0].path


def test_in_a_manifest_keys_clash_though_paths_do_not_and_the_other_way_round():
  assert find_clashing([("a.tif", "cat", "all"), ("a.png", "dog", "all")]) == {"a.tif", "a.png"}
  assert find_clashing([("cat/a.tif", "cat", "all"), ("a.tif", "cat", "all")]) == {"cat/a.tif", "a.tif"}


def test_a_name_too_long_is_cut_and_stays_its_own():
  one, other = (name_output(f"cat/{'x' * 240}{end}.tif", "cat", "all").path for end in "ab")
  assert one != other
  assert all(len(step.encode()) < 230 for step in one.split("/"))


def test_a_label_that_cannot_be_a_folder_is_refused():
  check_folder_names(["cat", "records of cats", "caf\u00e9", "*"], at_top=True)
  check_folder_names(["records"], at_top=False)
  for label, why in (("a/b", "contains a slash"), (".a", "starts with a dot"), ("x" * 201, "has more than 200 bytes")):
    with pytest.raises(InputError, match=why):
      check_folder_names([label], at_top=False)
  assert [find_fault(label, at_top=True) == "" for label in ("cat", "a/b", "..", "Records")] == [
    True,
    False,
    False,
    False,
  ]
  for label in ("records", "Training", "COMPLETED", "stats.json"):
    with pytest.raises(InputError, match="is a name that the output needs itself"):
      check_folder_names([label], at_top=True)
