"""A class without an image in some split is told before the long work."""

import struct
from collections import Counter
from pathlib import Path

import pytest

from transforms.check_splits import check_counts, count_labels
from transforms.core.errors import InputError
from transforms.core.schema import TESTING, TRAINING, VALIDATION, Image, encode_image
from transforms.core.shards import IdxRange, ImageFile, RecordsFile, Shard
from transforms.core.splits import SplitPercentages
from transforms.core.tfrecord import frame

_FULL = {(split, label): 1 for split in (TRAINING, VALIDATION, TESTING) for label in "ab"}


def test_nothing_is_missing():
  assert check_counts(_FULL, "ab", SplitPercentages()) == _FULL


@pytest.mark.parametrize("split", [TRAINING, VALIDATION, TESTING])
def test_the_class_and_the_split_are_named(split):
  counts = {**_FULL, (split, "b"): 0}
  with pytest.raises(InputError, match=f"no {split} image of class 'b': add images"):
    check_counts(counts, "ab", SplitPercentages())


def test_validation_that_nobody_wants_is_not_missed():
  counts = {key: count for key, count in _FULL.items() if key[0] != VALIDATION}
  assert check_counts(counts, "ab", SplitPercentages(validation=0)) == counts


def test_counts_records(tmp_path: Path):
  images = [Image(f"training/{number % 2}/{number}.jpg", str(number % 2), b"not looked at") for number in range(60)]
  path = tmp_path / "training-00000-of-00001.tfrecord"
  path.write_bytes(b"".join(frame(encode_image(image, int(image.label))) for image in images))
  percentages = SplitPercentages()
  counted = Counter(
    key for key, _ in count_labels(Shard(TRAINING, 0, 1, (RecordsFile(str(path), 0, 0.0),)), percentages)
  )
  assert counted == Counter((percentages.split_of(image.key, TRAINING), image.label) for image in images)
  assert {split for split, _ in counted} == {TRAINING, VALIDATION}


def test_many_missing_classes_are_not_all_listed():
  with pytest.raises(InputError, match=r"no training image of classes '0', '1', '2', '3', '4', \.\.\.:"):
    check_counts({}, "0123456789", SplitPercentages())


def test_counts_files_and_idx_labels(tmp_path: Path):
  percentages = SplitPercentages()
  files = tuple(ImageFile(f"training/a/{number}", "a", "", 1, 0.0) for number in range(50))
  counted = list(count_labels(Shard(TRAINING, 0, 1, files), percentages))
  assert len(counted) == 50
  assert {split for (split, _), _ in counted} == {TRAINING, VALIDATION}
  labels_path = tmp_path / "labels"
  labels_path.write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, 5) + bytes([7, 1, 2, 1, 9]))
  entry = IdxRange("", str(labels_path), start=1, count=3, rows=1, columns=1, pixels=None, labels=None)
  assert [label for (_, label), _ in count_labels(Shard(TESTING, 0, 1, (entry,)), percentages)] == ["1", "2", "1"]
