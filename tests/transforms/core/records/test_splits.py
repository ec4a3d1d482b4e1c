"""Splits never move: fixed values, shares, and what does not count."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import re
from collections import Counter

import pytest

from beam_retrain.transforms.core.records.splits import SplitPercentages, stable_hash

_DEFAULT = SplitPercentages()

# The first 8 bytes, big-endian, of SHA-256 of "beam-retrain-split-1:" + the key without extension; its low 32 bits are
# a percentage of 2**32: below 10 testing, below 20 validation. A change here moves images of every user: do not.
_GOLDEN = {
  "training/5/17.jpg": "training",
  "training/0/0.jpg": "training",
  "daisy/a.jpg": "training",
  "é/ü.png": "training",
  "roses/3.jpg": "training",
  "roses/4.jpg": "validation",
  "roses/5.jpg": "testing",
  "roses/6.jpg": "training",
}


def _percent(name: str) -> float:
  digest = hashlib.sha256(b"beam-retrain-split-1:" + name.encode()).hexdigest()
  return int(digest[8:16], 16) * 100 / 2**32


def test_the_hash_never_changes():
  # python -c 'import hashlib; print(int(hashlib.sha256(b"s:training/5/17.jpg").hexdigest()[:16], 16))'
  assert stable_hash("training/5/17.jpg", b"s:") == 407430538879325275


@pytest.mark.parametrize(("key", "split"), _GOLDEN.items())
def test_known_keys_stay_where_they_are(key, split):
  assert _DEFAULT.split_of(key) == split


def test_shares_are_as_asked():
  count = 20_000
  counts = Counter(SplitPercentages(testing=15, validation=5).split_of(f"class_{i % 7}/{i}.jpg") for i in range(count))
  # Four standard deviations of a binomial share.
  for split, share in {"testing": 0.15, "validation": 0.05, "training": 0.80}.items():
    assert counts[split] / count == pytest.approx(share, abs=4 * (share * (1 - share) / count) ** 0.5)


def test_raising_a_percentage_moves_images_only_into_that_split():
  keys = [f"roses/{i}.jpg" for i in range(2_000)]
  small = SplitPercentages(testing=10, validation=0)
  large = SplitPercentages(testing=20, validation=0)
  moved = {(small.split_of(key), large.split_of(key)) for key in keys}
  assert moved == {("testing", "testing"), ("training", "testing"), ("training", "training")}


def test_near_duplicates_stay_together():
  alone = {_DEFAULT.split_of(f"roses/{i}.jpg") for i in range(200)}
  assert alone == {"training", "validation", "testing"}
  for i in range(200):
    group = {_DEFAULT.split_of(f"roses/{i}_nohash_{j}.jpg") for j in range(5)}
    assert group == {_DEFAULT.split_of(f"roses/{i}.jpg")}


def test_the_extension_does_not_count():
  for i in range(200):
    assert len({_DEFAULT.split_of(f"roses/{i}{extension}") for extension in (".jpg", ".png", ".JPEG", "")}) == 1


def test_only_the_extension_is_left_out():
  # A dot in a folder's name is no extension.
  assert _DEFAULT.split_of("v1.2/5") == ("testing" if _percent("v1.2/5") < 10 else "training")
  splits = {_DEFAULT.split_of(f"v1.2/{i}") for i in range(200)}
  assert splits == {"training", "validation", "testing"}


def test_given_testing_images_are_never_trained_on():
  assert {_DEFAULT.split_of(f"testing/1/{i}.jpg", "testing") for i in range(500)} == {"testing"}


def test_given_training_images_are_never_tested_and_validation_is_drawn_as_ever():
  for i in range(500):
    key = f"training/1/{i}.jpg"
    drawn, given = _DEFAULT.split_of(key), _DEFAULT.split_of(key, "training")
    assert given == ("training" if drawn == "testing" else drawn)


@pytest.mark.parametrize(("testing", "validation"), [(-1, 10), (10, -0.5), (50, 50), (100, 0), (0, 120)])
def test_percentages_that_leave_nothing_to_train_on_are_refused(testing, validation):
  with pytest.raises(ValueError, match="leave nothing to train on"):
    SplitPercentages(testing=testing, validation=validation)


def test_no_testing_and_no_validation_is_allowed():
  everything = SplitPercentages(testing=0, validation=0)
  assert {everything.split_of(f"roses/{i}.jpg") for i in range(500)} == {"training"}


def test_given_validation_images_stay_there():
  for percentages in (_DEFAULT, SplitPercentages(legacy_root="imgs")):
    assert {percentages.split_of(f"a/{i}.jpg", "validation") for i in range(500)} == {"validation"}


# --- --split_hash legacy ---------------------------------------------------------------------------------------------


def _as_retrain_py(path: str, testing: float, validation: float) -> str:
  """The rule of retrain.py's create_image_lists, from its description in words: no code of ours, none of theirs."""
  number = int(hashlib.sha1(re.sub(r"_nohash_.*$", "", path).encode("utf-8")).hexdigest(), 16)
  percentage = (number % (134217727 + 1)) * (100.0 / 134217727)
  if percentage < validation:
    return "validation"
  return "testing" if percentage < testing + validation else "training"


