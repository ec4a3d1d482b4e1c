"""Splits never move: fixed values, shares, and what does not count."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from transforms.core.splits import SplitPercentages, stable_hash

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