def _legacy_names(count: int) -> list[tuple[str, str]]:
  """`--image_dir` as typed, and keys below it; half of the names, and some of the folders, have `_nohash_`."""
  roots = ["imgs", "./imgs", "imgs/", "imgs//", "/flower photos", "/a_nohash_b", "../imgs", "gs://b/imgs", "."]
  folders = ["roses", "Étangs", "x_nohash_y", "日本", "a b", "7"]
  endings = [".jpg", ".JPG", ".png", "_nohash_0.jpg", "_nohash_12.jpeg", "_nohash_a_nohash_b.jpg", "_nohash_a\nb.png"]
  draw = random.Random(20)
  return [
    (draw.choice(roots), f"{draw.choice(folders)}/{draw.randrange(count)}{draw.choice(endings)}") for _ in range(count)
  ]


@pytest.mark.parametrize(("testing", "validation"), [(10, 10), (0, 25), (40, 0), (12.5, 7.25)])
def test_legacy_splits_are_those_of_retrain_py_on_10_000_names(testing, validation):
  names = _legacy_names(10_000)
  assert 4_000 < sum("_nohash_" in os.path.basename(key) for _, key in names) < 6_000
  splits: Counter[str] = Counter()
  for root, key in names:
    split = SplitPercentages(testing, validation, legacy_root=root).split_of(key)
    assert split == _as_retrain_py(os.path.join(root, key), testing, validation), (root, key)
    splits[split] += 1
  # All three are there, so that this compares something.
  assert splits["training"] > 4_000
  assert (splits["testing"] > 300) == (testing > 0)
  assert (splits["validation"] > 300) == (validation > 0)


# python -c 'import hashlib; print(int(hashlib.sha1(b"imgs/roses/1.jpg").hexdigest(), 16) % 2**27)'
@pytest.mark.parametrize(
  ("root", "key", "number"),
  [
    ("imgs", "roses/1.jpg", 3_155_214),
    ("./imgs", "roses/1.jpg", 64_630_405),
    ("imgs", "roses/1_nohash_2.jpg", 51_528_622),
  ],
)
def test_legacy_hashes_never_change(root, key, number):
  percent = number * (100.0 / (2**27 - 1))
  at = SplitPercentages(0, percent, legacy_root=root)
  above = SplitPercentages(0, math.nextafter(percent, 100), legacy_root=root)
  assert (at.split_of(key), above.split_of(key)) == ("training", "validation")


def test_legacy_near_duplicates_stay_together_and_the_extension_counts():
  legacy = SplitPercentages(legacy_root="imgs")
  for i in range(200):
    assert len({legacy.split_of(f"roses/{i}_nohash_{j}.{end}") for j in range(3) for end in ("jpg", "png")}) == 1
  assert {legacy.split_of(f"roses/{i}.jpg") == legacy.split_of(f"roses/{i}.png") for i in range(200)} == {True, False}


def test_legacy_images_given_as_training_are_never_tested():
  legacy = SplitPercentages(20, 20, legacy_root="imgs")
  drawn = [legacy.split_of(f"roses/{i}.jpg") for i in range(500)]
  given = [legacy.split_of(f"roses/{i}.jpg", "training") for i in range(500)]
  assert given == ["training" if split == "testing" else split for split in drawn]
  assert {*drawn} == {"training", "testing", "validation"}
  assert {legacy.split_of(f"roses/{i}.jpg", "testing") for i in range(500)} == {"testing"}


@pytest.mark.parametrize("typed", ["imgs", "./imgs", "imgs/", "imgs//", "../data/imgs", ".", "ABSOLUTE", "ABSOLUTE/"])
def test_what_is_hashed_is_what_tensorflow_listed_for_retrain_py(typed, tmp_path, monkeypatch):
  """retrain.py hashed what Glob gave it for os.path.join(image_dir, folder, "*.jpg"), not what was typed."""
  import tensorflow as tf

  imgs = tmp_path / "data" / "imgs"
  (imgs / "roses").mkdir(parents=True)
  names = [f"{i}_nohash_{i % 3}.jpg" if i % 2 else f"{i}.jpg" for i in range(60)]
  for name in names:
    (imgs / "roses" / name).touch()
  monkeypatch.chdir(imgs if typed == "." else tmp_path / "data")
  root = typed.replace("ABSOLUTE", str(imgs))
  listed = tf.io.gfile.glob(os.path.join(root, "roses", "*.jpg"))
  assert sorted(map(os.path.basename, listed)) == sorted(names)
  legacy = SplitPercentages(30, 30, legacy_root=root)
  splits = {path: legacy.split_of(f"roses/{os.path.basename(path)}") for path in listed}
  assert splits == {path: _as_retrain_py(path, 30, 30) for path in listed}
  assert len(set(splits.values())) == 3


@pytest.mark.parametrize("percentages", [SplitPercentages(15, 0.5), SplitPercentages(20, 5, legacy_root="./imgs/")])
def test_settings_bring_back_what_was_written(percentages):
  settings = json.loads(json.dumps({"input": "/x", **percentages.to_settings()}))
  assert SplitPercentages.from_settings(settings) == percentages


def test_settings_of_earlier_versions_mean_our_own_hash():
  assert SplitPercentages.from_settings({"testing_percentage": 15}) == SplitPercentages(15, 0)
  assert SplitPercentages(15, 5).to_settings() == {"testing_percentage": 15, "validation_percentage": 5}


def test_a_split_hash_of_a_later_version_is_refused():
  with pytest.raises(ValueError, match="'blake' is not one of stable, legacy"):
    SplitPercentages.from_settings({"testing_percentage": 15, "split_hash": "blake"})
